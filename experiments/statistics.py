"""What finished runs of one system amount to: scores with intervals, classes, calibration, cost, learning curve.
And the baseline that never looks at a row: always the most frequent class."""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from experiments.results import (
    MAJORITY,
    Calibration,
    CalibrationBin,
    ClassScores,
    Cost,
    Estimate,
    LearningCurve,
    SystemScores,
)
from experiments.scored_run import ScoredRun
from metrics.intervals import bootstrap_scores, expanded_interval
from metrics.scores import matrix_scores, seed_means


# No 95 % interval can be had from fewer, however often they are drawn (see `expanded_interval`).
MIN_GROUPS = 4
# As in Guo et al. (2017).
NUM_BINS = 15
# Fields of a learning curve, as the Trainer logs them.
CURVES = {
    "training_loss": "loss",
    "loss": "eval_loss",
    "macro_f1": "eval_macro_f1",
    "weighted_f1": "eval_weighted_f1",
}


def score_system(runs: list[ScoredRun], label_names: list[str]) -> SystemScores:
    """
    One system under one protocol.

    Args:
        runs (`list[ScoredRun]`): At least one, each of another fold or seed; not every fold needs to have every seed.
            The rows of a seed's folds are scored together.
        label_names (`list[str]`): The classes.

    Raises:
        ValueError: The runs name different columns of groups.
    """
    first = runs[0]
    group_column = find_group_column(runs)
    matrices = group_matrices([runs], len(label_names))  # (G, 1, R, C, C)
    seed_matrices = matrices.sum(axis=0)[0]  # (R, C, C)
    is_majority = first.system == MAJORITY
    return SystemScores(
        system=first.system,
        protocol=first.protocol,
        folds=sorted({run.fold for run in runs if run.fold is not None}),
        seeds=sorted({run.seed for run in runs}),
        num_runs=len(runs),
        num_rows=len({segment_id for run in runs for segment_id in run.segment_ids}),
        group_column=group_column,
        num_groups=len(matrices),
        estimates=_estimate(runs, matrices),
        classes=_class_scores(seed_matrices, label_names),
        confusion_matrix=seed_matrices.mean(axis=0).tolist(),
        calibration=None if is_majority else calibrate(runs),
        cost=None if is_majority else _average_cost(runs),
        curve=None if is_majority else average_curve(runs),
    )


def find_group_column(runs: list[ScoredRun]) -> str | None:
    """The column whose groups are drawn whole, the same for all runs; otherwise a `ValueError`."""
    columns = {run.group_column for run in runs}
    if len(columns) > 1:
        names = ", ".join(sorted(map(str, columns)))
        raise ValueError(f"Runs that are scored together have to name one column of groups, and these name {names}.")
    return columns.pop()


def group_matrices(systems: list[list[ScoredRun]], num_labels: int) -> np.ndarray:
    """
    Confusion matrices, group by group, of systems that were scored on the same groups.

    Args:
        systems (`list[list[ScoredRun]]`): The runs of each.
        num_labels (`int`): Classes.

    Returns:
        `np.ndarray` of shape `(num_groups, num_systems, num_seeds, num_labels, num_labels)`, true classes in rows; one
        group for each row of the dataset where there is no column of groups. A system's seeds come first, in their
        order, and empty matrices follow up to the largest number of seeds.
    """
    names = np.unique([name for runs in systems for run in runs for name in _group_names(run)])
    seeds = [sorted({run.seed for run in runs}) for runs in systems]
    # Small numbers: half the memory where each row is a group.
    matrices = np.zeros((len(names), len(systems), max(map(len, seeds)), num_labels, num_labels), dtype=np.float32)
    for column, runs in enumerate(systems):
        for run in runs:
            members = np.searchsorted(names, _group_names(run))
            np.add.at(matrices, (members, column, seeds[column].index(run.seed), run.labels, run.predictions), 1)
    return matrices


def _group_names(run: ScoredRun) -> list[str]:
    return run.segment_ids if run.groups is None else run.groups


def _estimate(runs: list[ScoredRun], matrices: np.ndarray) -> dict[str, Estimate]:
    """The four scores, from `group_matrices` of a single system."""
    num_labels = matrices.shape[-1]
    values = seed_means(matrices.sum(axis=0))
    by_run = matrix_scores(np.stack([group_matrices([[run]], num_labels).sum(axis=(0, 1, 2)) for run in runs]))
    draws = bootstrap_scores(matrices) if len(matrices) >= MIN_GROUPS else {}
    estimates = {}
    for name, (value,) in values.items():
        low, high = map(float, expanded_interval(draws[name][0], len(matrices))) if draws else (None, None)
        estimates[name] = Estimate(
            value=float(value),
            low=low,
            high=high,
            mean=float(by_run[name].mean()),
            sd=float(by_run[name].std(ddof=1)) if len(runs) > 1 else None,
        )
    return estimates


def _class_scores(seed_matrices: np.ndarray, label_names: list[str]) -> list[ClassScores]:
    """From one confusion matrix for each seed, `(R, C, C)`."""
    scores = seed_means(seed_matrices, label_names)
    true, predicted = seed_matrices.sum(axis=2).mean(axis=0), seed_matrices.sum(axis=1).mean(axis=0)  # (C,)
    return [
        ClassScores(
            name=name,
            rows=float(true[index]),
            predicted=float(predicted[index]),
            f1=float(scores[f"f1_{name}"]),
            recall=float(scores[f"recall_{name}"]),
        )
        for index, name in enumerate(label_names)
    ]


def calibrate(runs: list[ScoredRun]) -> Calibration:
    """How far the probability of the predicted class is from how often it is right, over all rows of all runs."""
    confidences = np.concatenate([run.probabilities.max(axis=1) for run in runs]).astype(np.float64)
    is_right = np.concatenate([run.predictions == run.labels for run in runs])
    edges = np.linspace(0, 1, NUM_BINS + 1)
    # Each bin has its upper edge, which scipy's binned_statistic would give to the next.
    members = np.digitize(confidences, edges[1:-1], right=True)
    rows = np.bincount(members, minlength=NUM_BINS)
    confidence_sums = np.bincount(members, weights=confidences, minlength=NUM_BINS)
    right_sums = np.bincount(members, weights=is_right, minlength=NUM_BINS)
    return Calibration(
        expected_calibration_error=float(np.abs(confidence_sums - right_sums).sum() / len(confidences)),
        bins=[
            CalibrationBin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                rows=int(count),
                confidence=float(confidence_sums[index] / count) if count else None,
                accuracy=float(right_sums[index] / count) if count else None,
            )
            for index, count in enumerate(rows)
        ],
    )


def _average_cost(runs: list[ScoredRun]) -> Cost:
    return Cost(
        **{
            name: float(np.mean([getattr(run, name) for run in runs]))
            for name in ("parameters", "fusion_parameters", "seconds", "peak_memory_bytes")
        }
    )


def average_curve(runs: list[ScoredRun]) -> LearningCurve:
    """What training logged at each epoch, the mean over the runs that logged it there."""
    logged = defaultdict(lambda: defaultdict(list))  # epoch → field of the curve → one value per run
    for run in runs:
        of_run = defaultdict(dict)  # what is logged twice at one epoch counts once
        for entry in run.log_history:
            for curve, name in CURVES.items():
                if name in entry:
                    of_run[round(entry["epoch"], 4)][curve] = entry[name]
        for epoch, values in of_run.items():
            for curve, value in values.items():
                logged[epoch][curve].append(value)
    epochs = sorted(logged)
    means = {
        curve: [float(np.mean(logged[epoch][curve])) if logged[epoch][curve] else None for epoch in epochs]
        for curve in CURVES
    }
    return LearningCurve(epochs=epochs, **means, compared_on=runs[0].compared_on)


def majority_runs(runs: list[ScoredRun]) -> list[ScoredRun]:
    """
    The baseline of a protocol, as if it were a system: the most frequent class of the training rows, with probability
    1 for each scored row.

    Args:
        runs (`list[ScoredRun]`): Of any systems of one protocol.

    Returns:
        One for each fold and seed that a system has a run of, on the rows of the first of them.
    """
    baseline = {}
    for run in runs:
        if (run.fold, run.seed) not in baseline:
            probabilities = np.zeros_like(run.probabilities)
            probabilities[:, run.train_counts.argmax()] = 1
            baseline[run.fold, run.seed] = replace(
                run,
                system=MAJORITY,
                probabilities=probabilities,
                log_history=[],
                seconds=0.0,
                peak_memory_bytes=0,
                parameters=0,
                fusion_parameters=0,
            )
    return list(baseline.values())
