"""The errors that end a command with one line, and the parser that reports a wrong argument in one."""

import argparse
from typing import NoReturn


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


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage that would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")
