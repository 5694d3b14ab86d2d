"""The folder a dataset is written to: it appears, or replaces an older one, only when it is complete.
Until then it is a hidden sibling; a finished one says what it was made from, so that a rerun can tell a change."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash
from filelock import FileLock, Timeout

import audio_rsa_cfn
from corpora.conversion import REPORT_FILE, SKIPPED_FILE
from corpora.rows import Corpus
from foundation.errors import InputError
from foundation.files import check_output_dir as check_folder
from foundation.files import write_json, write_whole


SOURCE_FILE = "source.json"


def describe_source(name: str, corpus_dir: Path | None, corpus: Corpus | None) -> dict:
    """
    What a dataset is made from: the corpus, its folder, and a digest that changes with any of its files (told by size
    and time of change, as their content is not read) and with the code that reads them.
    """
    digest = xxhash.xxh3_128()
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(audio_rsa_cfn.__file__)]:
        digest.update(path.read_bytes())
    if corpus is not None:
        digest.update(json.dumps([corpus.label_names, corpus.columns, corpus.notes]).encode())
        for file in corpus.files:
            digest.update(_identity(file).encode("utf-8", "backslashreplace"))
    return {
        "corpus": name,
        "corpus_dir": None if corpus_dir is None else str(corpus_dir.resolve()),
        "digest": digest.hexdigest(),
    }


def _identity(file: str) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return f"{file} missing\n"
    return f"{file} {status.st_size} {status.st_mtime_ns}\n"


def read_source(output_dir: Path) -> dict | None:
    """What the dataset in a folder was made from; None where there is no dataset of ours."""
    try:
        if not (output_dir / REPORT_FILE).is_file():
            return None
        return json.loads((output_dir / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def check_output_dir(output_dir: str | Path, corpus_dir: str | Path | None, source: dict) -> Path:
    """The absolute path of a folder that may be created, or that holds an older dataset from the same corpus."""
    check_folder(output_dir, f"--output_dir {output_dir}")
    output_dir = Path(output_dir).expanduser().resolve()
    another = "give --output_dir a new folder"
    if corpus_dir is not None:
        corpus_dir = Path(corpus_dir).expanduser().resolve()
        if output_dir.is_relative_to(corpus_dir):
            raise InputError(f"{output_dir} is or lies in the corpus folder {corpus_dir}: {another} outside of it")
        if corpus_dir.is_relative_to(output_dir):
            raise InputError(f"{output_dir} holds the corpus folder {corpus_dir}: {another} elsewhere")
    if output_dir.exists() and any(output_dir.iterdir()):
        older = read_source(output_dir)
        if older is None:
            raise InputError(f"{output_dir} is not empty: {another}, or remove this one first")
        if (older["corpus"], older["corpus_dir"]) != (source["corpus"], source["corpus_dir"]):
            made_from = f"{older['corpus']} {older['corpus_dir'] or ''}".strip()
            raise InputError(f"{output_dir} holds a dataset made from {made_from}: {another}, or remove this one first")
    return output_dir


@contextmanager
def incomplete_folder(output_dir: Path) -> Iterator[Path]:
    """A hidden folder beside `output_dir`, on the same file system, that is gone when the block is left.

    A lock that dies with its process tells the remains of a killed run, which are removed, from a run under way.
    """
    prefix = f".{output_dir.name}.incomplete-"
    folder = output_dir.parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        for remains in [path for path in output_dir.parent.iterdir() if path.name.startswith(prefix)]:
            with _lock(remains):
                _rescue(remains, output_dir)
            shutil.rmtree(remains)
        folder.mkdir()
    except Timeout:
        raise InputError(f"{output_dir} is being written by another run: wait for it or give another folder") from None
    except OSError as error:
        raise InputError(f"{output_dir} can't be written ({error.strerror}): give --output_dir a new folder") from None
    try:
        with _lock(folder):
            try:
                yield folder
            finally:
                _rescue(folder, output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> FileLock:
    # Removed after the lock is given back: Windows removes no file that is open.
    return FileLock(folder / "lock", timeout=0)


def _rescue(folder: Path, output_dir: Path) -> None:
    """Gives an older dataset its name back, where a run ended after taking it and before the new one had it."""
    if (folder / "older").exists() and not output_dir.exists():
        os.rename(folder / "older", output_dir)


def publish(folder: Path, report: dict, skipped: str, source: dict, output_dir: Path) -> None:
    """Adds the report to the finished dataset in `folder`, an [`incomplete_folder`]'s, and gives it its name."""
    dataset = folder / "dataset"
    write_json(dataset / REPORT_FILE, report)
    write_whole(dataset / SKIPPED_FILE, skipped)
    write_json(dataset / SOURCE_FILE, source)
    try:
        if read_source(output_dir) is not None:
            # Runs that still read the older files keep them open; the names are gone in between for a moment only.
            os.rename(output_dir, folder / "older")
        os.rename(dataset, output_dir)
    except OSError as error:
        raise InputError(f"{output_dir} can't be made ({error.strerror}): give --output_dir a new folder") from None


def is_complete(output_dir: Path) -> bool:
    """Whether the dataset still has all files that it lists."""
    try:
        splits = json.loads((output_dir / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        for split in splits:
            state = json.loads((output_dir / split / "state.json").read_text(encoding="utf-8"))
            if not all((output_dir / split / file["filename"]).is_file() for file in state["_data_files"]):
                return False
    except (OSError, ValueError, KeyError):
        return False
    return True
