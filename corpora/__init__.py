"""Corpora of emotional speech: one module per corpus turns a folder into rows, `arrow` turns rows into a dataset.
Nothing in here imports torch, and the modules that read a corpus do not import `datasets` either."""

import argparse
from pathlib import Path
from typing import NoReturn


# The order of the labels, and of the model's logits. The configuration, which travels without this package, lists the
# same; taken from there it would cost every conversion the import of transformers.
EMOTIONS = ("neutral", "happy", "angry", "surprise", "sad", "fear", "disgust")
REPOSITORY = Path(__file__).resolve().parents[1]


class CorpusError(ValueError):
    """The user pointed at something that can't be converted; the message is one line that says what to do."""


class PushError(RuntimeError):
    """The Hub doesn't take what is pushed; the message is one line that says what to do."""


def holds_code(folder: Path) -> bool:
    """Whether `folder` is this repository, holds it, or lies in its .git, so that nothing may be written into it."""
    folder = folder.expanduser().resolve()
    return folder == REPOSITORY or folder in REPOSITORY.parents or folder.is_relative_to(REPOSITORY / ".git")


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage that would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")
