"""Reads the rows of a corpus and writes them into Arrow files, one per shard, a few rows at a time.
Memory does not grow with the corpus. `datasets` is not needed for it, nor imported before it is under way."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pyarrow
from tqdm import tqdm

from corpora.conversion import ShardReport
from corpora.rows import Corpus, Shard
from foundation.files import digest, to_disk


# A handful of recordings. `datasets` writes 1000 rows at once, about 190 MB of them in every process.
BYTES_PER_BATCH = 1 << 21


def arrow_schema(corpus: Corpus) -> pyarrow.Schema:
    """How the corpus's columns are stored; classes are indices."""
    types = {
        "audio": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        "label": pyarrow.int64(),
        "emotions": pyarrow.list_(pyarrow.int64()),
        "votes": pyarrow.list_(pyarrow.int32(), len(corpus.label_names)),
        "session": pyarrow.int32() if corpus.has_numbered_sessions else pyarrow.string(),
        "duration": pyarrow.float32(),
        **dict.fromkeys(("valence", "arousal", "start", "end"), pyarrow.float64()),
    }
    return pyarrow.schema([(column, types.get(column, pyarrow.string())) for column in corpus.columns])


def write_shards(corpus: Corpus, folder: Path, num_proc: int) -> list[ShardReport]:
    """Writes one Arrow file per shard into `folder`, and gives one report per shard, in their order."""
    folder.mkdir()
    schema, label_names = arrow_schema(corpus), corpus.label_names
    jobs = [(shard, folder / f"{shard.name}.arrow", schema, label_names) for shard in corpus.shards]
    bar = {"total": sum(len(shard.rows) for shard in corpus.shards), "desc": "Converting", "unit": " rows"}
    if num_proc == 1:
        with tqdm(**bar) as progress:
            return [write_shard(*job, progress) for job in jobs]
    # Forked, as `datasets` does: a fresh interpreter spends more seconds importing than it has work for.
    context = multiprocessing.get_context("fork" if os.name == "posix" else None)
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_prepare_worker) as pool:
        # Submitted before there is a progress bar, whose thread should not be there when the workers are forked.
        futures = {pool.submit(write_shard, *job): job[0] for job in jobs}
        try:
            # A second of import, while the workers read; and they have less memory to share without it.
            import datasets  # noqa: F401

            with tqdm(**bar) as progress:
                for future in as_completed(futures):
                    future.result()
                    progress.update(len(futures[future].rows))
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


def write_shard(
    shard: Shard, file: Path, schema: pyarrow.Schema, label_names: tuple[str, ...], progress: tqdm | None = None
) -> ShardReport:
    """Writes the usable utterances of a shard into `file`, and reports every row."""
    report = ShardReport(shard.name)
    indices = {name: index for index, name in enumerate(label_names)}
    batch, size = [], 0
    with file.open("wb") as output:
        with pyarrow.ipc.new_stream(output, schema) as writer:
            for utterance in shard.utterances():
                report.add(utterance)
                if progress is not None:
                    progress.update()
                if utterance.columns is not None:
                    batch.append(utterance.columns)
                    size += len(utterance.columns["audio"]["bytes"])
                if size >= BYTES_PER_BATCH:
                    writer.write_batch(_record_batch(batch, schema, indices))
                    batch, size = [], 0
            if batch:
                writer.write_batch(_record_batch(batch, schema, indices))
    to_disk(file)
    report.digest = digest(file)
    return report


def _record_batch(rows: list[dict], schema: pyarrow.Schema, indices: dict[str, int]) -> pyarrow.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in schema.names}
    columns["label"] = [None if label is None else indices[label] for label in columns["label"]]
    if "emotions" in columns:
        columns["emotions"] = [[indices[emotion] for emotion in emotions] for emotions in columns["emotions"]]
    return pyarrow.record_batch([pyarrow.array(columns[field.name], field.type) for field in schema], schema=schema)
