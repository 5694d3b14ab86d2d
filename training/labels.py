"""The targets of training rows, one class or shares of the raters' votes, and the weights of rare classes.
Where the raters tie there is no label, and `ties` decides what becomes of the row."""

import logging

import numpy as np

from foundation.errors import InputError
from metrics.raters import vote_shares


logger = logging.getLogger(__name__)

# The label of a row that neither loss nor scores count, which is torch's.
IGNORED = -100
# The middle of the values tried in Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples".
EFFECTIVE_BETA = 0.999


def match_classes(columns: dict[str, list], label_names: list[str], classes: list[str]) -> None:
    """Give classes, in place, the indices that a saved model has for them; one it doesn't know is an InputError."""
    if label_names == classes:
        return
    from corpora.roles import reindex  # late: `datasets` would delay --help

    unknown = sorted({label_names[label] for label in columns["label"] if label is not None} - set(classes))
    if unknown:
        raise InputError(
            f"--model_name_or_path knows the classes {', '.join(classes)}; the dataset also has {', '.join(unknown)}, "
            "give one without those rows, or --ignore_mismatched_sizes to train a new classifier"
        )
    index_of = {index: classes.index(name) for index, name in enumerate(label_names) if name in classes}
    columns["label"] = [None if label is None else index_of[label] for label in columns["label"]]
    if len(index_of) < len(label_names):
        # The votes for a class that the model lacks have no place.
        columns.pop("emotions", None)
        columns.pop("votes", None)
    places = [index_of.get(index) for index in range(len(label_names))]
    reindex(columns, range(len(columns["label"])), places, len(classes))


def make_targets(
    columns: dict[str, list], rows: list[int], label_names: list[str], label_target: str, ties: str
) -> tuple[list[int], dict[str, list]]:
    """The rows of the training part that have a target, and the targets: a column as long as the others, `None` in rows
    without one. It is `label`, or `label_shares` with a share for each class if a single target is a distribution.

    `label_target` is `"majority"`, the class; or `"soft"`, the shares of the votes, where a row has some. `ties`, whose
    label is `None`, are left out by `"drop"`; train on the shares of their votes by `"soft"`; and by `"transform"`, if
    between neutral and one other emotion, as the other one. Raises InputError if a column is missing or doesn't fit.
    """
    labels, shares = columns["label"], None
    if "soft" in (label_target, ties):
        shares = vote_shares(columns.get("votes"), len(label_names))
        if shares is None:
            raise InputError(
                f"{'--label_target' if label_target == 'soft' else '--ties'} soft needs a column named votes, with "
                f"{len(label_names)} counts in each row, one for each class in their order"
            )
    if ties == "transform" and not ("emotions" in columns and "neutral" in label_names):
        raise InputError("--ties transform needs a column named emotions, and neutral among the classes")
    classes, distributions = {}, {}
    for row in rows:
        if (ties if labels[row] is None else label_target) == "soft" and shares[row].any():
            distributions[row] = shares[row]
        elif labels[row] is not None:
            classes[row] = labels[row]
        elif ties == "transform":
            emotions, neutral = columns["emotions"][row] or (), label_names.index("neutral")
            others = [emotion for emotion in emotions if emotion != neutral]
            classes[row] = others[0] if len(others) == 1 and len(emotions) == 2 else None
    classes = {row: label for row, label in classes.items() if label is not None}
    _log_outcomes(columns, rows, classes, distributions, label_target)
    kept = sorted(classes | distributions)
    if not distributions:
        return kept, {"label": [classes.get(row) for row in range(len(labels))]}
    one_hot = np.eye(len(label_names))
    targets = {row: shares.tolist() for row, shares in distributions.items()}
    targets |= {row: one_hot[label].tolist() for row, label in classes.items()}
    return kept, {"label_shares": [targets.get(row) for row in range(len(labels))]}


def _log_outcomes(columns: dict, rows: list[int], classes: dict, distributions: dict, label_target: str) -> None:
    unlabelled = {row for row in rows if columns["label"][row] is None}
    ties = {row for row in unlabelled if "emotions" in columns and len(columns["emotions"][row] or ()) > 1}
    unlabelled -= ties
    outcomes = {
        "ties train as the emotion beside neutral": len(ties & classes.keys()),
        "ties train on the shares of their votes": len(ties & distributions.keys()),
        "ties are left out of training": len(ties - classes.keys() - distributions.keys()),
        "unlabelled rows train on the shares of their votes": len(unlabelled & distributions.keys()),
        "unlabelled rows are left out of training": len(unlabelled - distributions.keys()),
    }
    if label_target == "soft":
        outcomes["rows without votes train on their one class"] = len(classes.keys() - ties)
    for outcome, count in outcomes.items():
        if count:
            logger.info(f"{count} {outcome}.")


def target_shares(train, num_labels: int | None = None) -> np.ndarray:
    """Targets of training rows as distributions, `(num_rows, num_labels)`: one class is a share of 1."""
    if "label_shares" in train.column_names:
        return np.asarray(train["label_shares"][:])
    labels = np.asarray(train["label"][:])
    return np.eye(num_labels or labels.max() + 1)[labels]


def attribute_ranges(train, names: list[str] | None) -> list[list[float]] | None:
    """The least and the greatest training value of each attribute; an InputError for one without two."""
    ranges = []
    for name in names or ():
        values = np.array(train[name][:], dtype=float)
        low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
        if not low < high:
            raise InputError(f"--attributes {name} doesn't vary over the training rows; give columns that do")
        ranges.append([low, high])
    return ranges or None


CLASS_WEIGHTS = {
    "balanced": lambda counts: 1 / counts,  # all classes weigh alike
    # The inverse of the effective number of rows (Cui et al. 2019, equation 8): like 1 / count for rare classes, and
    # the same for all that have many times 1 / (1 - beta) rows.
    "effective": lambda counts: (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts),
}


def class_weights(kind: str, shares: np.ndarray) -> list[float]:
    """Weights of the classes in the loss: their mean over the training rows, `(num_rows, num_labels)`, is 1."""
    counts = shares.sum(axis=0)  # (C,)
    occurring = counts > 0
    weights = np.zeros(len(counts))
    weights[occurring] = CLASS_WEIGHTS[kind](counts[occurring])
    return (weights * counts.sum() / (weights @ counts)).tolist()


def sampling_weights(shares: np.ndarray) -> np.ndarray:
    """How often to draw each row, so that all classes come alike: the sum over them of its share / their count."""
    counts = shares.sum(axis=0)  # (C,)
    return shares @ np.divide(1, counts, out=np.zeros(len(counts)), where=counts > 0)
