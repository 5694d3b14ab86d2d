"""Reads a folder of one's own: recordings of any kind, and a csv that names them with their text and label.
Every row of the csv comes back, either with its columns or with the reason why it can't be used."""

import os
from functools import partial
from pathlib import Path

from corpora import EMOTIONS
from corpora.recordings import read_recording
from corpora.rows import Corpus, Row, Shard
from corpora.tables import WRONG_WIDTH, read_csv
from corpora.values import PARTS as SPLITS
from foundation.errors import InputError


REQUIRED = ("path", "text", "label")
OPTIONAL = ("speaker", "session", "split")
ROWS_PER_SHARD = 256

BLANK_ROW = "blank row"
DUPLICATE = "duplicate path"
LABEL_MISSING = "label missing"
PATH_MISSING = "path missing"
PATH_OUTSIDE = "path leaves the folder of the recordings"
UNKNOWN_SPLIT = f"split is none of {', '.join(SPLITS)}"


def read_corpus(metadata: str | Path, folder: str | Path | None = None) -> Corpus:
    """Reads the csv, without opening the recordings; its paths start in `folder`, or beside it when that is left
    out."""
    metadata = Path(metadata)
    folder = metadata.parent if folder is None else Path(folder)
    if not folder.is_dir():
        raise InputError(f"--corpus_dir {folder} is not a folder: give the one in which the paths of {metadata} start")
    notes: dict[str, list[str]] = {}
    header, lines = read_csv(metadata, "--metadata", notes)
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
    """A row before its recording is read; its name is the path, or the line where there is none."""
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


def _shards(rows: list[Row], folder: Path, numbered: bool) -> list[Shard]:
    shards = []
    for split in dict.fromkeys(SPLITS.values()):
        mine = [row for row in rows if SPLITS.get(row.cells.get("split", "").lower(), "train") == split]
        for index, start in enumerate(range(0, len(mine), ROWS_PER_SHARD)):
            chunk = mine[start : start + ROWS_PER_SHARD]
            shards.append(Shard(f"{split}-{index:05d}", chunk, partial(_read, folder=folder, numbered=numbered), split))
    return shards


def _read(row: Row, repairs: list[str], folder: Path, numbered: bool) -> dict:
    path = folder / row.name
    wav, duration = read_recording(path, repairs)
    text = " ".join(row.cells["text"].split())
    if not text:
        repairs.append("transcript is blank, text left empty")
    session = row.cells.get("session") or None
    return {
        "audio": {"bytes": wav, "path": f"{path.stem}.wav"},
        "text": text,
        "label": row.cells["label"],
        "segment_id": row.name,
        "speaker": row.cells.get("speaker") or None,
        "session": int(session) if numbered and session is not None else session,
        "duration": duration,
    }
