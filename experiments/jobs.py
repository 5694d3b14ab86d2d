"""Cells as jobs of Slurm on a folder that its machines share, by submitit, which is an extra."""

import os
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable
from xxhash import xxh3_64_hexdigest

from experiments.cells import LOG, run_cell
from experiments.plan import Cell
from experiments.schedule import find_code, num_cores, tell_reason
from foundation.errors import InputError


# submitit's names for what every cluster has; all else is Slurm's own.
OF_ALL = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
# A job waits until another of its name is over: one that outlived the command that submitted it.
DEFAULTS = {"timeout_min": 24 * 60, "dependency": "singleton"}


def make_executor(folder: Path, given: list[str]) -> submitit.AutoExecutor:
    """What submits jobs, for `--slurm KEY=VALUE`, and keeps what it needs in a folder. Raises [`InputError`]."""
    find_code()
    pairs = dict(pair.partition("=")[::2] for pair in given)
    cluster, parameters = pairs.pop("cluster", "slurm"), DEFAULTS | pairs
    parameters = {name if name in OF_ALL else f"slurm_{name}": value for name, value in parameters.items()}
    numbers = {name: int(value) for name, value in parameters.items() if str(value).isdecimal()}
    try:
        executor = submitit.AutoExecutor(folder.resolve(), cluster)
        executor.update_parameters(**parameters | numbers)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        told = f"--slurm {' '.join(given)} can't be used ({str(error).splitlines()[0]}); give others"
        raise InputError(f"--launcher slurm {told}") from error
    return executor


def name_next(executor: submitit.AutoExecutor, cell: Cell, folder: Path) -> None:
    """Name the next job by its cell, and by which plan it is of."""
    executor.update_parameters(name=f"{cell.name}-{xxh3_64_hexdigest(os.fsencode(folder.resolve()))[:8]}")


def sbatch_text(executor: submitit.AutoExecutor, cell: Cell, folder: Path) -> str:
    """What Slurm would be given for a cell."""
    name_next(executor, cell, folder)
    return executor._executor._make_submission_file_text(executor._executor._submitit_command_str, cell.name)


class CellJob(Checkpointable):
    """What a job runs. When its time is up or it is preempted, it is queued again, and the run goes on."""

    def __call__(self, cell: Cell, folder: Path) -> str | None:
        """Why it failed, if it did."""
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cores()))
        code = run_cell(cell, folder)
        return tell_reason(code, folder / LOG) if code else None


class Job:
    """A cell that is submitted, in place of a process. One that is told to stop is Slurm's concern from then on."""

    exitcode = None

    def __init__(self, executor: submitit.AutoExecutor, cell: Cell, folder: Path, place: int):
        name_next(executor, cell, folder)
        self.is_cancelled = False
        try:
            self.submitted = executor.submit(CellJob(), cell, folder.resolve())
        except (OSError, RuntimeError) as error:
            raise InputError(f"{cell.name} can't be submitted ({error}); the same command goes on") from error

    def is_alive(self) -> bool:
        return not (self.is_cancelled or self.submitted.done())

    def terminate(self) -> None:
        self.is_cancelled = True
        self.submitted.cancel(check=False)

    def join(self) -> str | None:
        """Why it failed, if it did."""
        try:
            return "cancelled" if self.is_cancelled else self.submitted.result()
        except RuntimeError:  # it was killed, or didn't come to its run
            job = self.submitted
            return f"job {job.job_id} ended as {job.state}; {job.paths.stderr} has what it said last"
