"""The folder a dataset is written to: it appears, or replaces an older one, only when it is complete.
Until then it is a hidden sibling; a finished one says what it was made from, so that a rerun can tell a change."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

import audio_rsa_cfn
from corpora.conversion import REPORT_FILE, SKIPPED_FILE
from corpora.rows import Corpus
from foundation.errors import InputError
from foundation.files import LOCK, holds_files, owned, read_json, stamp, to_disk, write_json, write_whole
from foundation.files import check_output_dir as check_folder
from foundation.files import digest as content_digest


SOURCE_FILE = "source.json"
OLDER = "older"


def describe_source(name: str, corpus_dir: Path | None, corpus: Corpus | None, asr: list | None = None) -> dict:
    """What a dataset is made from: the corpus, its folder, and a digest that changes with any of its files (told by
    size and time of change, as their content is not read), with the code that reads them, and with the recogniser, if
    any."""
    digest = xxhash.xxh3_128()
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(audio_rsa_cfn.__file__)]:
        digest.update(path.read_bytes())
    if corpus is not None:
        digest.update(json.dumps([corpus.label_names, corpus.columns, corpus.notes]).encode())
        for file in corpus.files:
            digest.update(f"{file} {stamp(file)}\n".encode("utf-8", "backslashreplace"))
    if asr is not None:
        digest.update(json.dumps(asr).encode())
    return {
        "corpus": name,
        "corpus_dir": None if corpus_dir is None else str(corpus_dir.resolve()),
        "digest": digest.hexdigest(),
    }


def read_source(folder: Path) -> dict | None:
    """What the dataset in a folder was made from; None where there is no dataset of ours."""
    try:
        source = read_json(folder / SOURCE_FILE)
        # Where a text is due, as in the words of a refusal, any other value would do harm.
        return {"corpus": str(source["corpus"]), "corpus_dir": source["corpus_dir"], "digest": source["digest"]}
    except (InputError, LookupError):
        return None


def check_output_dir(output_dir: str | Path, corpus_dir: str | Path | None, source: dict) -> Path:
    """The absolute path of a folder that may be created, or that holds an older dataset from the same corpus."""
    check_folder(output_dir, f"--output_dir {output_dir}")
    output_dir = Path(output_dir).expanduser().resolve()
    another = "give --output_dir a new folder"
    if os.path.ismount(output_dir):
        raise InputError(f"{output_dir} is a mount point, which no new folder can take the place of: {another} in it")
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
    """A folder in a hidden one beside `output_dir`, on the same file system, which is gone when the block is left. It
    is what a run owns as long as it may write into `output_dir`, and holds all that a killed run leaves, which is
    removed."""
    hidden = output_dir.with_name(f".{output_dir.name}.incomplete")
    with owned(hidden, f"--output_dir {output_dir}"):
        try:
            _clear(hidden, output_dir)
            yield Path(tempfile.mkdtemp(dir=hidden))
        finally:
            _clear(hidden, output_dir)
            # Its lock goes with it while it is held: nobody else has one that is no longer there.
            shutil.rmtree(hidden, ignore_errors=True)


def _clear(hidden: Path, output_dir: Path) -> None:
    """Remove what a run has left, but an older dataset that it took the name of, and gave to no other."""
    if (hidden / OLDER).exists() and not holds_files(output_dir):
        os.rename(hidden / OLDER, output_dir)
    for path in hidden.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)


def publish(folder: Path, report: dict, skipped: str, source: dict, output_dir: Path) -> None:
    """Adds the report to the finished dataset in `folder`, an [`incomplete_folder`]'s, and gives it its name."""
    dataset = folder / "dataset"
    write_json(dataset / REPORT_FILE, report)
    write_whole(dataset / SKIPPED_FILE, skipped)
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    marks = {path.relative_to(dataset).as_posix(): _mark(path) for path in files}
    write_json(dataset / SOURCE_FILE, source | {"files": marks})
    try:
        if read_source(output_dir) is not None:
            # Runs that still read the older files keep them open; the names are gone in between for a moment only.
            os.rename(output_dir, folder.with_name(OLDER))
        os.rename(dataset, output_dir)
        to_disk(output_dir.parent)
    except OSError as error:
        raise InputError(f"{output_dir} can't be made ({error.strerror}): give --output_dir a new folder") from None
    _clear(folder.parent, output_dir)


def _mark(file: Path) -> int | str:
    """What a change of a file shows by: of Arrow files the size, as they may be of any."""
    return file.stat().st_size if file.suffix == ".arrow" else content_digest(file)


def find_damage(folder: Path) -> str | None:
    """The first file of a dataset of ours that is missing, or no longer as it was written."""
    if not (folder / SOURCE_FILE).exists():
        return None  # of another program
    try:
        files = read_json(folder / SOURCE_FILE).get("files", {}).items()  # older versions have listed none
    except (InputError, AttributeError):
        return SOURCE_FILE
    for name, mark in files:
        try:
            if _mark(folder / name) != mark:
                return name
        except OSError:
            return name
    return None
