"""Makes the Arrow files of a corpus a `DatasetDict` folder, without copying them."""

import json
import os
from collections import defaultdict
from pathlib import Path

import datasets
import xxhash
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List

from audio_rsa_cfn import SAMPLING_RATE
from corpora.conversion import ShardReport
from corpora.rows import Corpus
from corpora.shards import arrow_schema
from foundation.files import write_json


def assemble_dataset(corpus: Corpus, shards: Path, reports: list[ShardReport], folder: Path) -> str:
    """Makes the Arrow files in `shards` the splits of a `DatasetDict` in `folder`, and gives a fingerprint of its
    content. `save_to_disk` would write every recording a second time. So empty splits are saved for the metadata, and
    the files are then moved in and listed, which is all that distinguishes them from full ones."""
    files, digests = defaultdict(list), defaultdict(str)  # of each split
    for shard, report in zip(corpus.shards, reports, strict=True):
        if report.rows_written:
            files[shard.split].append(shards / f"{shard.name}.arrow")
            digests[shard.split] += report.digest
    label = ClassLabel(names=list(corpus.label_names))
    # Stored undecoded: decoding belongs to the processor, and `datasets` would want torchcodec for it.
    audio = Audio(sampling_rate=SAMPLING_RATE, decode=False)
    named, stored = {"audio": audio, "label": label, "emotions": List(label)}, arrow_schema(corpus)
    features = {name: named.get(name, kind) for name, kind in Features.from_arrow_schema(stored).items()}
    empty = datasets.table.InMemoryTable(Features(features).arrow_schema.empty_table())
    had_progress_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        DatasetDict({split: Dataset(empty, split=datasets.Split(split)) for split in files}).save_to_disk(folder)
    finally:
        if had_progress_bars:
            datasets.enable_progress_bars()
    fingerprints = {split: xxhash.xxh3_64_hexdigest(digest.encode()) for split, digest in digests.items()}
    for split, paths in files.items():
        names = [f"data-{index:05d}-of-{len(paths):05d}.arrow" for index in range(len(paths))]
        for path, name in zip(paths, names, strict=True):
            os.rename(path, folder / split / name)
        # `datasets` looks cached results up by fingerprint: another content must not have the one of the empty split.
        state_file = folder / split / datasets.config.DATASET_STATE_JSON_FILENAME
        state = json.loads(state_file.read_text(encoding="utf-8"))
        state |= {"_data_files": [{"filename": name} for name in names], "_fingerprint": fingerprints[split]}
        write_json(state_file, state)
    return "-".join(fingerprints.values())
