"""Recordings as people lay them out, as tables: `audiofolder` (a metadata.csv or .jsonl beside them, or a folder for
each class), WebDataset (a .txt, .cls or .json for each), and archives of these."""

import json
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from textwrap import shorten

import xxhash

from corpora.rows import Row
from corpora.tables import PATH, Table, read_table
from corpora.transcripts import MAX_TRANSCRIPT_BYTES, read_transcripts
from corpora.values import PART_NAMES
from foundation.errors import InputError
from foundation.files import MIB, read_regular
from foundation.words import writable


UNKNOWN_SPLIT = f"split is none of {', '.join(PART_NAMES)}"
# The last five can't be decoded; they are listed so that each gets a row with an error.
RECORDINGS = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64", ".caf")
RECORDINGS += (".m4a", ".mp4", ".aac", ".wma", ".webm")
FILE_NAME = ("file_name", *PATH)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.tsv")
TABLES = (".csv", ".jsonl", ".tsv")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# No recording shrinks so far; an archive may lie in another, but not without end.
MOST_UNPACKED, MOST_NESTED = 100, 3


def find_tables(source: Path, argument: str, notes: dict[str, list[str]], nested: int = 0) -> list[Table]:
    """The tables that describe a folder or an archive of recordings, or that are made of what lies in it; none where it
    is of another kind, such as parquet. Archives are unpacked once, into the cache of `datasets`; `nested` tells how
    many the source lies in. A folder that can't be read is an OSError."""
    if source.is_file() and not source.name.lower().endswith(ARCHIVES):
        return [read_table(source, argument, notes)]
    if source.is_file():
        if nested == MOST_NESTED:
            raise InputError(f"{argument} holds archives in each other, {nested} deep: unpack it, and give the folder")
        source = _unpack(source, argument)
    root, inside = source, _visible(source)
    while len(inside) == 1 and inside[0].is_dir() and inside[0].name.lower() not in PART_NAMES:
        source, inside = inside[0], _visible(inside[0])
    tables, archives = [], []
    for folder in [source, *(path for path in inside if path.is_dir() and path.name.lower() in PART_NAMES)]:
        prefix, split = ("", None) if folder == source else (f"{folder.name}/", PART_NAMES[folder.name.lower()])
        files = [path for path in _visible(folder) if path.is_file()]
        found = [path for path in files if path.suffix.lower() in TABLES]
        for file in [path for path in found if path.name in METADATA][:1] or found:
            table = read_table(file, argument, notes)
            tables.append(replace(table, prefix=prefix, split=split or part_of(file)))
        archives += [(path, prefix, split) for path in files if path.name.lower().endswith(ARCHIVES)]
    if tables or find_data_files(source):
        return tables
    for archive, prefix, split in archives:
        for table in find_tables(archive, argument, notes, nested + 1):
            inside = f"{prefix}{archive.name.partition('.')[0]}/{table.prefix}"
            tables.append(replace(table, prefix=inside, split=table.split or split or part_of(archive)))
    return tables or _find_recordings(root)


def find_data_files(folder: Path) -> list[Path]:
    """What only `datasets` reads in a folder; a .json may also describe the recording beside it."""
    files = [path for path in find_files(folder) if path.suffix.lower() in (".parquet", ".arrow", ".json")]
    beside = [any(path.with_suffix(suffix).exists() for suffix in RECORDINGS) for path in files]
    return [path for path, is_beside in zip(files, beside) if path.suffix.lower() != ".json" or not is_beside]


def find_files(folder: Path) -> list[Path]:
    """All files below a folder, in order; one that can't be looked into is an OSError, and not left out."""

    def refuse(error: OSError):
        raise error

    return sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names)


def part_of(file: Path) -> str | None:
    """The part of a dataset that a file is by its name, such as train-00000.tar."""
    return next((PART_NAMES[word] for word in re.split("[^a-z]+", file.name.lower()) if word in PART_NAMES), None)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.name != "__MACOSX")


def _find_recordings(folder: Path) -> list[Table]:
    """A table of all recordings below a folder; the folder that holds one is its class, unless a file beside it is."""
    recordings = [path for path in find_files(folder) if path.suffix.lower() in RECORDINGS and path.name[0] != "."]
    texts, problems = read_transcripts(recordings)
    rows, files = [], [str(path.with_suffix(".txt")) for path in texts]
    for path in recordings:
        inside = path.relative_to(folder)
        parts = [name for name in inside.parts[:-1] if name.lower() in PART_NAMES]
        classes = [name for name in inside.parts[:-1] if name.lower() not in PART_NAMES]
        cells = {"label": classes[-1]} if classes else {}
        cells |= {"split": parts[0]} if parts else {}
        cells |= {"text": texts[path]} if path in texts else {}
        try:
            for file in (path.with_suffix(".cls"), path.with_suffix(".json")):
                if file.exists():
                    files.append(str(file))
                    content = read_regular(file, MAX_TRANSCRIPT_BYTES).decode("utf-8")
                    cells |= {"label": content} if file.suffix == ".cls" else dict(json.loads(content))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            problems[path] = f"file beside the recording can't be read ({type(error).__name__})"
        rows.append(Row(writable(inside.as_posix()), cells | {"file_name": inside.as_posix()}, problems.get(path)))
    header = list(dict.fromkeys(name for row in rows for name in row.cells))
    return [Table(header, rows, folder, files)] if rows else []


def _unpack(archive: Path, argument: str) -> Path:
    from datasets import config  # late: it takes a second to import

    status = archive.stat()
    key = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape")
    folder = Path(config.HF_DATASETS_CACHE) / "unpacked" / xxhash.xxh3_64_hexdigest(key)
    partly = folder.with_name(f"{folder.name}.{os.getpid()}")
    if folder.is_dir():
        return folder
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for member in _bounded(opened.infolist(), archive):
                    if not member.flag_bits & 0x800:  # names in any encoding
                        name = member.filename.encode("cp437").decode("utf-8", "surrogateescape")
                        member.filename = writable(name)
                    opened.extract(member, partly)
        else:
            with tarfile.open(archive) as opened:
                for member in _bounded(opened, archive):
                    opened.extract(member, partly, filter="data")
        partly.mkdir(exist_ok=True, parents=True)  # where it is empty
        os.replace(partly, folder)
    except Exception as error:  # whatever a damaged archive makes them raise
        reason = shorten(str(error), 100, placeholder=" ...")
        raise InputError(f"{argument} {archive} can't be unpacked ({reason}): unpack it, and give the folder") from None
    finally:
        shutil.rmtree(partly, ignore_errors=True)
    return folder


def _bounded(members: Iterable[zipfile.ZipInfo] | Iterable[tarfile.TarInfo], archive: Path):
    """Members whose sizes add up to what the archive may hold; it is an OSError where they don't."""
    left = MOST_UNPACKED * (archive.stat().st_size + MIB)
    for member in members:
        left -= member.file_size if isinstance(member, zipfile.ZipInfo) else member.size
        if left < 0:
            raise OSError(f"it holds more than {MOST_UNPACKED} times its size")
        yield member
