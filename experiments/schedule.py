"""Runs cells side by side, each in a process of its own, and reports how each of them ended."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import psutil
import torch

from experiments.cells import LOG, run_cell_in_process
from experiments.plan import Cell
from foundation.files import REPOSITORY
from foundation.words import writable
from training.stopping import SIGNALS


# A process with tiny backbones takes less (measured).
TINY_BYTES = 2 * 2**30
# Seconds for each that runs, between two looks at them.
PAUSE = 0.05
# Imported once, before processes are forked.
PRELOADED = ["experiments.cells", "metrics.emotion_metric", "training.card", "training.features", "matplotlib.pyplot"]


class Interrupted(Exception):
    """A signal arrived before all cells were done; those that ran have stopped."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def choose_num_processes(is_tiny: bool, num_cells: int) -> int:
    """One for each accelerator; without one, as many tiny ones as there are cores and memory for, others alone."""
    num_devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if num_devices or not is_tiny:
        return max(1, min(num_devices, num_cells))
    allowed = psutil.virtual_memory().available // TINY_BYTES
    return max(1, min(num_cores(), allowed, num_cells))


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_cells(
    cells: list[Cell], output_dir: Path, num_processes: int, on_change: Callable[[Cell, str], None], launch=None
) -> dict[str, str]:
    """
    Run cells in their order, so many at a time, and give the reasons in one line of those that failed, by their names.
    `on_change` is told of a cell that it is `"running"`, `"done"`, `"failed"`, or `"stopped"` after SIGINT or SIGTERM,
    where what runs saves a checkpoint before `Interrupted` is raised. `launch` starts one in its folder, at its
    place among those that run, in place of a process of this machine.
    """
    launch = launch or partial(_start, _make_context(num_processes))
    errors, waiting, running = {}, list(cells), []
    free, is_stopping = list(range(num_processes)), False
    with _noting_signals() as received:
        while (waiting and not received) or running:
            while waiting and free and not received:
                cell, place = waiting.pop(0), free.pop(0)
                running.append((launch(cell, output_dir / cell.name, place), cell, place))
                on_change(cell, "running")
            if received and not is_stopping:
                is_stopping = True
                for process, *_ in running:
                    process.terminate()
            time.sleep(PAUSE * len(running))
            for ended in [entry for entry in running if not entry[0].is_alive()]:
                running.remove(ended)
                process, cell, place = ended
                free.append(place)
                reason = process.join()  # of a job; a process has an exit code
                state = "done" if not (reason or process.exitcode) else "stopped" if received else "failed"
                if state == "failed":
                    errors[cell.name] = reason or tell_reason(process.exitcode, output_dir / cell.name / LOG)
                on_change(cell, state)
    if received:
        raise Interrupted(received[0])
    return errors


def _start(context, cell: Cell, folder: Path, place: int):
    process = context.Process(target=run_cell_in_process, args=(cell, folder, _environment(place)))
    process.start()
    return process


def _make_context(num_processes: int):
    """Processes that start with everything imported, where the system can fork them."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_processes)))
    # Threads that wait for work by spinning would take it from the other cells.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    find_code()
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def find_code() -> None:
    """Have processes that this one starts find the modules of this repository."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))


def _environment(place: int) -> dict[str, str]:
    """The variables that give each of the processes side by side an accelerator of its own."""
    if not (torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == "cuda"):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(index) for index in range(torch.accelerator.device_count())]
    return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Inside this context SIGINT and SIGTERM are only noted."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_reason(exit_code: int, log: Path) -> str:
    """Why a process ended: the last line it printed, or the signal."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        about = ", as the system does when memory runs out: give a smaller --num_processes" if name == "SIGKILL" else ""
        return f"ended by {name}{about}"
    printed = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    last = printed.splitlines()[-1].strip() if printed else f"exit code {exit_code}"
    return writable(last.removeprefix("run_classification.py: "))
