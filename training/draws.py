"""Order and crops of training rows, drawn from seed and epoch alone: a resumed run draws what it would have drawn."""

import hashlib
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawValue

import torch


class EpochSampler(torch.utils.data.Sampler):
    """Another sampler's rows, in an order of seed and epoch alone: accelerate deals out one to all processes."""

    def __init__(self, sampler: torch.utils.data.Sampler, seed: int):
        self.sampler = sampler
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int):
        self.sampler.generator = torch.Generator().manual_seed(self.seed + epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


class TrainingCollator:
    """Another collator's batches, with the rows' `segment_id` for messages. What it draws by torch's random state
    depends on seed, epoch and rows, whichever process or worker makes the batch and whatever was drawn before."""

    def __init__(self, collator: Callable, seed: int):
        self.collator = collator
        self.seed = seed
        # Shared with workers that outlive an epoch.
        self._epoch = RawValue("q", 0)

    def set_epoch(self, epoch: int):
        self._epoch.value = epoch

    def __call__(self, rows: list[dict]) -> dict:
        names = [str(row["segment_id"]) for row in rows if "segment_id" in row]
        drawn_for = repr((self.seed, self._epoch.value, names or [str(row.get("text")) for row in rows]))
        seed = int.from_bytes(hashlib.blake2b(drawn_for.encode(), digest_size=7).digest(), "little")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            batch = self.collator(rows)
        return {**batch, "segment_id": names} if names else batch
