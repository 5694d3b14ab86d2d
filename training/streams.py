"""Rows whose recordings come as a stream, for datasets too large to have: first a look at all columns but the audio,
then a pass for each epoch, in which every row is known by its number and joined to its text and target."""

import torch
from datasets import Audio, Dataset, Features, IterableDataset, Value, concatenate_datasets
from tqdm.auto import tqdm

from training.labels import IGNORED


# A local dataset has no files to shuffle; more pieces mix its rows better and let more workers read.
NUM_PIECES = 64
# Of each worker that loads: rows in the shuffle buffer, about 100 MB of KEMDy20's recordings, and files it is fed from.
SHUFFLE_BUFFER = 500
FILES_AT_ONCE = 4


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

    def __init__(self, numbered: IterableDataset, table: Dataset, rows: list[int]):
        self.place_of = {row: place for place, row in enumerate(rows)}
        self.stream = numbered.filter(self.place_of.__contains__, input_columns="row")
        self.table = table

    def _join(self, row: dict) -> dict:
        """The whole row."""
        return {**self.table[self.place_of[row["row"]]], "audio": row["audio"]}


class TrainingStream(_RowStream):
    """The rows in an order from a shuffle buffer, another one in each epoch."""

    def __init__(self, *args, seed: int):
        super().__init__(*args)
        self.stream = self.stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=FILES_AT_ONCE)

    def set_epoch(self, epoch: int):
        self.stream.set_epoch(epoch)

    def __iter__(self):
        yield from map(self._join, self.stream)


class ScoredStream(_RowStream):
    """
    The rows in their order. Rows without audio and with the label -100, which neither loss nor scores count, fill the
    last of the batches that all processes score at once; accelerate would fill it with rows that were scored already.
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
        # Iterated as batches, because rows would be divided among the workers.
        for batch in self.stream.iter(batch_size=1):
            yield self._join({name: values[0] for name, values in batch.items()})
        for _ in range(len(self) - len(self.table)):
            yield {**self.table[0], "audio": None, "label": IGNORED}
