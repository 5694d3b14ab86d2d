"""What the cells of a table mean, whatever type and form they come in."""

import re
import unicodedata

from foundation.words import CONTROLS, writable


_CONTROLS = re.compile(f"[{CONTROLS}]+")
# Nothing to see, and yet another word or class. The joiners belong to words in some scripts, but not to their ends.
_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
_ENDS = re.compile(r"^[\s\u200c\u200d]+|[\s\u200c\u200d]+$")
# What programs write where there is no value.
_NOTHING = ("", "none", "nan", "null", "n/a", "<na>")
# What the parts of datasets are called → what each is for.
PART_NAMES = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"), "test": "test"}


def one_line(text: str) -> str:
    """What a label or a transcript may hold: text on one line, with a blank for what isn't written in it."""
    return writable(_CONTROLS.sub(" ", text))


def tidy(text: str) -> str:
    """The same text in one form: NFC, without zero-width and control characters and without blanks at its ends."""
    if text.isascii():  # which most labels, IDs and paths are
        return one_line(text).strip()
    return _ENDS.sub("", unicodedata.normalize("NFC", one_line(text)).translate(_ZERO_WIDTH))


def is_missing(text: str) -> bool:
    """Whether a cell of a label, a speaker or a session says that there is none."""
    return tidy(text).casefold() in _NOTHING
