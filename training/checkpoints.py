"""Checkpoints on the disk: which of them are whole, which one a run goes on from, and which are deleted."""

import logging
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from foundation.errors import InputError, RunStopped
from foundation.files import digest, read_json, to_disk, write_json


logger = logging.getLogger(__name__)

LAST = "last"
# Written after all other files of a checkpoint: their names, sizes and digests.
FILE_LIST = "checkpoint_files.json"
TRAINING_WEIGHTS = "training_weights.safetensors"  # beside a model of averages
# In the folder of a run, the last file that training leaves.
FINISHED = "trainer_state.json"
NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")


def seal(folder: Path) -> None:
    """Make a checkpoint whole: all of it is on the disk, then the list of its files appears at once."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILE_LIST)
    for file in files:
        to_disk(file)
    written = {file.relative_to(folder).as_posix(): [file.stat().st_size, digest(file)] for file in files}
    write_json(folder / FILE_LIST, written)
    to_disk(folder.parent)


def delete(folder: Path) -> None:
    """Delete a checkpoint, its list of files first: at no moment does a part of it look whole."""
    (folder / FILE_LIST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(folder: Path):
    """A context in which a checkpoint, a model or results are written; what can't be is a RunStopped."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch raises a RuntimeError of many lines where other libraries raise an OSError.
        reason = str(error).splitlines()[0]
        message = (
            f"{folder} can't be written ({reason}); earlier checkpoints are as they were: make room, and go on by the "
            "same command with --resume_from_checkpoint last"
        )
        raise RunStopped(message, 1) from error


def is_half_written(folder: Path) -> bool:
    """Whether the process that wrote the checkpoint ended before it had."""
    return not (folder / FILE_LIST).is_file()


def find_damage(folder: Path, is_read: bool = True) -> str | None:
    """What is wrong with a checkpoint, by the names and sizes of its files, and if it `is_read` by all that is in them;
    `None` for a whole one."""
    if not folder.is_dir():
        return "there is no such folder"
    try:
        files = read_json(folder / FILE_LIST)
    except InputError:
        return f"it was not written to its end, or by another program: there is no {FILE_LIST}"
    for name, written in files.items():
        # Earlier versions wrote sizes alone.
        size, expected = written if isinstance(written, list) else (written, None)
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if is_read and expected is not None and digest(file) != expected:
            return f"{name} isn't as it was written"
    # --save_only_model leaves it out, and the Trainer would silently start with a new one.
    if not any(re.match(r"optimizer|global_step|pytorch_model_fsdp", name) for name in files):
        return "it holds no optimizer state"
    return None


def list_checkpoints(output_dir: Path) -> list[Path]:
    """All folders of checkpoints, whole or not, by their step."""
    found = [folder for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if NAME.fullmatch(folder.name)]
    return sorted(found, key=lambda folder: int(NAME.fullmatch(folder.name)[1]))


def rotate(output_dir: Path, limit: int | None, keep: set[Path]) -> None:
    """Delete the oldest whole checkpoints but `limit` (`None`: all stay) and `keep`, the latest and the best."""
    if limit is None or limit <= 0:
        return
    whole = [folder for folder in list_checkpoints(output_dir) if find_damage(folder, is_read=False) is None]
    others = [folder for folder in whole if folder not in keep]
    for folder in others[: max(len(whole) - limit, 0)]:
        delete(folder)


def is_finished(output_dir: Path) -> bool:
    """Whether the folder holds a run whose training has come to its end; an InputError if that can't be read."""
    file = output_dir / FINISHED
    try:
        return file.is_file() and read_json(file) is not None
    except InputError as error:
        again = f"goes on from the last checkpoint, or begins again, with --resume_from_checkpoint {LAST}"
        raise InputError(f"{error}; remove it, and the same command {again}") from error


def find_checkpoint(resume_from_checkpoint: str | None, output_dir: Path) -> Path | None:
    """The checkpoint that a run goes on from, `None` at its beginning: a folder, or for `"last"` or `"true"` the last
    whole one of the run. Raises InputError if that isn't whole, or all that the run has are damaged."""
    if resume_from_checkpoint is None:
        return None
    if resume_from_checkpoint.lower() not in (LAST, "true"):
        if (damage := find_damage(Path(resume_from_checkpoint))) is not None:
            problem = f"--resume_from_checkpoint {resume_from_checkpoint} can't be gone on from: {damage}"
            raise InputError(f"{problem}; give a whole checkpoint, or {LAST} for the last whole one in --output_dir")
        return Path(resume_from_checkpoint)
    damaged = {}
    for folder in reversed(list_checkpoints(output_dir)):
        damage = find_damage(folder)
        if damage is None:
            for name, reason in damaged.items():
                logger.warning(f"{name} is left out: {reason}.")
            logger.info(f"Going on from {folder}.")
            return folder
        if not is_half_written(folder):
            damaged[folder] = damage
    if damaged:
        reasons = "; ".join(f"{folder.name}: {reason}" for folder, reason in damaged.items())
        problem = f"--resume_from_checkpoint {resume_from_checkpoint} finds no whole checkpoint in {output_dir}"
        raise InputError(f"{problem} ({reasons}); give another one, or remove the folder to start at the beginning")
    logger.info(f"No whole checkpoint in {output_dir}: training starts at the beginning.")
    return None


def remove_half_written(output_dir: Path) -> None:
    """Delete what a killed process left of a checkpoint, and say so."""
    folders = [folder for folder in list_checkpoints(output_dir) if is_half_written(folder)]
    for folder in folders:
        delete(folder)
    if folders:
        names = ", ".join(folder.name for folder in folders)
        logger.warning(f"Removed from {output_dir}, because half-written: {names}.")
