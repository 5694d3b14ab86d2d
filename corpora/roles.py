"""What the columns of a dataset have to hold, by the role that each plays: their values become its type, or are refused
in one line, from whatever kind of table they come."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import pandas
from datasets import ClassLabel, Dataset, LargeList, List, Value

from corpora.values import is_missing, tidy
from foundation.errors import InputError


logger = logging.getLogger(__name__)

# Of more class indices than these half have to occur: years and IDs are no classes.
MANY_CLASSES = 100


def _whole(number: float, least: float = -math.inf) -> int:
    # A csv with a blank cell brings whole numbers as floating ones.
    if number != int(number) or number < least:
        raise ValueError
    return int(number)


def _name(text: str) -> str | None:
    return None if is_missing(text) else tidy(text)


_NAME = "one name or whole number in each row", {"string": _name, "int": int, "float": _whole, "date32": str}
_NUMBER = "a number in each row", {"float": float, "int": float}  # and that is what other columns hold
_INDEX = partial(_whole, least=-1)
_TEXT = {"string": tidy, "int": str, "float": "{:.15g}".format}
_TURNS = {"list of string": list, "string": str.splitlines}
_RECORDINGS = dict.fromkeys(("string", "binary", "Audio", "recording"))
# What is legal, and what makes a value of each legal kind of column its type; recordings stay as they are.
ROLES: dict[str, tuple[str, dict[str, Callable | None]]] = {
    "audio": ("recordings: paths, encoded bytes, or samples with their sampling rate", _RECORDINGS),
    "text": ("one transcript in each row, as text", _TEXT),
    "label": (
        "one class in each row: its name, True or False, or a whole number from 0 on",
        {"string": _name, "bool": str, "int": _INDEX, "float": _INDEX},
    ),
    "session": _NAME,
    "speaker": _NAME,
    "dialogue": _NAME,
    "gender": _NAME,
    "context": ("a list of earlier turns in each row, or text with one turn in a line", _TURNS),
    "segment_id": ("one name in each row", _TEXT | {"string": str}),
    "emotions": ("a list of class indices in each row", {"list of int": list, "list of class": list}),
    "votes": ("one count for each class in each row", {"list of int": list, "list of float": list}),
    **dict.fromkeys(("start", "duration"), _NUMBER),
}


def kind_of(feature) -> str:
    """What a column holds, whatever the width of its numbers."""
    if isinstance(feature, (List, LargeList)):
        return f"list of {kind_of(feature.feature)}"
    if isinstance(feature, Mapping):
        is_recording = {"bytes", "path"} & feature.keys() or {"array", "sampling_rate"} <= feature.keys()
        return "recording" if is_recording else f"dict of {', '.join(feature)}"
    if not isinstance(feature, Value):
        return "class" if isinstance(feature, ClassLabel) else type(feature).__name__
    kinds = ("string", "int", "float", "bool", "binary")
    return next((kind for kind in kinds if kind in feature.dtype), feature.dtype)


def check_column(role: str, feature, shown: str) -> Callable | None:
    """What makes values of the column the type of its `role`; a column of another kind, which messages call `shown`, is
    an InputError."""
    kind, readers = kind_of(feature), ROLES.get(role, _NUMBER)[1]
    if kind == "class" and readers.get("string"):
        # -1 is how `datasets` marks a class that isn't known.
        return lambda index: None if index == -1 else readers["string"](feature.int2str(index))
    if kind not in readers and kind != "null":
        raise _refusal(role, shown, f"values of type {kind}")
    return readers.get(kind)


def _refusal(role: str, shown: str, found: str) -> InputError:
    return InputError(f"{shown} holds {found}; give {ROLES.get(role, _NUMBER)[0]}")


def read_columns(parts: Iterable[tuple[str, Dataset]], names: Iterable[str]) -> dict[str, list]:
    """The columns called `names`, which are `ROLES`, that all parts have, one after the other, and two that always are
    there: `part`, and `segment_id`; where a row has none, its number in its part stands in. A label is a name, or a
    class index where the column has no names. A part may come in several pieces. A mapping of names says how messages
    call each."""
    parts, shown = list(parts), names if isinstance(names, Mapping) else {}
    columns = {"part": [part for part, dataset in parts for _ in range(len(dataset))]}
    for name in names:
        if all(name in dataset.column_names for _, dataset in parts):
            read = partial(_read, name, shown=shown.get(name, f"column {name}"))
            values = [value for _, dataset in parts for value in read(dataset)]
            if name != "label" and {str, int} <= set(map(type, values)):
                # Numbers in one part and names in another, as where only one has an ID such as "7b".
                values = [None if value is None else str(value) for value in values]
            columns[name] = values
    numbers = pandas.Series(columns["part"]).groupby(columns["part"]).cumcount()
    is_divided = len(set(columns["part"])) > 1
    own = columns.get("segment_id", [None] * len(numbers))
    names = [f"{part}/{number}" if is_divided else f"{number}" for part, number in zip(columns["part"], numbers)]
    columns["segment_id"] = [name if given is None else given for given, name in zip(own, names)]
    return columns


def _read(role: str, dataset: Dataset, shown: str) -> list:
    read, values = check_column(role, dataset.features[role], shown), []
    for value in dataset.select_columns(role).with_format(None)[:][role]:
        try:
            values.append(None if value is None or value != value else read(value))
        except (ValueError, OverflowError):
            raise _refusal(role, shown, repr(value)) from None
    return values


def encode_labels(parts: Iterable[tuple[str, Dataset]], columns: dict[str, list], shown="column label") -> list[str]:
    """Make the labels of [`read_columns`] class indices, in place, and give the names of the classes: those of
    ClassLabels in their order, then other names in theirs; or LABEL_i for indices. ClassLabels that differ are matched
    by name, and with them `emotions` and `votes`."""
    features = [(len(dataset), dataset.features["label"]) for _, dataset in parts]
    declared = [[_name(name) for name in getattr(feature, "names", ())] for _, feature in features]
    names = [name for name in dict.fromkeys(sum(declared, [])) if name is not None]
    found = set(columns["label"]) - {None, -1}
    indices = {label for label in found if isinstance(label, int)}
    if indices and (names or indices != found):
        raise InputError(f"{shown} holds names in one part and numbers in another; give names in all")
    if indices and MANY_CLASSES < max(indices) + 1 > 2 * len(indices):
        raise _refusal("label", shown, f"the number {max(indices)}, and only {len(indices)} different ones")
    names = [f"LABEL_{i}" for i in range(max(indices) + 1)] if indices else names + sorted(found.difference(names))
    if not names:
        raise _refusal("label", shown, "nothing")
    index_of = {None: None, -1: None, **({} if indices else {name: index for index, name in enumerate(names)})}
    columns["label"] = [index_of.get(label, label) for label in columns["label"]]
    for name, after in pairwise(sorted(names, key=str.casefold)):
        if name.casefold() == after.casefold():
            logger.warning(f"{name} and {after} are two classes; if they are meant to be one, write them alike")
    end = 0
    for (length, _), own in zip(features, declared):
        start, end = end, end + length
        try:
            reindex(columns, range(start, end), [index_of[name] for name in own] or range(len(names)), len(names))
        except (IndexError, TypeError, ValueError):
            problem = f"columns emotions and votes don't fit {len(own or names)} classes; mend or drop them"
            raise InputError(problem) from None
    return names


def reindex(columns: dict[str, list], rows: Iterable[int], places: Sequence[int | None], num_classes: int) -> None:
    """Give the classes in `emotions` and `votes` their new places, in place; `None` for a class that is no longer."""
    emotions, votes = columns.get("emotions"), columns.get("votes")
    for row in rows:
        if emotions and emotions[row]:
            emotions[row] = [new for new in dict.fromkeys(places[old] for old in emotions[row]) if new is not None]
        if votes and votes[row]:
            counts = [0] * num_classes
            for place, count in zip(places, votes[row], strict=True):
                if place is not None:
                    counts[place] += count
            votes[row] = counts
