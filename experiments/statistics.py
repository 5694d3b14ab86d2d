"""The statistics of one system over its finished runs: scores with intervals, classes, calibration, cost.
And the baseline that always answers the most frequent class."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas
from pandas import DataFrame

from experiments.results import COST, MAJORITY, Calibration, CalibrationBin, Estimate, SystemScores
from experiments.scored_run import ScoredRun, stack_rows
from metrics.concordance import estimate_concordance
from metrics.intervals import MIN_GROUPS, bootstrap_scores, expanded_interval
from metrics.scores import confusion_matrix, matrix_scores, seed_means


# As in Guo et al. (2017).
NUM_BINS = 15


def score_system(runs: list[ScoredRun], label_names: list[str]) -> SystemScores:
    """One system under one protocol. Each run is of another fold or seed, and not every fold needs to have every seed;
    the rows of a seed's folds are scored together."""
    first, rows = runs[0], stack_rows(runs)
    matrices = group_matrices(rows, len(label_names))  # (G, 1, R, C, C)
    seed_matrices = matrices.sum(axis=0)[0]  # (R, C, C)
    of_seeds = seed_means(seed_matrices, label_names)
    true, predicted = (seed_matrices.sum(axis=axis).mean(axis=0).tolist() for axis in (2, 1))  # (C,)
    classes = [
        {"name": name, "rows": true[index], "predicted": predicted[index]}
        | {kind: float(of_seeds[f"{kind}_{name}"]) for kind in ("f1", "recall")}
        for index, name in enumerate(label_names)
    ]
    scores = SystemScores(
        system=first.system,
        protocol=first.protocol,
        folds=sorted({run.fold for run in runs if run.fold is not None}),
        seeds=sorted({run.seed for run in runs}),
        num_runs=len(runs),
        num_rows=rows.segment_id.nunique(),
        group_column=first.group_column,
        num_groups=len(matrices),
        estimates=_estimate(runs, matrices),
        classes=classes,
        confusion_matrix=seed_matrices.mean(axis=0).tolist(),
    )
    if first.system != MAJORITY:
        scores.estimates |= {f"ccc_{name}": _estimate_concordance(name, runs, rows) for name in first.attributes}
        scores.calibration = calibrate(runs)
        scores.cost = {name: float(np.mean([getattr(run, name) for run in runs])) for name in COST}
    return scores


def group_matrices(rows: DataFrame, num_labels: int) -> np.ndarray:
    """Confusion matrices, true classes in rows, of systems that were scored on the same groups, from `stack_rows`, of
    shape `(num_groups, num_systems, num_seeds, num_labels, num_labels)`. A system's seeds come first, in their order,
    and empty matrices follow up to the largest number of seeds."""
    groups, names = pandas.factorize(rows.group, sort=True)
    systems, system_names = pandas.factorize(rows.system)
    seeds = rows.groupby("system").seed.rank("dense").to_numpy().astype(int) - 1
    # Small numbers: half the memory where each row is a group.
    matrices = np.zeros((len(names), len(system_names), seeds.max() + 1, num_labels, num_labels), dtype=np.float32)
    np.add.at(matrices, (groups, systems, seeds, rows.label, rows.answer), 1)
    return matrices


def run_matrix(run: ScoredRun) -> np.ndarray:
    """The confusion matrix of one run, `(num_labels, num_labels)`."""
    return confusion_matrix(run.labels, run.predictions, run.probabilities.shape[1])


def _estimate(runs: list[ScoredRun], matrices: np.ndarray) -> dict[str, Estimate]:
    """The scores, from `group_matrices` of a single system."""
    values, by_run = seed_means(matrices.sum(axis=0)), matrix_scores(np.stack([run_matrix(run) for run in runs]))
    draws = bootstrap_scores(matrices) if len(matrices) >= MIN_GROUPS else {}
    estimates = {}
    for name, (value,) in values.items():
        low, high = map(float, expanded_interval(draws[name][0], len(matrices))) if draws else (None, None)
        sd = float(by_run[name].std(ddof=1)) if len(runs) > 1 else None
        estimates[name] = Estimate(float(value), low, high, mean=float(by_run[name].mean()), sd=sd)
    return estimates


def _estimate_concordance(name: str, runs: list[ScoredRun], rows: DataFrame) -> Estimate:
    """Of one attribute of a single system, over its rows as they are stacked."""
    pair = np.concatenate([run.attributes[name] for run in runs], axis=1)
    value, *ends = estimate_concordance(pair, rows.group, rows.seed) or [None]
    low, high = ends or (None, None)
    by_run = [estimate_concordance(run.attributes[name], np.zeros(len(run.labels)))[:1] for run in runs]
    by_run = np.array(sum(by_run, []))
    sd = float(by_run.std(ddof=1)) if len(by_run) > 1 else None
    return Estimate(value, low, high, mean=float(by_run.mean()) if len(by_run) else None, sd=sd)


def calibrate(runs: list[ScoredRun]) -> Calibration:
    """How far the probability of the predicted class is from how often it is right, over all rows of all runs."""
    confidences = np.concatenate([run.probabilities.max(axis=1) for run in runs]).astype(np.float64)
    is_right = np.concatenate([run.predictions == run.labels for run in runs])
    edges = np.linspace(0, 1, NUM_BINS + 1)
    # A bin includes its upper edge; scipy's binned_statistic would count it in the next.
    members = np.digitize(confidences, edges[1:-1], right=True)
    rows, confidence_sums, right_sums = (
        np.bincount(members, weights=weights, minlength=NUM_BINS) for weights in (None, confidences, is_right)
    )
    bins = [CalibrationBin(low, high, rows=0) for low, high in zip(edges.tolist(), edges[1:].tolist())]
    for index in np.flatnonzero(rows):
        means = (confidence_sums[index] / rows[index], right_sums[index] / rows[index])
        bins[index].rows, bins[index].confidence, bins[index].accuracy = int(rows[index]), *map(float, means)
    return Calibration(float(np.abs(confidence_sums - right_sums).sum() / len(confidences)), bins)


def ensemble_runs(name: str, members: list[str], runs_of: dict[str, list[ScoredRun]]) -> list[ScoredRun]:
    """An ensemble, as if it were a system: the mean of its members' probabilities, for each fold and seed that all of
    them have a run of. A single member is joined over its seeds, if a fold has several."""
    together = defaultdict(list)
    for member in members:
        for run in runs_of.get(member, []):
            together[run.fold, run.seed if len(members) > 1 else None].append(run)
    joined = []
    for runs in together.values():
        first = runs[0]
        if len(runs) < max(2, len(members)) or any(run.segment_ids != first.segment_ids for run in runs):
            continue
        costs = {name: sum(getattr(run, name) for run in runs) for name in COST}
        means = np.mean([run.probabilities for run in runs], axis=0)
        told = {name: np.mean([run.attributes[name] for run in runs], axis=0) for name in first.attributes}
        joined.append(replace(first, system=name, probabilities=means, attributes=told, log_history=[], **costs))
    return joined


def majority_runs(runs: list[ScoredRun]) -> list[ScoredRun]:
    """The baseline of a protocol, as if it were a system: the most frequent class of the training rows, with
    probability 1 for each scored row. One run for each fold and seed that any system has a run of, on the rows of the
    first."""
    baseline = {}
    for run in runs:
        if (run.fold, run.seed) not in baseline:
            probabilities = np.zeros_like(run.probabilities)
            probabilities[:, run.train_counts.argmax()] = 1
            told = {"system": MAJORITY, "probabilities": probabilities, "log_history": []}
            baseline[run.fold, run.seed] = replace(run, **told, **dict.fromkeys(COST, 0))
    return list(baseline.values())
