"""Writes the utterances of a corpus into a `DatasetDict` folder, one Arrow file per session, a few rows at a time.
The folder appears under its name only when it is complete; until then it is a hidden sibling."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value
from tqdm import tqdm

from configuration_rsa_cfn import EMOTIONS
from corpora import CorpusError, holds_code
from corpora.kemdy20 import Session, read_session
from corpora.recordings import SAMPLING_RATE
from corpora.report import REPORT_FILE, SessionReport


# `datasets` writes 1000 rows at once, which would hold about 190 MB of recordings in every process.
ROWS_PER_BATCH = 16

FEATURES = Features(
    {
        # Stored undecoded: decoding belongs to the processor, and `datasets` would want torchcodec for it.
        "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
        "text": Value("string"),
        "raw_text": Value("string"),
        "label": ClassLabel(names=list(EMOTIONS)),
        "emotions": List(ClassLabel(names=list(EMOTIONS))),
        "votes": List(Value("int32"), length=len(EMOTIONS)),
        "valence": Value("float64"),
        "arousal": Value("float64"),
        "segment_id": Value("string"),
        "session": Value("int32"),
        "speaker": Value("string"),
        "gender": Value("string"),
        "start": Value("float64"),
        "end": Value("float64"),
        "duration": Value("float32"),
    }
)


def check_output_dir(output_dir: str | Path, corpus_dir: str | Path | None) -> Path:
    """The absolute path of a folder that may be created.

    Raises:
        CorpusError: the folder has content already, or lies where it would mix with the corpus or the repository.
    """
    output_dir = Path(output_dir).expanduser().resolve()
    another = "give --output_dir a new folder"
    if holds_code(output_dir):
        raise CorpusError(f"{output_dir} is or holds the code of this repository: {another}")
    if corpus_dir is not None:
        corpus_dir = Path(corpus_dir).expanduser().resolve()
        if output_dir.is_relative_to(corpus_dir):
            raise CorpusError(f"{output_dir} is or lies in the corpus folder {corpus_dir}: {another} outside of it")
        if corpus_dir.is_relative_to(output_dir):
            raise CorpusError(f"{output_dir} holds the corpus folder {corpus_dir}: {another} elsewhere")
    if output_dir.exists() and not output_dir.is_dir():
        raise CorpusError(f"{output_dir} is a file: {another}")
    if output_dir.exists() and any(output_dir.iterdir()):
        raise CorpusError(f"{output_dir} is not empty: {another}, or remove this one first")
    return output_dir


@contextmanager
def incomplete_folder(output_dir: Path) -> Iterator[Path]:
    """A hidden folder beside `output_dir`, on the same file system, that is gone when the block is left.

    A lock that dies with its process tells the remains of a killed run, which are removed, from a run under way.

    Raises:
        CorpusError: another run is writing the same folder, or the parent folder can't be written.
    """
    prefix = f".{output_dir.name}.incomplete-"
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        for remains in [path for path in output_dir.parent.iterdir() if path.name.startswith(prefix)]:
            with _locked(remains):
                shutil.rmtree(remains)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=output_dir.parent))
        folder.chmod(0o777 & ~_umask())
    except BlockingIOError:
        raise CorpusError(f"{output_dir} is being written by another run: wait for it or give another folder") from None
    except OSError as error:
        raise CorpusError(f"{output_dir} can't be written ({error.strerror}): give --output_dir a new folder") from None
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_sessions(sessions: list[Session], folder: Path, num_proc: int) -> list[SessionReport]:
    """Writes one Arrow file per session into `folder`, with a progress bar.

    Args:
        num_proc: number of processes; with 1 everything happens in this one.

    Returns:
        One report per session, in the order of `sessions`, whatever the order in which they were finished.
    """
    folder.mkdir()
    files = [folder / f"session{session.number:02d}.arrow" for session in sessions]
    jobs = list(zip(sessions, files, strict=True))
    bar = {"total": sum(len(session.annotations) for session in sessions), "desc": "Converting", "unit": " rows"}
    if num_proc == 1:
        with tqdm(**bar) as progress:
            return [write_session(*job, progress) for job in jobs]
    # Forked, as `datasets` does: a fresh interpreter spends more seconds importing than it has work for.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_prepare_worker) as pool:
        # Submitted before there is a progress bar, whose thread should not be there when the workers are forked.
        futures = {pool.submit(write_session, *job): job[0] for job in jobs}
        try:
            with tqdm(**bar) as progress:
                for future in as_completed(futures):
                    future.result()
                    progress.update(len(futures[future].annotations))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _prepare_worker() -> None:
    """Leaves Ctrl-C to the main process, and ends with it: workers of a killed run would wait for jobs for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def write_session(session: Session, file: Path, progress: tqdm | None = None) -> SessionReport:
    """Writes the usable utterances of a session into `file`, unless there are none, and reports every row."""
    report = SessionReport(session.number)
    digest = hashlib.blake2b(digest_size=8)
    schema = FEATURES.arrow_schema
    batch, writer = [], None
    for utterance in read_session(session):
        report.add(utterance)
        if progress is not None:
            progress.update()
        if utterance.columns is None:
            continue
        batch.append(_encode_labels(utterance.columns))
        digest.update(json.dumps(utterance.columns | {"audio": None}, sort_keys=True).encode())
        digest.update(utterance.columns["audio"]["bytes"])
        if writer is None:
            writer = pyarrow.ipc.new_stream(str(file), schema)
        if len(batch) == ROWS_PER_BATCH:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
            batch = []
    if batch:
        writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
    if writer is not None:
        writer.close()
    report.digest = digest.hexdigest()
    return report


def _encode_labels(columns: dict) -> dict:
    label = columns["label"]
    return columns | {
        "label": None if label is None else EMOTIONS.index(label),
        "emotions": [EMOTIONS.index(emotion) for emotion in columns["emotions"]],
    }


def assemble_dataset(shards: Path, reports: list[SessionReport], folder: Path) -> str:
    """Makes the Arrow files in `shards` the `train` split of a `DatasetDict` in `folder`, without copying them.

    `save_to_disk` would write every recording a second time. So an empty dataset is saved for the metadata, and the
    files are then moved in and listed, which is all that distinguishes it from a full one.

    Returns:
        The fingerprint of the dataset, which depends on its content only.
    """
    empty = Dataset(datasets.table.InMemoryTable(FEATURES.arrow_schema.empty_table()), split=datasets.Split.TRAIN)
    with _without_progress_bars():
        DatasetDict({"train": empty}).save_to_disk(folder)
    written = [report for report in reports if report.rows_written]
    names = [f"data-{index:05d}-of-{len(written):05d}.arrow" for index in range(len(written))]
    for report, name in zip(written, names, strict=True):
        os.rename(shards / f"session{report.session:02d}.arrow", folder / "train" / name)
    # `datasets` looks cached results up by fingerprint, so another content must not have the one of the empty dataset.
    fingerprint = hashlib.blake2b("".join(report.digest for report in written).encode(), digest_size=8).hexdigest()
    state_file = folder / "train" / datasets.config.DATASET_STATE_JSON_FILENAME
    state = json.loads(state_file.read_text(encoding="utf-8"))
    state |= {"_data_files": [{"filename": name} for name in names], "_fingerprint": fingerprint}
    state_file.write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
    return fingerprint


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()


def publish(folder: Path, report: dict, output_dir: Path) -> None:
    """Adds the report to the finished dataset and gives it its name, in one step that can't be seen half done.

    Raises:
        CorpusError: something was put into `output_dir` in the meantime.
    """
    report_text = json.dumps(report, ensure_ascii=False, indent=2)
    (folder / REPORT_FILE).write_text(report_text + "\n", encoding="utf-8")
    try:
        os.rename(folder, output_dir)
    except OSError as error:
        raise CorpusError(f"{output_dir} can't be made ({error.strerror}): give --output_dir a new folder") from None
