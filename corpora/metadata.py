"""Reads a folder of one's own: recordings of any kind, and a table that names them with their label, and maybe text.
Every row of it comes back, either with its columns or with the reason why it can't be used."""

import os
from functools import partial
from itertools import pairwise
from pathlib import Path

from corpora import EMOTIONS
from corpora.layouts import FILE_NAME, UNKNOWN_SPLIT, find_tables
from corpora.recordings import read_recording
from corpora.rows import Corpus, Row, Shard, UnusableRow
from corpora.tables import LABEL, PATH, TEXT, Table, cell_text, read_table
from corpora.transcripts import MAX_TRANSCRIPT_BYTES, TRANSCRIPT_TOO_LARGE
from corpora.values import PART_NAMES, is_missing, tidy
from foundation.errors import InputError
from foundation.words import first_names, writable


OF_AN_UTTERANCE = ("session", "speaker", "dialogue", "gender")
OPTIONAL = (*OF_AN_UTTERANCE, "split")
ROWS_PER_SHARD = 256

UNUSED = "columns of the csv not used"


def read_corpus(metadata: str | Path | None, folder: str | Path | None = None) -> Corpus:
    """Reads the table, without opening the recordings; its paths start in `folder`, or beside it when that is left out.
    Without a table, `folder` is laid out in a way that [`corpora.layouts`] knows."""
    notes: dict[str, list[str]] = {}
    if metadata is None:
        source, given, names = Path(folder), f"--corpus_dir {folder}", FILE_NAME
        tables = find_tables(source, "--corpus_dir", notes) if source.exists() else []
        if not tables:
            raise InputError(
                f"{given} has no metadata.csv and no recordings in folders of their classes, nor an archive of these: "
                "give --metadata, a csv with the columns path, text and label"
            )
    else:
        source, given, names = Path(metadata), f"--metadata {metadata}", PATH
        folder = source.parent if folder is None else Path(folder)
        if not folder.is_dir():
            raise InputError(f"--corpus_dir {folder} is not a folder: give the one where the paths of {source} start")
        tables = [read_table(source, "--metadata", notes)]
        tables[0].folder = folder
    rows, has = [], set()
    for table in tables:
        columns = _find_columns(table, names, given, notes)
        has |= columns.keys()
        rows += [_read_row(row, columns, table) for row in table.rows]
    seen = set()
    for row in [row for row in rows if row.problem is None]:
        row.problem = "duplicate path" if row.name in seen else None
        seen.add(row.name)
    usable = [row for row in rows if row.problem is None]
    labels = sorted({row.cells["label"] for row in usable}, key=lambda label: (label.casefold(), label))
    if alike := [pair for pair in pairwise(labels) if pair[0].casefold() == pair[1].casefold()]:
        notes["classes that differ only in case"] = list(map(", ".join, alike))
    sessions = {row.cells["session"] for row in usable if row.cells["session"]}
    # As numbers they are in their order; "01" and "1" would become the same, so they stay names.
    numbered = bool(sessions) and all(
        name.isdecimal() and len(name) < 10 and str(int(name)) == name for name in sessions
    )
    columns = ["audio", "text", "label", "segment_id", *OF_AN_UTTERANCE]
    shards = []
    for split in dict.fromkeys(PART_NAMES.values()):
        mine = [row for row in rows if PART_NAMES.get(row.cells.get("split"), "train") == split]
        for index, start in enumerate(range(0, len(mine), ROWS_PER_SHARD)):
            chunk = mine[start : start + ROWS_PER_SHARD]
            shards.append(Shard(f"{split}-{index:05d}", chunk, partial(_read, numbered=numbered), split))
    return Corpus(
        # In the model's own order where they are its emotions, so that a model of KEMDy can score them.
        label_names=EMOTIONS if set(labels) <= set(EMOTIONS) else tuple(sorted(labels)),
        columns=(*(name for name in columns if name in has | {"audio", "segment_id"}), "duration"),
        shards=shards,
        files=[*(file for table in tables for file in table.files), *(row.cells["path"] for row in usable)],
        notes=notes,
        has_numbered_sessions=numbered,
    )


def _find_columns(table: Table, path: tuple[str, ...], given: str, notes: dict[str, list[str]]) -> dict[str, str]:
    """What the table calls the columns that it has."""
    roles = {"path": path, "text": TEXT, "label": LABEL} | {name: (name,) for name in OPTIONAL}
    columns = {role: table.find(names, given) for role, names in roles.items()}
    columns = {role: name for role, name in columns.items() if name is not None}
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise InputError(
            f"{given} has no column named {' and none named '.join(missing)}, only "
            f"{first_names(table.header) or 'none'}: give a header with path, text, label and optionally "
            f"{', '.join(OPTIONAL)}"
        )
    told = notes.setdefault(UNUSED, [])
    told += [name for name in table.header if name not in (*columns.values(), *told)]
    if not told:
        del notes[UNUSED]
    return columns


def _read_row(row: Row, columns: dict[str, str], table: Table) -> Row:
    """A row before its recording is read; its name is the path, or the line where there is none."""
    name = f"{table.prefix}{row.name}"
    try:
        if row.problem is not None:
            raise UnusableRow(row.problem)
        written = {role: cell_text(row.cells.get(column)).strip() for role, column in columns.items()}
        if not (any(written.values()) or any(str(cell or "").strip() for cell in row.cells.values())):
            raise UnusableRow("blank row")
    except UnusableRow as reason:
        return Row(name, {}, str(reason))
    if not written["path"]:
        return Row(name, {}, "path missing")
    cells = {role: tidy(cell) for role, cell in written.items()}
    cells |= {role: "" for role in OF_AN_UTTERANCE if role not in cells or is_missing(cells[role])}
    # A csv that came with somebody's corpus may not pull in what lies elsewhere on this machine. Links are followed:
    # only the owner of the folder can have put them there.
    path = os.path.normpath(str(row.cells[columns["path"]]).strip().replace("\\", "/"))
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        return Row(written["path"], {}, "path leaves the folder of the recordings")
    cells |= {"path": os.path.join(table.folder, path), "split": table.split or cells.get("split", "train").lower()}
    row = Row(writable(f"{table.prefix}{path}"), cells)
    if is_missing(cells["label"]):
        row.problem = "label missing"
    elif cells["split"] not in PART_NAMES:
        row.problem = UNKNOWN_SPLIT
    elif cells["label"] != written["label"]:
        row.repairs.append("label brought into one form of Unicode")
    return row


def _read(row: Row, repairs: list[str], numbered: bool) -> dict:
    path = Path(row.cells["path"])
    wav, duration = read_recording(path, repairs)
    text = " ".join(row.cells.get("text", "").split())
    if len(text.encode()) > MAX_TRANSCRIPT_BYTES:
        raise UnusableRow(TRANSCRIPT_TOO_LARGE)
    if "text" in row.cells and not text:
        repairs.append("transcript is blank, text left empty")
    session = row.cells["session"] or None
    return {
        "audio": {"bytes": wav, "path": f"{writable(path.stem)}.wav"},
        "text": text,
        "label": row.cells["label"],
        "segment_id": row.name,
        **{role: row.cells[role] or None for role in OF_AN_UTTERANCE},
        "session": int(session) if numbered and session is not None else session,
        "duration": duration,
    }
