"""How well numbers are told: the concordance correlation coefficient (Lin 1989), with its interval over groups."""

import numpy as np

from metrics.intervals import MIN_GROUPS, NUM_RESAMPLES, expanded_interval, resampled_sums


def concordance(sums: np.ndarray) -> np.ndarray:
    """2 cov(x, y) / (var x + var y + (mean x - mean y)²), from sums over rows of 1, x, y, x² + y² and xy, `(..., 5)`;
    NaN without rows, or where all are one number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, squares, product = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
        return 2 * (product - x * y) / (squares - 2 * x * y)


def estimate_concordance(pair: np.ndarray, groups: list | None = None, seeds: list | None = None) -> list[float]:
    """The coefficient of what is so and what is told, `(2, num_rows)`, the mean over the seeds; and of `MIN_GROUPS`
    both ends of its interval, as of `bootstrap_intervals`. Only rows where both are finite have a part, if two are."""
    is_given = np.isfinite(pair).all(axis=0)
    if is_given.sum() < 2:
        return []
    keys = [np.arange(len(is_given)) if groups is None else groups, np.zeros(len(is_given)) if seeds is None else seeds]
    members, seeds = (np.unique(np.asarray(key)[is_given], return_inverse=True)[1] for key in keys)
    x, y = pair[:, is_given] - pair[:, is_given].mean()  # which changes nothing but the rounding
    sums = np.zeros((members.max() + 1, seeds.max() + 1, 5))  # (G, R, 5)
    np.add.at(sums, (members, seeds), np.stack([np.ones_like(x), x, y, x**2 + y**2, x * y], axis=1))
    value = float(np.nanmean(concordance(sums.sum(axis=0))))
    if len(sums) < MIN_GROUPS:
        return [value]
    draws = [np.nanmean(concordance(drawn), axis=1) for drawn in resampled_sums(sums, NUM_RESAMPLES)]
    return [value, *map(float, expanded_interval(np.concatenate(draws), len(sums)))]


def concordance_scores(attributes: dict[str, np.ndarray], groups: list | None = None) -> dict[str, float]:
    """`ccc_NAME` of each attribute, `(2, num_rows)`, and the ends of its interval as `ccc_NAME_low` and `_high`."""
    ends = ("", "_low", "_high")
    scores = {name: zip(ends, estimate_concordance(pair, groups)) for name, pair in attributes.items()}
    return {f"ccc_{name}{end}": score for name, estimate in scores.items() for end, score in estimate}
