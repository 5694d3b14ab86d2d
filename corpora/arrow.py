"""Writes the rows of a corpus into a `DatasetDict` folder, one Arrow file per shard, a few rows at a time.
Memory does not grow with the corpus, and what is written is not copied again."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import xxhash
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value
from tqdm import tqdm

from corpora.recordings import SAMPLING_RATE
from corpora.report import ShardReport
from corpora.rows import Corpus, Shard


# `datasets` writes 1000 rows at once, which would hold about 190 MB of recordings in every process.
ROWS_PER_BATCH = 16


def corpus_features(corpus: Corpus) -> Features:
    """The type of each of the corpus's columns."""
    label = ClassLabel(names=list(corpus.label_names))
    types = {
        # Stored undecoded: decoding belongs to the processor, and `datasets` would want torchcodec for it.
        "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
        "text": Value("string"),
        "raw_text": Value("string"),
        "label": label,
        "emotions": List(label),
        "votes": List(Value("int32"), length=len(corpus.label_names)),
        "valence": Value("float64"),
        "arousal": Value("float64"),
        "segment_id": Value("string"),
        "session": Value("int32" if corpus.has_numbered_sessions else "string"),
        "speaker": Value("string"),
        "gender": Value("string"),
        "start": Value("float64"),
        "end": Value("float64"),
        "duration": Value("float32"),
    }
    return Features({column: types[column] for column in corpus.columns})


def write_shards(corpus: Corpus, folder: Path, num_proc: int) -> list[ShardReport]:
    """Writes one Arrow file per shard into `folder`, with a progress bar.

    Args:
        num_proc: number of processes; with 1 everything happens in this one.

    Returns:
        One report per shard, in their order, whatever the order in which they were finished.
    """
    folder.mkdir()
    schema, label_names = corpus_features(corpus).arrow_schema, corpus.label_names
    jobs = [(shard, folder / f"{shard.name}.arrow", schema, label_names) for shard in corpus.shards]
    bar = {"total": sum(shard.num_rows for shard in corpus.shards), "desc": "Converting", "unit": " rows"}
    if num_proc == 1:
        with tqdm(**bar) as progress:
            return [write_shard(*job, progress) for job in jobs]
    # Forked, as `datasets` does: a fresh interpreter spends more seconds importing than it has work for.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_prepare_worker) as pool:
        # Submitted before there is a progress bar, whose thread should not be there when the workers are forked.
        futures = {pool.submit(write_shard, *job): job[0] for job in jobs}
        try:
            with tqdm(**bar) as progress:
                for future in as_completed(futures):
                    future.result()
                    progress.update(futures[future].num_rows)
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


class _DigestedFile:
    """A file for writing that knows the digest of what went into it."""

    def __init__(self, path: Path):
        self._file = open(path, "wb")
        self._digest = xxhash.xxh3_128()

    def write(self, content) -> int:
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def write_shard(
    shard: Shard, file: Path, schema: pyarrow.Schema, label_names: tuple[str, ...], progress: tqdm | None = None
) -> ShardReport:
    """Writes the usable utterances of a shard into `file`, unless there are none, and reports every row."""
    report = ShardReport(shard.name)
    indices = {name: index for index, name in enumerate(label_names)}
    batch, output, writer = [], None, None
    try:
        for utterance in shard.utterances():
            report.add(utterance)
            if progress is not None:
                progress.update()
            if utterance.columns is None:
                continue
            batch.append(utterance.columns)
            if writer is None:
                output = _DigestedFile(file)
                writer = pyarrow.ipc.new_stream(output, schema)
            if len(batch) == ROWS_PER_BATCH:
                writer.write_batch(_record_batch(batch, schema, indices))
                batch = []
        if batch:
            writer.write_batch(_record_batch(batch, schema, indices))
        if writer is not None:
            writer.close()
            report.digest = output.hexdigest()
    finally:
        if output is not None:
            output.close()
    return report


def _record_batch(rows: list[dict], schema: pyarrow.Schema, indices: dict[str, int]) -> pyarrow.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in schema.names}
    columns["label"] = [None if label is None else indices[label] for label in columns["label"]]
    if "emotions" in columns:
        columns["emotions"] = [[indices[emotion] for emotion in emotions] for emotions in columns["emotions"]]
    audio = columns.pop("audio")
    arrays = {name: pyarrow.array(values, schema.field(name).type) for name, values in columns.items()}
    paths = pyarrow.array([recording["path"] for recording in audio], pyarrow.string())
    recordings = _binary_array([recording["bytes"] for recording in audio])
    arrays["audio"] = pyarrow.StructArray.from_arrays([recordings, paths], names=["bytes", "path"])
    return pyarrow.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _binary_array(values: list[bytes]) -> pyarrow.BinaryArray:
    """As `pyarrow.array(values)`, which grows its buffer as it goes and takes twice as long for recordings."""
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"".join(values))]
    return pyarrow.BinaryArray.from_buffers(pyarrow.binary(), len(values), buffers)


def assemble_dataset(corpus: Corpus, shards: Path, reports: list[ShardReport], folder: Path) -> str:
    """Makes the Arrow files in `shards` the splits of a `DatasetDict` in `folder`, without copying them.

    `save_to_disk` would write every recording a second time. So empty splits are saved for the metadata, and the files
    are then moved in and listed, which is all that distinguishes them from full ones.

    Returns:
        The fingerprint of the dataset, which depends on its content only.
    """
    files: dict[str, list[Path]] = {}
    digests: dict[str, str] = {}
    for shard, report in zip(corpus.shards, reports, strict=True):
        if report.rows_written:
            files.setdefault(shard.split, []).append(shards / f"{shard.name}.arrow")
            digests[shard.split] = digests.get(shard.split, "") + report.digest
    empty = datasets.table.InMemoryTable(corpus_features(corpus).arrow_schema.empty_table())
    with _without_progress_bars():
        DatasetDict({split: Dataset(empty, split=datasets.Split(split)) for split in files}).save_to_disk(folder)
    fingerprints = {
        split: hashlib.blake2b(digest.encode(), digest_size=8).hexdigest() for split, digest in digests.items()
    }
    for split, paths in files.items():
        names = [f"data-{index:05d}-of-{len(paths):05d}.arrow" for index in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            os.rename(path, folder / split / name)
        # `datasets` looks cached results up by fingerprint: another content must not have the one of the empty split.
        state_file = folder / split / datasets.config.DATASET_STATE_JSON_FILENAME
        state = json.loads(state_file.read_text(encoding="utf-8"))
        state |= {"_data_files": [{"filename": name} for name in names], "_fingerprint": fingerprints[split]}
        state_file.write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
    return "-".join(fingerprints.values())


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()
