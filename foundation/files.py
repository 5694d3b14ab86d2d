"""Files that are there whole or not at all, and the folders that nothing may be written into."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

from foundation.errors import InputError
from foundation.words import inert


REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = ".lock"
# How the name of a file begins until all of it is on the disk.
UNFINISHED = ".tmp."
MIB = 1 << 20
MAX_JSON_BYTES = 1024 * MIB


def read_regular(path: str | os.PathLike, most_bytes: int) -> bytes:
    """The content of a file; an OSError where it is larger, or is no file, such as a pipe that would be waited for."""
    # A third of the time that a file object takes, for files of a hundred bytes.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {most_bytes // MIB} MiB", str(path))
        content = os.read(descriptor, status.st_size)
        while len(content) < status.st_size and (more := os.read(descriptor, status.st_size)):
            content += more
        return content
    finally:
        os.close(descriptor)


def read_json(file: str | os.PathLike) -> dict:
    """The object in a JSON file; an InputError if there is none."""
    try:
        content = json.loads(read_regular(file, MAX_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} can't be read as JSON ({getattr(error, 'strerror', None) or error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object; give one of names and values")
    return content


def find_recipe(name: str | os.PathLike) -> Path:
    """A JSON file of arguments or of a plan; those in `recipes/` are found beside this code too."""
    return Path(name) if os.path.exists(name) or not (REPOSITORY / name).is_file() else REPOSITORY / name


def digest(file: Path, most_bytes: int | None = None) -> str:
    """Of a file's content, or of so many bytes at its beginning."""
    with file.open("rb") as stream:
        if most_bytes is None:
            return hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest()
        return xxhash.xxh3_64_hexdigest(stream.read(most_bytes))


def stamp(file: str | os.PathLike) -> list[int]:
    """Size and time of change, which tell of most changes without reading; nothing for a file that isn't there."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def check_output_dir(folder: str | Path, given: str) -> None:
    """Refuse a folder that can't be made or written into, or holds this code; `given` is what the user wrote."""
    reason = None if str(folder).strip() else "it has no name"
    folder = Path(os.path.expanduser(folder)).absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not there.is_dir():
            reason = f"{there} is a file"
        elif not os.access(there, os.W_OK | os.X_OK):
            reason = f"nothing may be written into {there}"
        # No trial that a killed process would leave: what can't be a name can't be looked for.
        for name in folder.relative_to(there).parts if reason is None else ():
            with suppress(FileNotFoundError):
                os.lstat(there / name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        raise InputError(f"{given} can't be written ({reason}); give a new folder")
    if (folder := folder.resolve()) in (REPOSITORY, *REPOSITORY.parents) or folder.is_relative_to(REPOSITORY / ".git"):
        raise InputError(f"{given} is or holds the code of this repository; give a new folder")


@contextmanager
def owned(folder: str | Path, given: str) -> Iterator[Path]:
    """A folder that no other process owns until the block ends, however that is; it is made if it isn't there, goes
    again if nothing is written into it, and what a killed process was writing is removed. Raises InputError as
    [`check_output_dir`] does, or where another process has it."""
    check_output_dir(folder, given)
    folder = Path(folder).expanduser()
    lock, is_new = FileLock(folder / LOCK, timeout=0), not os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{given} is being written by another process; wait for it, or give another folder") from None
    except OSError as error:
        raise InputError(f"{given} can't be written ({error.strerror}); give a new folder") from None
    with lock:
        lock.release()  # the block has it too
        for remains in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
        try:
            yield folder
        finally:
            if is_new and not holds_files(folder):
                shutil.rmtree(folder, ignore_errors=True)


def holds_files(folder: Path) -> bool:
    """Whether there is anything in a folder but the lock of a process that had it, and what that was writing."""
    return folder.is_dir() and any(not path.name.startswith((LOCK, UNFINISHED)) for path in folder.iterdir())


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
    # Not by its own map, which makes floats of whole numbers beside None.
    cells = [[inert(value) for value in row] for row in table.to_numpy(dtype=object).tolist()]
    table = type(table)(cells, columns=[*map(inert, table)], dtype=object)
    write_whole(file, table.to_csv(index=False, lineterminator="\r\n"))


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
