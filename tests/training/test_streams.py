"""Streams: the rows a run without streaming has, each once whoever loads them, and none that can end a run."""

import io
import shutil

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, load_from_disk
from torch.utils.data import DataLoader

from training.arguments import DataArguments
from training.data import load_splits
from training.trainer import RsaCfnDataCollator


def encode(samples, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, **{"format": "WAV", **options})
    return buffer.getvalue()


def cut_flac():
    """A flac whose header promises more than comes."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)
    content = encode(noise, format="FLAC")
    return content[:2000] + b"\0" * (len(content) - 2000)


@pytest.fixture(scope="module")
def make_folders(tmp_path_factory):
    """A function that saves 48 rows in four sessions as a dataset and in three files to stream from, and gives both
    folders; of `broken` rows, another recording."""

    def make_folders(broken=None, suffix="arrow"):
        saved, files = (tmp_path_factory.mktemp(name) for name in ("saved", suffix))
        rows = [
            {
                "audio": {"bytes": (broken or {}).get(row, encode(np.full(1600, row / 100))), "path": None},
                "text": None if row == 40 else f"말 {row}",
                "mood": "calm" if row % 3 else "upset",
                "session": row // 12,
                "segment_id": f"row{row:02d}",
            }
            for row in range(48)
        ]
        dataset = Dataset.from_list(rows)
        if broken is None:  # an Audio feature is not saved without bytes
            dataset = dataset.cast_column("audio", Audio(16000, decode=False))
        dataset.save_to_disk(saved, num_shards=3)
        for file in sorted(saved.glob("*.arrow")):
            if suffix == "parquet":
                Dataset.from_file(str(file)).to_parquet(files / f"{file.stem}.parquet")
            else:
                shutil.copy(file, files)
        return saved, files

    return make_folders


def load(folder, **arguments):
    options = {"seed": arguments.pop("seed", 0), "eval_batch_size": arguments.pop("eval_batch_size", 1)}
    given = DataArguments(dataset_name=str(folder), label_column_name="mood", **arguments)
    return load_splits(given, with_validation=False, **options)


def names(rows):
    return [row["segment_id"] for row in rows]


def in_workers(stream, num_workers=2):
    """The rows as a run's workers give them."""
    batches = DataLoader(stream, batch_size=4, num_workers=num_workers, collate_fn=list)
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_stream_has_the_rows_of_the_dataset(suffix, make_folders):
    saved, files = make_folders(suffix=suffix)
    dataset, streamed = load(saved), load(files, streaming=True)
    assert streamed.label_names == dataset.label_names
    assert streamed.membership == dataset.membership
    assert streamed.record["parts"] == dataset.record["parts"]
    for part in ("train", "validation", "test"):
        rows = {row["segment_id"]: row for row in getattr(dataset, part)}
        stream = list(getattr(streamed, part))
        assert sorted(names(stream)) == sorted(rows)
        for row in stream:
            for column in ("audio", "text", "label", "session"):
                assert row[column] == rows[row["segment_id"]][column]


@pytest.mark.slow
def test_a_prepared_folder_streams_its_soft_targets(prepared_dir):
    given = {"dataset_name": str(prepared_dir), "label_target": "soft"}
    dataset = load_splits(DataArguments(**given), with_validation=False)
    streamed = load_splits(DataArguments(**given, streaming=True), with_validation=False)
    shares = {row["segment_id"]: row["label_shares"] for row in dataset.train}
    assert {row["segment_id"]: row["label_shares"] for row in in_workers(streamed.train)} == shares
    assert names(in_workers(streamed.test)) == dataset.test["segment_id"][:]
    assert streamed.record == dataset.record
    recordings = {row["segment_id"]: row["audio"] for row in load_from_disk(prepared_dir)["train"]}
    assert all(row["audio"] == recordings[row["segment_id"]] for row in streamed.test)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_row_trains_once_an_epoch_in_another_order(num_workers, make_folders):
    saved, files = make_folders()
    stream = load(files, streaming=True, seed=1).train
    orders = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        orders.append(names(in_workers(stream, num_workers)))
    (table,) = {tuple(sorted(order)) for order in orders}
    assert list(table) == names(load(saved).train)
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])
    again, other = (load(files, streaming=True, seed=seed).train for seed in (1, 2))
    again.set_epoch(1)
    assert names(in_workers(again, num_workers)) == orders[1]
    assert names(in_workers(other, num_workers)) != orders[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_are_scored_in_their_order_and_the_last_batch_is_filled(num_workers, make_folders):
    saved, files = make_folders()
    stream = load(files, streaming=True, eval_batch_size=8).test
    rows = in_workers(stream, num_workers)
    scored = names(load(saved).test)
    assert len(scored) == 11 and len(rows) == len(stream) == 16
    assert names(rows[:11]) == scored
    assert [row["label"] for row in rows[11:]] == [-100] * 5
    assert -100 not in [row["label"] for row in rows[:11]]


def test_recordings_that_cannot_be_read_end_no_run(make_folders, processor):
    broken = {0: b"", 25: cut_flac(), 30: None, 38: cut_flac(), 44: encode(np.full(9, np.nan), subtype="FLOAT")}
    streamed = load(make_folders(broken)[1], streaming=True)
    collate = RsaCfnDataCollator(processor)
    # Session 0 and 1 validate but one, session 2 trains, session 3 is tested.
    batch = collate(list(streamed.train))
    assert batch["unread"] == {"row25": "audio truncated", "row30": "no audio"}
    assert batch["labels"].tolist().count(-100) == 2 and len(batch["input_values"]) == 12
    batch = collate(list(streamed.test))
    assert batch["unread"] == {"row38": "audio truncated", "row44": "audio not finite"}
    # Without a transcript it was left out before.
    assert [place for place, label in enumerate(batch["labels"]) if label == -100] == [2, 7] and len(
        batch["labels"]
    ) == 11
