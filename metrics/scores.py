"""The scores of emotion recognition under imbalance, computed from confusion matrices: macro F1 and unweighted average
recall lead. A score added to `SCORES` is in results, cards and reports, with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Rows of each class in confusion matrices, `(..., num_labels)`."""

    hits: np.ndarray  # recognised
    true: np.ndarray
    predicted: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        return self.true.sum(axis=-1)

    @property
    def f1(self) -> np.ndarray:
        """Of each class; 0 for one that occurs in neither."""
        return 2 * self.hits / np.maximum(self.true + self.predicted, 1)

    @property
    def recall(self) -> np.ndarray:
        """Of each class; 0 for one without rows."""
        return self.hits / np.maximum(self.true, 1)


def _macro_f1(counts: Counts) -> np.ndarray:
    """Over the classes that occur in the references or the predictions, as in scikit-learn."""
    occurs = counts.true + counts.predicted > 0
    return counts.f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def _unweighted_average_recall(counts: Counts) -> np.ndarray:
    """Over the classes that occur in the references."""
    return counts.recall.sum(axis=-1) / np.maximum((counts.true > 0).sum(axis=-1), 1)


def _weighted_f1(counts: Counts) -> np.ndarray:
    return (counts.f1 * counts.true).sum(axis=-1) / np.maximum(counts.rows, 1)


def _accuracy(counts: Counts) -> np.ndarray:
    return counts.hits.sum(axis=-1) / np.maximum(counts.rows, 1)


@dataclass(frozen=True)
class Score:
    title: str  # in cards
    short: str  # in tables and pictures of many systems
    hub_metric: str  # the Hub's name of it
    compute: Callable[[Counts], np.ndarray]  # of shape (...)


SCORES = {
    "macro_f1": Score("Macro F1", "macro F1", "f1", _macro_f1),
    "unweighted_average_recall": Score("Unweighted average recall", "UAR", "recall", _unweighted_average_recall),
    "weighted_f1": Score("Weighted F1", "weighted F1", "f1", _weighted_f1),
    "accuracy": Score("Accuracy", "accuracy", "accuracy", _accuracy),
}
LEADING = "macro_f1"


def confusion_matrix(references: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Class indices of shape `(num_rows,)` → counts of shape `(num_labels, num_labels)`, true classes in rows."""
    matrix = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(matrix, (references, predictions), 1)
    return matrix


def matrix_scores(matrices: np.ndarray, label_names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The scores of confusion matrices `(..., num_labels, num_labels)`, true classes in rows → `(...)` by name, NaN for
    an empty matrix; and F1 and recall of the classes that are named."""
    matrices = np.asarray(matrices, dtype=np.float64)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)  # (..., C)
    counts = Counts(hits, true=matrices.sum(axis=-1), predicted=matrices.sum(axis=-2))
    scores = {name: score.compute(counts) for name, score in SCORES.items()}
    for kind, values in (("f1", counts.f1), ("recall", counts.recall)):
        scores |= {f"{kind}_{name}": values[..., index] for index, name in enumerate(label_names)}
    return {name: np.where(counts.rows > 0, values, np.nan) for name, values in scores.items()}


def seed_means(matrices: np.ndarray, label_names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Means of `matrix_scores` over seeds, `(..., num_seeds, num_labels, num_labels)`; an empty one has no part."""
    return {name: np.nanmean(values, axis=-1) for name, values in matrix_scores(matrices, label_names).items()}
