"""Reads csv files."""

import csv
import io
from pathlib import Path

from foundation.errors import InputError


WRONG_WIDTH = "row is not as wide as the header"


def read_cells(content: bytes, encoding: str, delimiter: str = ",") -> list[tuple[list[str], int]]:
    """Of each row of a csv the cells as they are written, and the number of its last line."""
    reader = csv.reader(io.StringIO(content.decode(encoding), newline=""), delimiter=delimiter)
    return [(cells, reader.line_num) for cells in reader]


def read_csv(path: Path, argument: str, notes: dict[str, list[str]]) -> tuple[list[str], list]:
    """The header of a csv, and of each row below it the cells without blanks around them and the number of its line.

    It is in utf-8 (or cp949, as Korean spreadsheets write it), or a .tsv; `argument` is the name by which the user gave
    it. What is worth telling of it is added to `notes`.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        content = path.read_bytes()
        try:
            rows = read_cells(content, "utf-8-sig", delimiter)
        except UnicodeDecodeError:
            rows = read_cells(content, "cp949", delimiter)
            notes["csv read as cp949"] = [path.name]
    except OSError as error:
        raise InputError(f"{argument} {path} can't be read ({error.strerror}): give a csv") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{argument} {path} is neither utf-8 nor cp949 ({error}): save it as utf-8") from None
    except csv.Error as error:
        raise InputError(f"{argument} {path} is not a csv ({error}): save it as csv with a header") from None
    header, *lines = [([cell.strip() for cell in cells], line) for cells, line in rows] or [([], 0)]
    names = [name.lower() for name in header[0]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{argument} {path} has several columns named {', '.join(twice)}: keep one of each")
    return header[0], lines
