"""Loads a prepared folder, or any other dataset, as its named parts."""

import json
import logging
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from textwrap import shorten

import pyarrow
from datasets import Dataset, Value, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from corpora.layouts import FILE_NAME, RECORDINGS, UNKNOWN_SPLIT, find_data_files, find_files, find_tables, part_of
from corpora.output import find_damage
from corpora.rows import UnusableRow
from corpora.tables import Table, cell_text
from corpora.values import PART_NAMES, one_line
from foundation.errors import InputError
from foundation.words import first_names, writable


logger = logging.getLogger(__name__)


def load_parts(name: str, config_name: str | None = None, audio_column: str = "audio") -> dict[str, Dataset]:
    """The parts of a dataset by their names; one that isn't divided is called `train`. It is a folder from
    prepare_dataset.py, a folder or an archive of [`corpora.layouts`], or any folder or Hub id that `datasets` loads;
    relative paths in the column of the recordings start in the folder of the files."""
    folder, notes = Path(name), {}
    try:
        if (folder / "annotation").is_dir():
            problem = f"{name} is a corpus, not a dataset; convert it first"
            raise InputError(f"{problem}: python prepare_dataset.py --corpus_dir {name} --output_dir data/kemdy20")
        inside = [str(path) for path in sorted(folder.glob("[!.]*")) if _is_saved(path)]
        if inside and not _is_saved(folder):
            raise InputError(f"{name} holds datasets and is none itself: give {' or '.join(inside)}")
        if _is_saved(folder):
            if damaged := find_damage(folder):
                raise InputError(f"dataset {name} is damaged ({damaged} is not as it was written); convert it again")
            loaded = load_from_disk(name)
        elif tables := find_tables(folder, "dataset", notes) if folder.exists() and config_name is None else []:
            loaded = _load_tables(tables, audio_column, notes)
        else:
            loaded = _load_files(name, config_name, audio_column)
    except InputError:
        raise
    except Exception as error:  # whatever a dataset's files and loading code make `datasets` raise
        is_wrapped = type(error) is DatasetGenerationError and error.__cause__ is not None
        cause = error.__cause__ if is_wrapped else error
        shown = shorten(name, 300, placeholder=" ...")
        raise InputError(
            f"dataset {shown} can't be loaded; give a folder from prepare_dataset.py or a dataset that `datasets` "
            f"loads ({type(cause).__name__}: {shorten(str(cause), 300, placeholder=' ...')})"
        ) from error
    for kind, names in notes.items():
        logger.warning(f"{writable(name)}: {kind}: {first_names(names)}")
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _is_saved(folder: Path) -> bool:
    # Path's own `exists` is an error for a name that is too long.
    return any(os.path.exists(folder / name) for name in ("dataset_dict.json", "state.json"))


def _load_tables(tables: list[Table], audio_column: str, notes: dict[str, list[str]]) -> dict[str, Dataset]:
    """What [`find_tables`] found, with paths that begin in the folder of their table as `audio_column`."""
    parts: dict[str, list[dict]] = {part: [] for part in PART_NAMES.values()}
    for table in tables:
        path_column = table.find((audio_column, *FILE_NAME), "dataset")
        split_column = table.find(("split",), "dataset")
        for row in table.rows:
            cells, problem = dict(row.cells), row.problem
            try:
                path = cell_text(cells.pop(path_column, None)).strip().replace("\\", "/")
                split = table.split or cell_text(cells.get(split_column, "train")).strip().lower()
            except UnusableRow as reason:
                problem = str(reason)
            if problem is not None or split not in PART_NAMES:
                notes.setdefault(f"row left out, {problem or UNKNOWN_SPLIT}", []).append(f"{table.prefix}{row.name}")
                continue
            if path_column is not None:
                cells = {"segment_id": f"{table.prefix}{path}" or row.name} | cells
                cells |= _from_folder({audio_column: path or None}, table.folder, audio_column)
            parts[PART_NAMES[split]].append(cells)
    rows = [row for part in parts.values() for row in part]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _as_column([row.get(name) for row in rows]) for name in names}
    whole, start, loaded = Dataset.from_dict(columns), 0, {}
    for part, rows in parts.items():
        if rows:
            loaded[part] = whole.select(range(start, start + len(rows)))
        start += len(rows)
    return loaded


def _as_column(cells: list) -> pyarrow.Array:
    """Cells as they are where all are of one kind, text of numbers as these if nothing is lost; empty ones are none."""
    cells = [one_line(cell) or None if isinstance(cell, str) else cell for cell in cells]
    written = {cell for cell in cells if isinstance(cell, str)}
    for number in (int, float) if written else ():
        with suppress(ValueError):
            if all(str(number(cell)) == cell for cell in written):
                cells = [number(cell) if isinstance(cell, str) else cell for cell in cells]
                break
    try:
        return pyarrow.array(cells)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        return pyarrow.array([cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells])


def _load_files(name: str, config_name: str | None, audio_column: str) -> dict[str, Dataset]:
    """What `datasets` loads of a folder or from the Hub."""
    options, folder = {}, Path(name)
    files = find_data_files(folder)
    if files and any(path.suffix.lower() in RECORDINGS for path in find_files(folder)):
        # Left to itself, `datasets` takes a folder with more recordings than tables for one of recordings.
        options["data_files"] = {}
        for file in files:
            options["data_files"].setdefault(part_of(file) or "train", []).append(file.relative_to(name).as_posix())
    loaded = load_dataset(name, config_name, **options)
    parts = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    for part, rows in parts.items():
        if files and isinstance((rows.features or {}).get(audio_column), Value):
            whole = partial(_from_folder, folder=files[0].parent, column=audio_column)
            parts[part] = rows.map(whole, features=rows.features)
    return parts


def _from_folder(row: dict, folder: Path, column: str) -> dict:
    """The row with a path in `column` that is whole, where it was relative to the folder."""
    path = row[column]
    return {column: path if not path or "://" in path else str(folder / path)}
