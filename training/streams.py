"""Rows whose recordings come as a stream, for datasets too large to have: first a look at all columns but the audio,
then a pass for each epoch, in which every row is known by its number and joined to its text and target."""

import logging

import numpy as np
import torch
from datasets import Audio, Dataset, Features, IterableDataset, Value, concatenate_datasets
from tqdm.auto import tqdm

from audio_rsa_cfn import SAMPLING_RATE
from training.recordings import measure


logger = logging.getLogger(__name__)

# A local dataset has no files to shuffle; more pieces mix its rows better and let more workers read.
NUM_PIECES = 64
# Of each worker that loads: rows in the shuffle buffer, about 100 MB of KEMDy20's recordings, and files it is fed from.
SHUFFLE_BUFFER = 500
FILES_AT_ONCE = 4
IGNORED = -100


def split_pieces(part: Dataset | IterableDataset) -> list[Dataset] | list[IterableDataset]:
    """A part in pieces, for a stream its files, whose rows follow each other as in the whole."""
    count = part.num_shards if isinstance(part, IterableDataset) else min(NUM_PIECES, len(part))
    return [part.shard(count, index, contiguous=True) for index in range(count)]


def read_tables(pieces: list[tuple[str, Dataset | IterableDataset]]) -> list[tuple[str, Dataset]]:
    """Names of parts and their pieces → the same with their rows in memory; they shouldn't have the audio any more."""
    tables = []
    for part, piece in tqdm(pieces, desc="Reading the columns", unit=" files"):
        if not isinstance(piece, Dataset):
            rows = list(piece)
            columns = {name: [row[name] for row in rows] for name in piece.features}
            piece = Dataset.from_dict(columns, features=piece.features)
        tables.append((part, piece))
    return tables


def number_rows(pieces: list[tuple[str, Dataset | IterableDataset]], lengths: list[int]) -> IterableDataset:
    """All pieces, of `lengths` rows, as one stream of `audio` and `row`, its number in the dataset."""
    numbered, start = [], 0
    for (_, piece), length in zip(pieces, lengths, strict=True):
        stream = piece.to_iterable_dataset() if isinstance(piece, Dataset) else piece
        if isinstance(stream.features["audio"], Audio):
            # An Audio feature would encode the recordings again, for which it needs torchcodec.
            stream = stream.cast_column("audio", {"bytes": Value("binary"), "path": Value("string")})
        # Numbered within a piece, which no worker divides further, so that the numbers hold in every worker.
        stream = stream.select_columns(["audio"]).map(
            _with_number,
            with_indices=True,
            fn_kwargs={"start": start},
            features=Features({"audio": stream.features["audio"], "row": Value("int64")}),
        )
        numbered.append(stream)
        start += length
    return concatenate_datasets(numbered)


def _with_number(row: dict, index: int, start: int) -> dict:
    return {**row, "row": start + index}


class _RowStream(torch.utils.data.IterableDataset):
    """
    Some rows of a numbered stream, with the columns that are in memory. No `datasets.IterableDataset`: accelerate would
    give each process other files of one, and so another number of batches.
    """

    def __init__(self, numbered: IterableDataset, table: Dataset, rows: list[int], is_checked: bool):
        self.place_of = {row: place for place, row in enumerate(rows)}
        self.stream = numbered.filter(self.place_of.__contains__, input_columns="row")
        self.table = table
        self.is_checked = is_checked

    def _join(self, row: dict) -> tuple[dict, str | None]:
        """The whole row, and what is wrong with its recording."""
        seconds = None if self.is_checked else measure(row["audio"], read_all=True)
        joined = {**self.table[self.place_of[row["row"]]], "audio": row["audio"]}
        return joined, seconds if isinstance(seconds, str) else None


class TrainingStream(_RowStream):
    """The rows in an order from a shuffle buffer, another one in each epoch; those that can't be read are skipped."""

    def __init__(self, *args, seed: int):
        super().__init__(*args)
        self.stream = self.stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=FILES_AT_ONCE)

    def set_epoch(self, epoch: int):
        self.stream.set_epoch(epoch)

    def __iter__(self):
        for row in self.stream:
            joined, problem = self._join(row)
            if problem is None:
                yield joined
            else:
                logger.warning(f"{joined['segment_id']} is skipped in training, {problem}")


class ScoredStream(_RowStream):
    """
    The rows in their order, each in its place, so that predictions can be told apart: one that can't be read is silence
    with the label -100, which neither loss nor scores count. Such rows also fill the last of the batches that all
    processes score at once, which accelerate would fill with rows that were scored already.
    """

    def __init__(self, *args, batch_size: int):
        super().__init__(*args)
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.table) // self.batch_size) * self.batch_size

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        if worker is not None and worker.id > 0:
            return  # several workers would take turns, and the rows with them
        silence = {"array": np.zeros(SAMPLING_RATE, dtype=np.float32), "sampling_rate": SAMPLING_RATE}
        # Iterated as batches, because rows would be divided among the workers.
        for batch in self.stream.iter(batch_size=1):
            joined, problem = self._join({name: values[0] for name, values in batch.items()})
            yield joined if problem is None else {**joined, "audio": silence, "label": IGNORED}
        for _ in range(len(self) - len(self.table)):
            yield {**self.table[0], "audio": silence, "label": IGNORED}
