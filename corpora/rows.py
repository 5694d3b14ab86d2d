"""What every corpus module gives: rows that can be read one by one, and an account of what else was found.
`shards` writes them, `conversion` counts them; neither needs to know which corpus they are from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace


class UnusableRow(Exception):
    """A row can't be used; the message is the reason shown in the report."""


@dataclass(slots=True)
class Row:
    """One row of a corpus's tables: why it can't be used, or what had to be mended."""

    name: str
    cells: list[str] | dict[str, str]
    problem: str | None = None
    repairs: list[str] = field(default_factory=list)
    # When its recording is read: `audio` is `{"bytes", "path"}` of a 16 kHz mono 16-bit wav, `label` and `emotions` are
    # names, all times are seconds.
    columns: dict | None = None


@dataclass
class Shard:
    """A part of a corpus that is read in one go and becomes one Arrow file, called `name`. `read` gives the columns of
    a row; it appends what it mends to a list, and raises [`UnusableRow`]."""

    name: str
    rows: list[Row]
    read: Callable[[Row, list[str]], dict]
    split: str = "train"

    def utterances(self) -> Iterator[Row]:
        """The rows with their columns, read one by one, so that only one recording is in memory at a time."""
        for row in self.rows:
            row = replace(row, repairs=list(row.repairs))
            try:
                row.columns = None if row.problem else self.read(row, row.repairs)
            except UnusableRow as reason:
                row.problem = str(reason)
            row.repairs = [] if row.problem else row.repairs
            yield row


@dataclass
class Corpus:
    """A corpus whose annotation is read, and whose recordings are not opened yet."""

    label_names: tuple[str, ...]  # in the order of their indices
    columns: tuple[str, ...]
    shards: list[Shard]
    # Every file that the rows are made from, so that a change of one can be noticed.
    files: list[str] = field(default_factory=list)
    # What is worth telling of the folder as a whole, kind to list of names.
    notes: dict[str, list[str]] = field(default_factory=dict)
    has_numbered_sessions: bool = True
