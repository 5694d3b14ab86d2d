"""Reads a folder of one's own: recordings of any kind, and a csv that names them with their text and label.
Every row of the csv comes back, either with its columns or with the reason why it can't be used."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpora import EMOTIONS
from corpora.recordings import read_recording
from corpora.rows import Corpus, UnusableRow, Utterance
from foundation.errors import InputError


REQUIRED = ("path", "text", "label")
OPTIONAL = ("speaker", "session", "split")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
SPLITS |= {"test": "test"}
ROWS_PER_SHARD = 256

BLANK_ROW = "blank row"
DUPLICATE = "duplicate path"
LABEL_MISSING = "label missing"
PATH_MISSING = "path missing"
PATH_OUTSIDE = "path leaves the folder of the recordings"
UNKNOWN_SPLIT = f"split is none of {', '.join(SPLITS)}"
WRONG_WIDTH = "row is not as wide as the header"


@dataclass
class Row:
    """One row of the csv, before its recording is read; `name` is the path, or the line where there is none."""

    name: str
    cells: dict[str, str]
    problem: str | None = None
    repairs: list[str] = field(default_factory=list)

    @property
    def split(self) -> str:
        return SPLITS.get(self.cells.get("split", "").lower(), "train")


@dataclass
class RowShard:
    """Some consecutive rows of one split."""

    name: str
    split: str
    rows: list[Row]
    folder: Path
    numbered: bool

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    def utterances(self) -> Iterator[Utterance]:
        """Reads recordings one by one, so that only one is in memory at a time."""
        for row in self.rows:
            yield self._read(row)

    def _read(self, row: Row) -> Utterance:
        repairs = list(row.repairs)
        path = self.folder / row.name
        try:
            if row.problem is not None:
                raise UnusableRow(row.problem)
            wav, duration = read_recording(path, repairs)
        except UnusableRow as reason:
            return Utterance(row.name, str(reason), [], None)
        text = " ".join(row.cells["text"].split())
        if not text:
            repairs.append("transcript is blank, text left empty")
        columns = {
            "audio": {"bytes": wav, "path": f"{path.stem}.wav"},
            "text": text,
            "label": row.cells["label"],
            "segment_id": row.name,
            "speaker": row.cells.get("speaker") or None,
            "session": row.cells.get("session") or None,
            "duration": duration,
        }
        if self.numbered and columns["session"] is not None:
            columns["session"] = int(columns["session"])
        return Utterance(row.name, None, repairs, columns)


def read_corpus(metadata: str | Path, folder: str | Path | None = None) -> Corpus:
    """Reads the csv, without opening the recordings.

    Args:
        metadata: a csv in utf-8 (or cp949, as Korean spreadsheets write it), or a .tsv, with a header.
        folder: where the paths of the csv start; the csv's own folder when left out.

    Raises:
        InputError: the csv can't be read, or lacks a column.
    """
    metadata = Path(metadata)
    folder = metadata.parent if folder is None else Path(folder)
    if not folder.is_dir():
        raise InputError(f"--corpus_dir {folder} is not a folder: give the one in which the paths of {metadata} start")
    notes: dict[str, list[str]] = {}
    header, lines = read_table(metadata, "--metadata", notes)
    header = [name.lower() for name in header]
    _check_header(header, metadata, notes)
    rows = [_read_row(header, cells, f"line {line}") for cells, line in lines]
    _mark_duplicates(rows)
    usable = [row for row in rows if row.problem is None]
    labels = {row.cells["label"] for row in usable}
    sessions = {row.cells["session"] for row in usable if row.cells.get("session")}
    # As numbers they are in their order; "01" and "1" would become the same, so they stay names.
    numbered = bool(sessions) and all(name.isdecimal() and str(int(name)) == name for name in sessions)
    columns = ["audio", "text", "label", "segment_id", *(name for name in ("session", "speaker") if name in header)]
    return Corpus(
        # In the model's own order where they are its emotions, so that a model of KEMDy can score them.
        label_names=EMOTIONS if labels <= set(EMOTIONS) else tuple(sorted(labels)),
        columns=(*columns, "duration"),
        shards=_shards(rows, folder, numbered),
        files=[str(metadata), *(os.path.join(folder, row.name) for row in usable)],
        notes=notes,
        has_numbered_sessions=numbered,
    )


def read_table(path: Path, argument: str, notes: dict[str, list[str]]) -> tuple[list[str], list]:
    """The header of a csv, and of each row below it the cells without blanks around them and the number of its line.

    Args:
        path: a csv in utf-8 or cp949, or a .tsv.
        argument: the name by which the user gave it, for errors.
        notes: what is worth telling of it is added here.

    Raises:
        InputError: it can't be read, or two columns have one name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{argument} {path} can't be read ({error.strerror}): give a csv") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp949")
            notes["csv read as cp949"] = [path.name]
        except UnicodeDecodeError as error:
            raise InputError(f"{argument} {path} is neither utf-8 nor cp949 ({error}): save it as utf-8") from None
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [([cell.strip() for cell in cells], reader.line_num) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{argument} {path} is not a csv ({error}): save it as csv with a header") from None
    header = rows[0][0] if rows else []
    names = [name.lower() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{argument} {path} has several columns named {', '.join(twice)}: keep one of each")
    return header, rows[1:]


def _check_header(header: list[str], path: Path, notes: dict[str, list[str]]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        wanted = f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
        raise InputError(
            f"--metadata {path} has no column named {' and none named '.join(missing)}, only "
            f"{', '.join(header) or 'none'}: give a header with {wanted}"
        )
    unused = [name for name in header if name not in REQUIRED + OPTIONAL]
    if unused:
        notes["columns of the csv not used"] = unused


def _read_row(header: list[str], cells: list[str], place: str) -> Row:
    if not any(cells):
        return Row(place, {}, BLANK_ROW)
    if len(cells) != len(header):
        return Row(place, {}, WRONG_WIDTH)
    named = dict(zip(header, cells, strict=True))
    if not named["path"]:
        return Row(place, named, PATH_MISSING)
    # A csv that came with somebody's corpus may not pull in what lies elsewhere on this machine. Links are followed:
    # only the owner of the folder can have put them there.
    path = os.path.normpath(named["path"].replace("\\", "/"))
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        return Row(named["path"], named, PATH_OUTSIDE)
    row = Row(path, named)
    if not named["label"]:
        row.problem = LABEL_MISSING
    elif "split" in named and named["split"].lower() not in SPLITS:
        row.problem = UNKNOWN_SPLIT
    return row


def _mark_duplicates(rows: list[Row]) -> None:
    seen = set()
    for row in rows:
        if row.problem is None and row.name in seen:
            row.problem = DUPLICATE
        elif row.problem is None:
            seen.add(row.name)


def _shards(rows: list[Row], folder: Path, numbered: bool) -> list[RowShard]:
    shards = []
    for split in dict.fromkeys(SPLITS.values()):
        mine = [row for row in rows if row.split == split]
        for index, start in enumerate(range(0, len(mine), ROWS_PER_SHARD)):
            chunk = mine[start : start + ROWS_PER_SHARD]
            shards.append(RowShard(f"{split}-{index:05d}", split, chunk, folder, numbered))
    return shards
