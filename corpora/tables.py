"""Reads the tables that people have, csv with any delimiter and jsonl, told by their content and not by their names."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_rsa_cfn import AudioError, open_file
from corpora.rows import Row, UnusableRow
from corpora.values import one_line, tidy
from foundation.errors import InputError
from foundation.files import MIB, read_regular


# The names that a column may have; where the first one is there, the others are columns like any other.
PATH = ("path", "audio", "file_name", "file")
TEXT = ("text", "transcription", "transcript", "sentence")
LABEL = ("label", "emotion")

WRONG_WIDTH = "row is not as wide as the header"
NO_OBJECT = "line is no JSON object"
STRAY_QUOTE = "stray quote, read as a letter"
SEVERAL_LINES = "cell of several lines"

DELIMITERS = (",", "\t", ";", "|")
BOMS_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# How spreadsheets of two kinds, PDFs and parquet files begin.
OTHER_KINDS = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"%PDF", b"PAR1")
MAX_TABLE_BYTES = 256 * MIB
NO_CHARACTER = re.compile(rb"[\0-\x08\x0e-\x1a]")
ENDS_AS_FILE = re.compile(r'\.\w{2,4}"?\s*$')


@dataclass
class Table:
    """Rows called `line 2`, with a cell for each column (as jsonl has it, else text), or a `problem`."""

    header: list[str]
    rows: list[Row]
    folder: Path  # in which its paths start
    files: list[str]  # that it was read from
    # Of one table among several: its folder in the corpus, with a slash, and the part of the dataset that it is.
    prefix: str = ""
    split: str | None = None

    def find(self, names: tuple[str, ...], argument: str) -> str | None:
        """The column that has one of `names`."""
        written = {name.lower(): name for name in self.header}
        found = [name for name in dict.fromkeys(names) if name in written]
        if len(found) > 1 and found[0] != names[0]:
            raise InputError(f"{argument} has the columns {' and '.join(found)}: call the one to use {names[0]}")
        return written[found[0]] if found else None


def read_cells(content: bytes, encoding: str) -> list[tuple[list[str], int]]:
    """Of each row of a csv the cells as they are written, and the number of its last line."""
    reader = csv.reader(io.StringIO(content.decode(encoding), newline=""))
    return [(cells, reader.line_num) for cells in reader]


def cell_text(value) -> str:
    """A cell of any kind as text, empty where there is none; raises [`UnusableRow`] for a list or an object."""
    if isinstance(value, (list, dict)):
        raise UnusableRow("cell is a list or an object, not text")
    if value is None or value != value:
        return ""
    return one_line(value if isinstance(value, str) else json.dumps(value))


def is_table(path: Path) -> bool:
    """Whether a file is text, or of another kind that holds tables, and not a recording."""
    try:
        with open_file(path)[0] as file:
            start = file.read(4096)
    except AudioError:
        return True
    return start[:4] in OTHER_KINDS or start[:2] in BOMS_UTF16 or not NO_CHARACTER.search(start)


def read_table(path: Path, argument: str, notes: dict[str, list[str]]) -> Table:
    """A table in utf-8, utf-16 or cp949 (as Korean spreadsheets write it), with all its lines but blank ones.
    `argument` is the name by which the user gave it. What is worth telling of it is added to `notes`."""
    # A mark of the encoding is also where files were put one after the other.
    text = _read_text(path, argument, notes).replace("\ufeff", "")
    lines = list(io.StringIO(text, newline=""))
    first = next((line.lstrip() for line in lines if line.strip()), "")
    if first.startswith("["):
        raise InputError(f"{argument} {path} is a JSON array: save it as csv, or as jsonl, an object in each line")
    header, rows = _read_objects(lines) if first.startswith("{") else _read_csv(lines, notes)
    if first.startswith("{") and not header:
        raise InputError(f"{argument} {path} is JSON, but not an object in each line: save it as csv or jsonl")
    names = [name.lower() for name in header]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{argument} {path} has several columns named {', '.join(twice)}: keep one of each")
    return Table(header, rows, path.parent, [str(path)])


def _read_text(path: Path, argument: str, notes: dict[str, list[str]]) -> str:
    try:
        content = read_regular(path, MAX_TABLE_BYTES)
    except OSError as error:
        raise InputError(f"{argument} {path} can't be read ({error.strerror}): give a csv") from None
    is_utf16 = content[:2] in BOMS_UTF16
    no_text = InputError(f"{argument} {path} is a spreadsheet or another file that is no text: save it as csv in utf-8")
    if content[:4] in OTHER_KINDS or (not is_utf16 and b"\0" in content):
        raise no_text
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        damaged = f"{argument} {path} is neither utf-8 nor cp949 ({error}): save it as utf-8"
        # In cp949 it would have failed at the first letters of East Asia.
        if is_utf16 or max(content[: error.start].decode("utf-8", "ignore"), default="") >= "\u0800":
            raise InputError(damaged) from None
        try:
            encoding = "cp949"
            text = content.decode(encoding)
        except UnicodeDecodeError:
            raise InputError(damaged) from None
    if "\0" in text:
        raise no_text
    if encoding != "utf-8-sig":
        notes[f"csv read as {encoding}"] = [path.name]
    return text


def _read_objects(lines: list[str]) -> tuple[list[str], list[Row]]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            is_object = isinstance(value, dict)
            cells = {tidy(name): cell for name, cell in value.items()} if is_object else {}
            rows.append(Row(f"line {number}", cells, None if is_object else NO_OBJECT))
    header = list(dict.fromkeys(name for row in rows for name in row.cells))
    for row in rows:
        row.cells = {name: row.cells.get(name) for name in header}
    return header, rows


def _read_csv(lines: list[str], notes: dict[str, list[str]]) -> tuple[list[str], list[Row]]:
    start = next((number for number, line in enumerate(lines) if line.strip(" \r\n")), len(lines))
    if start == len(lines):
        return [], []
    told = re.fullmatch('"?sep=(.)"?', lines[start].rstrip("\r\n"), re.IGNORECASE)  # for Excel
    start += told is not None
    delimiter = told[1] if told else max(DELIMITERS, key=lambda delimiter: lines[start].count(delimiter))
    cells, start = _read_record(lines, start, delimiter, lambda _: False, notes)
    names = [" ".join(tidy(cell).split()) for cell in cells]
    # Spreadsheets write the empty columns beside a table, too.
    needed = max((number for number, name in enumerate(names, start=1) if name), default=0)
    paths = [number for number, name in enumerate(names) if name.lower() in PATH]

    def is_row(line: str) -> bool:
        cells = line.split(delimiter)
        return needed <= len(cells) <= len(names) and any(ENDS_AS_FILE.search(cells[number]) for number in paths)

    records = []
    while start < len(lines):
        line = start
        cells, start = _read_record(lines, line, delimiter, is_row, notes)
        if lines[line].strip(" \r\n"):
            records.append((f"line {line + 1}", cells))
    for _, cells in records:
        while len(cells) > needed and not cells[-1].strip():
            cells.pop()
    width = max([needed, *(len(cells) for _, cells in records if len(cells) <= len(names))])
    header = [name or f"column {number}" for number, name in enumerate(names[:width], start=1)]
    rows = []
    for place, cells in records:
        problem = None if needed <= len(cells) <= width else WRONG_WIDTH
        rows.append(Row(place, dict(zip(header, [*cells, *[""] * (width - len(cells))])), problem))
    return header, rows


def _read_record(
    lines: list[str], start: int, delimiter: str, is_row: Callable[[str], bool], notes: dict[str, list[str]]
) -> tuple[list[str], int]:
    """The cells of the row that begins in line `start`, and the line after it. Quotes that aren't closed as they should
    be, or would put a whole row into a cell, are letters: otherwise they swallow the rows up to the next one."""
    line = lines[start].rstrip("\r\n")
    if '"' not in line:
        return line.split(delimiter), start + 1
    rest = (lines[number] for number in range(start, len(lines)))
    reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        cells = next(reader)
        end = start + reader.line_num
        if not any(map(is_row, lines[start + 1 : end])):
            if end > start + 1:
                notes.setdefault(SEVERAL_LINES, []).append(f"line {start + 1}")
            return cells, end
    except csv.Error:
        pass
    notes.setdefault(STRAY_QUOTE, []).append(f"line {start + 1}")
    return line.split(delimiter), start + 1
