"""Files that are there whole or not at all, and the folders that nothing may be written into."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from foundation.errors import InputError
from foundation.words import inert


REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = ".lock"
# How the name of a file begins until all of it is on the disk.
UNFINISHED = ".tmp."


def holds_code(folder: Path) -> bool:
    """Whether `folder` is this repository, holds it, or lies in its .git, so that nothing may be written into it."""
    folder = folder.expanduser().resolve()
    return folder == REPOSITORY or folder in REPOSITORY.parents or folder.is_relative_to(REPOSITORY / ".git")


def check_output_dir(folder: str | Path, given: str) -> None:
    """Refuse a folder that can't be made or written into, or holds this code; `given` is what the user wrote."""
    reason = None if str(folder).strip() else "it has no name"
    folder = Path(os.path.expanduser(folder))
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            reason = f"{there} is a file"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = f"nothing may be written into {there}"
        elif there != folder:
            # Tried beside it: an empty folder of that name would be left, or be met by another process.
            with tempfile.TemporaryDirectory(dir=there, prefix=".") as trial:
                Path(trial, folder.absolute().relative_to(there)).mkdir(parents=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        raise InputError(f"{given} can't be written ({reason}); give a new folder")
    if holds_code(folder):
        raise InputError(f"{given} is or holds the code of this repository; give a new folder")


@contextmanager
def owned(folder: str | Path, given: str) -> Iterator[Path]:
    """
    A folder that no other process owns until the block ends, however that is; it is made if it isn't there, and what a
    killed process was writing into it is removed. Raises InputError as [`check_output_dir`] does, or where another
    process has it.
    """
    check_output_dir(folder, given)
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{given} is being written by another process; wait for it, or give another folder") from None
    with lock:
        lock.release()  # the block has it too
        for remains in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
        yield folder


def holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder but the lock of a process that had it."""
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())


@contextmanager
def writing_whole(file: Path) -> Iterator[Path]:
    """The path of a file to write beside `file`, whose name it gets when the block ends and all of it is on the disk:
    no one reads half of it, and the file that had the name before stays until then."""
    beside = file.with_name(f"{UNFINISHED}{file.name}")
    try:
        yield beside
        to_disk(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    to_disk(file.parent)


@contextmanager
def writing_all(folder: Path) -> Iterator[Path]:
    """A folder in `folder`, whose files get their places in that when the block ends and all of them are on the disk:
    in the reverse order of their names, so that what is read first, config.json or model.onnx, comes after the
    weights."""
    beside = folder / f"{UNFINISHED}all"
    beside.mkdir(parents=True)
    try:
        yield beside
        files = sorted(beside.iterdir(), reverse=True)
        for file in files:
            to_disk(file)
        for file in files:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(beside)
    to_disk(folder)


def write_whole(file: Path, text: str) -> None:
    """Write UTF-8 text as [`writing_whole`] says. What isn't text, as in names of files, is escaped."""
    with writing_whole(file) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_json(file: Path, content: dict | list) -> None:
    """Write JSON as [`write_whole`] does."""
    write_whole(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_csv(file: Path, table) -> None:
    """Write a pandas DataFrame as [`write_whole`] does, without what a spreadsheet would take for a formula."""
    text = table.rename(columns=inert).map(inert).to_csv(index=False, lineterminator="\r\n")
    write_whole(file, text)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
