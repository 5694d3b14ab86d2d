"""Intervals around scores by the bootstrap, drawing whole sessions where utterances of one session are alike.
Everything is computed from confusion matrices, one per session, so that thousands of draws take a second."""

import numpy as np
from datasets import Dataset
from scipy.stats import bootstrap


# Whose utterances are alike, the widest first.
GROUP_COLUMNS = ("session", "speaker")
NUM_RESAMPLES = 2000
CONFIDENCE_LEVEL = 0.95
# Draws that are held in memory at once.
BATCH_SIZE = 200


def find_groups(table: Dataset) -> tuple[str, list] | None:
    """
    The column whose groups have to be drawn whole, and its values; `None` where there is none, or only one group.

    Args:
        table (`Dataset`): Columns of the scored rows. One with a value missing doesn't count.
    """
    for name in GROUP_COLUMNS:
        if name in table.column_names:
            values = table[name][:]
            if None not in values and len(set(values)) > 1:
                return name, values
    return None


def bootstrap_intervals(
    references: np.ndarray,
    predictions: np.ndarray,
    label_names: list[str],
    groups: list | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """
    Percentile intervals at `CONFIDENCE_LEVEL` of the scores that `matrix_scores` gives.

    Args:
        references, predictions (`np.ndarray` of shape `(num_rows,)`): Class indices.
        label_names (`list[str]`): Names of the classes.
        groups (`list`, *optional*): The group of each row. Groups are drawn whole, with replacement (the cluster
            bootstrap, Field and Welsh 2007); without them, rows are.
        num_resamples (`int`): How often.
        seed (`int`): The same one gives the same intervals.

    Returns:
        Lower and upper end by name of the score; nothing for a single group or row.
    """
    num_labels = len(label_names)
    members = np.arange(len(references)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_groups = int(members.max(initial=-1)) + 1
    if num_groups < 2:
        return {}
    matrices = np.zeros((num_groups, num_labels, num_labels))
    np.add.at(matrices, (members, references, predictions), 1)
    names = list(matrix_scores(matrices[:1], label_names))

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        """Groups that were drawn `(B, G)` → scores `(S, B)`."""
        offsets = np.arange(len(drawn))[:, None] * num_groups
        times = np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * num_groups)  # how often each was drawn
        sums = times.reshape(-1, num_groups) @ matrices.reshape(num_groups, -1)
        return np.stack(list(matrix_scores(sums.reshape(-1, num_labels, num_labels), label_names).values()))

    interval = bootstrap(
        (np.arange(num_groups),),
        lambda drawn, axis: statistic(np.atleast_2d(drawn), axis),
        n_resamples=num_resamples,
        batch=BATCH_SIZE,
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE_LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {
        name: (float(low), float(high))
        for name, low, high in zip(names, np.ravel(interval.low), np.ravel(interval.high), strict=True)
    }


def matrix_scores(matrices: np.ndarray, label_names: list[str]) -> dict[str, np.ndarray]:
    """
    The scores of [`~training.metrics.EmotionMetric`] for many confusion matrices at once.

    Args:
        matrices (`np.ndarray` of shape `(num_matrices, num_labels, num_labels)`): True classes in rows.
        label_names (`list[str]`): Names of the classes.

    Returns:
        By name, `np.ndarray` of shape `(num_matrices,)`.
    """
    hits = np.diagonal(matrices, axis1=1, axis2=2)  # (B, C)
    true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    occurs = true + predicted > 0
    f1 = 2 * hits / np.maximum(true + predicted, 1)
    recall = hits / np.maximum(true, 1)
    rows = true.sum(axis=1)
    scores = {
        "macro_f1": f1.sum(axis=1) / occurs.sum(axis=1),
        "unweighted_average_recall": recall.sum(axis=1) / (true > 0).sum(axis=1),
        "weighted_f1": (f1 * true).sum(axis=1) / rows,
        "accuracy": hits.sum(axis=1) / rows,
    }
    scores |= {f"f1_{name}": f1[:, index] for index, name in enumerate(label_names)}
    return scores | {f"recall_{name}": recall[:, index] for index, name in enumerate(label_names)}
