"""What ends training before its end: a signal, after a last checkpoint, or a loss that isn't finite, without one."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import TrainerCallback

from foundation.errors import RunStopped


NON_FINITE_LOSS = 3
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What `accelerate launch` puts into the environment, and what it adds where it starts several processes.
LAUNCHED, LAUNCHED_IN_GROUPS = "ACCELERATE_DYNAMO_MODE", "TORCHELASTIC_RUN_ID"


@contextmanager
def handling_signals(handler: Callable) -> Iterator[None]:
    """Inside this context SIGTERM and SIGINT are for `handler`, which is called as those of `signal` are."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def stop_with_launcher() -> None:
    """Send SIGTERM to this process when the `accelerate launch` that started it is gone, which passes none on to one
    process. A run in the background of a shell goes on without the shell."""
    if LAUNCHED in os.environ and os.name == "posix":
        threading.Thread(target=_stop_after, args=(os.getppid(),), daemon=True).start()


def _stop_after(parent: int) -> None:
    # It went while this process was importing, if the parent is init and of other processes.
    is_gone = parent == 1 and LAUNCHED_IN_GROUPS not in os.environ and os.getpgid(1) != os.getpgrp()
    while not is_gone and os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def largest(value: int, device: torch.device) -> int:
    """The largest of the values that the processes have: they stop together, or those that go on wait for ever."""
    if not torch.distributed.is_initialized():
        return value
    values = torch.tensor(value, device=device)
    torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
    return int(values)


def check_finite(loss: torch.Tensor, step: int, segment_ids: list[str] | None) -> None:
    """Stop a run, all its processes, whose loss can't be trained on. Gradients that overflow under a loss scale are
    another thing: the scaler leaves out their step."""
    is_finite = bool(torch.isfinite(loss))
    if not largest(not is_finite, loss.device):
        return
    rows = "rows without IDs" if segment_ids is None else ", ".join(segment_ids)
    message = (
        f"the loss is {float(loss)} in optimizer step {step}: training stops and saves nothing more. "
        f"The batch holds {rows}"
    )
    raise RunStopped("" if is_finite else message, NON_FINITE_LOSS)


class StopOnSignalCallback(TrainerCallback):
    """After a signal in any process, ends the step, has all save a checkpoint, and stops with its exit code."""

    def __init__(self):
        self.received = 0
        self.is_stopping = False

    def listening(self):
        """Signals are noted inside this context; a second SIGINT interrupts at once."""
        return handling_signals(self._note)

    def _note(self, number, frame):
        # Of Ctrl-C, a launcher that it ends too is no other reason.
        self.received = self.received or number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def _save_if_told(self, args, state, control, **kwargs):
        self.received = largest(self.received, args.device)
        if self.received:
            self.is_stopping = control.should_save = True

    on_step_end = on_evaluate = on_epoch_end = _save_if_told

    def on_save(self, args, state, control, **kwargs):
        if not self.is_stopping:
            return
        name = signal.Signals(self.received).name
        message = (
            f"stopped by {name} after step {state.global_step} of {state.max_steps}, which is saved in "
            f"{Path(args.output_dir)}; go on by the same command with --resume_from_checkpoint last"
        )
        raise RunStopped(message if state.is_world_process_zero else "", 128 + self.received)
