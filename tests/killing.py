"""Kills a script at one of its file events, as a power cut or the system would: nothing of it runs afterwards."""

import os
import signal
import sys
from pathlib import Path


# Run by `python -c`, with the number of the event, a file for their count, the folders that count, and the command.
PROGRAM = """
import sys
from tests.killing import kill_at
number, counted, folders, script, *arguments = sys.argv[1:]
kill_at(int(number), counted, folders.split(":"))
import runpy
sys.argv = [script, *arguments]
sys.path[0] = "."
runpy.run_path(script, run_name="__main__")
"""
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR


def kill_at(number: int, counted: str, folders: list[str]) -> None:
    """
    Kill this process before file event `number` below `folders`: a file opened to be written, a name made, changed or
    removed, or a wait for the disk. With 0 none is met, and the file `counted` tells how many there were.
    """
    seen, main, fsync = 0, os.getpid(), os.fsync

    def note() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if not number and os.getpid() == main:
            with_number = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(with_number, str(seen).encode())
            os.close(with_number)

    def hook(event, arguments):
        is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (is_writing or event in EVENTS) and isinstance(arguments[0], (str, bytes, os.PathLike)):
            at = arguments[1] if event in ("os.remove", "os.rmdir") else -1
            folder = os.getcwd() if at == -1 else os.readlink(f"/proc/self/fd/{at}")
            path = os.path.normpath(os.path.join(folder, os.fsdecode(arguments[0])))
            if path != counted and any(path.startswith(folder) for folder in folders):
                note()

    def noted_fsync(descriptor):
        note()
        fsync(descriptor)

    os.fsync = noted_fsync
    sys.addaudithook(hook)


def start(processes, number: int, counted: Path, folders: list[Path], script: str, *arguments, **options):
    """Start a script of this repository that is killed before its file event `number`; 0 only counts them."""
    where = ":".join(str(folder.resolve()) for folder in folders)
    return processes.start("-c", PROGRAM, number, counted, where, script, *arguments, **options)
