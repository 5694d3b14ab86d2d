"""Intervals around scores by the bootstrap, drawing whole sessions where utterances of one session are alike.
Everything is computed from confusion matrices, one per session, so that thousands of draws take a second."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import norm, t

from metrics.scores import seed_means


# The ends lie in the outermost draws where groups are few: fewer draws would leave them to chance.
NUM_RESAMPLES = 10_000
CONFIDENCE_LEVEL = 0.95
# Fewer groups give the bootstrap too little to draw from.
FEW_GROUPS = 20
# No 95 % interval can be had from fewer, however often they are drawn (see `expanded_interval`).
MIN_GROUPS = 4
# Draws that are held in memory at once.
BATCH_SIZE = 200


def bootstrap_intervals(
    references: np.ndarray,
    predictions: np.ndarray,
    label_names: list[str],
    groups: list | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Both ends of the intervals at `CONFIDENCE_LEVEL` of what `matrix_scores` gives; nothing for fewer than
    `MIN_GROUPS`. References and predictions are class indices, `(num_rows,)`. Groups are drawn whole, with replacement
    (the cluster bootstrap, Field and Welsh 2007); without them, rows are."""
    num_labels = len(label_names)
    members = np.arange(len(references)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_groups = int(members.max(initial=-1)) + 1
    if num_groups < MIN_GROUPS:
        return {}
    matrices = np.zeros((num_groups, 1, 1, num_labels, num_labels))
    np.add.at(matrices, (members, 0, 0, references, predictions), 1)
    draws = bootstrap_scores(matrices, label_names, num_resamples, seed)
    return {name: tuple(map(float, expanded_interval(drawn[0], num_groups))) for name, drawn in draws.items()}


def bootstrap_scores(
    matrices: np.ndarray, label_names: Sequence[str] = (), num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """The bootstrap distribution of the scores of several systems, each the mean over its seeds, by name of the score
    `(num_systems, num_resamples)`. Groups are drawn once for all of them, so that a difference of two systems is one of
    the same rows in every draw; the same seed and as many groups give the same draws.

    Of matrices `(num_groups, num_systems, num_seeds, num_labels, num_labels)`, true classes in rows, there are two
    groups or more, and every system has rows in each of them; a matrix may be empty, and a seed without any row in a
    draw has no part in the mean.
    """
    counts = matrices.astype(np.float32)  # exact up to 2 ** 24 rows
    scores = [seed_means(sums, label_names) for sums in resampled_sums(counts, num_resamples, seed)]  # (B, S) each
    return {name: np.concatenate([batch[name] for batch in scores]).T for name in scores[0]}


def resampled_sums(of_groups: np.ndarray, num_resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Sums over as many groups as there are, `(num_groups, ...)`, drawn with replacement: batches `(B, ...)`."""
    num_groups, *shape = of_groups.shape
    rng, flat = np.random.default_rng(seed), of_groups.reshape(num_groups, -1)
    for start in range(0, num_resamples, BATCH_SIZE):
        drawn = rng.integers(num_groups, size=(min(BATCH_SIZE, num_resamples - start), num_groups))  # (B, G)
        offsets = np.arange(len(drawn))[:, None] * num_groups
        times = np.bincount((drawn + offsets).ravel(), minlength=drawn.size)  # how often each was drawn
        yield (times.reshape(drawn.shape).astype(flat.dtype) @ flat).reshape(-1, *shape)


def expanded_interval(draws: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the expanded percentile interval at `CONFIDENCE_LEVEL` (Hesterberg 2015). Plain percentiles are too
    narrow for few groups, by what a normal distribution lacks against Student's and by the variance's division by `n`.

    From draws `(..., num_resamples)` of 2 groups or more, both ends `(...)` are the draws whose rank is just outside
    the tail. With three groups or fewer no number of draws reaches it, and they are the lowest and the highest draw.
    """
    quantile = t.ppf((1 + CONFIDENCE_LEVEL) / 2, num_groups - 1)
    tail = norm.sf(_expansion(num_groups) * quantile)
    # Of ranks that start with 1; see two_sided_p, which has to agree.
    rank = max(int(np.ceil(tail * (draws.shape[-1] + 1))) - 1, 1)
    ordered = np.sort(draws, axis=-1)
    return ordered[..., rank - 1], ordered[..., -rank]


def two_sided_p(draws: np.ndarray, num_groups: int) -> np.ndarray:
    """How surprising a difference is if there is none: the level at which its expanded percentile interval would end at
    0. Below 1 - `CONFIDENCE_LEVEL` exactly where `expanded_interval` leaves out 0, with four groups or more. Where no
    draw lies beyond 0, their number alone would bound it too high to be corrected for many comparisons: the tail is
    then that of the normal distribution with their mean and standard deviation.

    From draws of the difference `(..., num_resamples)`, p `(...)`, which is never 0: it counts as a draw itself.
    """
    beyond = np.minimum((draws <= 0).sum(axis=-1), (draws >= 0).sum(axis=-1))
    tail = (1 + beyond) / (1 + draws.shape[-1])
    mean, deviation = draws.mean(axis=-1), draws.std(axis=-1)
    is_bounded = (beyond == 0) & (deviation > 0)
    distance = np.abs(mean) / np.where(is_bounded, deviation, 1)
    tail = np.where(is_bounded, np.clip(norm.sf(distance), np.finfo(float).tiny, tail), tail)
    return np.minimum(2 * t.sf(norm.isf(tail) / _expansion(num_groups), num_groups - 1), 1.0)


def _expansion(num_groups: int) -> float:
    """A standard deviation that divides by `n - 1`, in units of one that divides by `n`."""
    return np.sqrt(num_groups / (num_groups - 1))
