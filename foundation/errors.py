"""The errors that end a command with one line, and the parser that reports a wrong argument in one."""

import argparse
import io
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import NoReturn

from foundation.words import writable


# Of a command that writes files.
EXIT_CODES = "exit codes: 0, all files are written; 1, one can't be; 2, something given can't be used"


class InputError(ValueError):
    """Something given can't be used; the message is one line: what was given, what is legal, what to do."""


class PushError(RuntimeError):
    """The Hub doesn't take what is pushed; the message is one line that says what to do."""


class RunStopped(Exception):
    """A run ends before its end, with the exit code of the script; the message is one line: why, and how to go on. It
    is empty where another process reports it."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def complain(program: str, message: object) -> None:
    """Print what ends a command: one line, whatever the names in it."""
    print(f"{program}: {writable(' '.join(str(message).split()))}", file=sys.stderr)


def run_script(program: str, main: Callable[[list[str]], object], is_early: bool = False) -> None:
    """End the process with the exit code of a command, which is also done to its end where nobody reads what it prints.
    One that is early only prints --help or refuses, before imports that take seconds, or the process goes on."""
    sys.stdout.flush()
    printed = io.BufferedWriter(_Printed(sys.stdout.fileno(), "w", closefd=False))
    # Names in Hangul may be printed on a terminal without.
    sys.stdout = io.TextIOWrapper(printed, sys.stdout.encoding, "backslashreplace", line_buffering=printed.isatty())
    try:
        code = main(sys.argv[1:])
    except InputError as error:
        complain(program, error)
        code, is_early = 2, False
    sys.stdout.flush()
    if printed.raw.error is not None:
        complain(program, f"what it printed last is lost ({printed.raw.error.strerror}), and nothing else")
    if not is_early:
        sys.exit(code)


def exit_code(program: str, write: Callable[[], object], given: str) -> int:
    """Of a command that writes files into a folder, as [`EXIT_CODES`] says; `given` is what the user wrote for it."""
    try:
        write()
    except InputError as error:
        complain(program, error)
        return 2
    except OSError as error:
        complain(program, f"{given} can't be written ({error.strerror}); make room, or give another folder")
        return 1
    return 0


class _Printed(io.FileIO):
    """A stdout that may be a pipe whose reader has ended, or a file on a full disk."""

    error = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return len(data)


def unknown_arguments(unknown: list[str], known: Iterable[str]) -> str:
    """A message about what no parser took, with the options that were perhaps meant."""
    options = [argument for argument in unknown if argument.startswith("-")] or unknown
    names = [f"--{option.lstrip('-').partition('=')[0]}" for option in options]
    close = [match for name in names for match in get_close_matches(name, list(known), 1)]
    meant = f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
    return f"unknown arguments: {' '.join(unknown)}{meant} (see --help)"


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage that would bury it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        # Before the parser looks for what has to be given, and misses what is mistyped.
        known = self._option_string_actions
        unknown = [
            arg for arg in args if arg.startswith("--") and " " not in arg and arg.partition("=")[0] not in known
        ]
        if unknown:
            self.exit(2, f"{self.prog}: {unknown_arguments(unknown, known)}\n")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")
