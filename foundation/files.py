"""Files that are there whole or not at all, and the folders that nothing may be written into."""

import json
import os
import tempfile
from pathlib import Path

from foundation.errors import InputError


REPOSITORY = Path(__file__).resolve().parents[1]


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


def write_whole(file: Path, text: str) -> None:
    """Write UTF-8 text beside its place and give it its name once it is on the disk: no one reads half of it. What
    isn't text, as in names of files, is escaped."""
    written = file.with_name(f".{file.name}.tmp")
    written.write_text(text, encoding="utf-8", errors="backslashreplace")
    to_disk(written)
    os.replace(written, file)
    to_disk(file.parent)


def write_json(file: Path, content: dict | list) -> None:
    """Write JSON as [`write_whole`] does."""
    write_whole(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
