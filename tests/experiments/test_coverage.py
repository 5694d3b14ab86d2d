"""Intervals on simulated data, whose true scores are known: how often they hold the truth."""

import numpy as np
import pytest

from experiments.comparisons import compare_systems
from experiments.scored_run import ScoredRun
from metrics.intervals import bootstrap_intervals
from metrics.scores import matrix_scores


NAMES = ["neutral", "happy", "sad", "angry"]
SHARES = np.array([0.45, 0.25, 0.18, 0.12])
# Of the accuracies of sessions, a beta distribution: correlation of two rows of a session 1 / (4.2 + 1.8 + 1) = .14.
ACCURACY = (4.2, 1.8)
MEAN_ACCURACY = ACCURACY[0] / sum(ACCURACY)
# Share of the wrong answers that are a session's favourite class, drawn evenly.
FAVOURITE = 0.7
NUM_SESSIONS = 40
# Draws for each interval: more would not change how often the truth is inside.
NUM_RESAMPLES = 1000


def simulate(rng, num_sessions=NUM_SESSIONS, rows=30):
    """Classes, accuracy of each row's session, favourite class of it, session."""
    sessions = np.repeat(np.arange(num_sessions), rows)
    labels = rng.choice(len(NAMES), size=len(sessions), p=SHARES)
    accuracy, favourite = rng.beta(*ACCURACY, num_sessions), rng.integers(0, len(NAMES), num_sessions)
    return labels, accuracy[sessions], favourite[sessions], sessions


def answer(rng, labels, accuracy, favourite):
    """Right as often as in the row's session; wrong, its favourite or any other class."""
    other = (labels + rng.integers(1, len(NAMES), len(labels))) % len(NAMES)
    wrong = np.where((rng.random(len(labels)) < FAVOURITE) & (favourite != labels), favourite, other)
    return np.where(rng.random(len(labels)) < accuracy, labels, wrong)


def true_scores(accuracy):
    """Of infinitely many sessions: whichever is the favourite, wrong answers are spread evenly over all of them."""
    wrong = (1 - np.eye(len(NAMES))) / (len(NAMES) - 1)
    matrix = SHARES[:, None] * (accuracy * np.eye(len(NAMES)) + (1 - accuracy) * wrong)
    return {name: float(value) for name, value in matrix_scores(matrix * 1e9).items()}


def coverage(num_datasets, num_sessions=NUM_SESSIONS, clustered=True):
    """The share of datasets whose interval holds the true score, by its name."""
    rng, truth = np.random.default_rng(2015), true_scores(MEAN_ACCURACY)
    inside = dict.fromkeys(truth, 0)
    for seed in range(num_datasets):
        labels, accuracy, favourite, sessions = simulate(rng, num_sessions)
        answers = answer(rng, labels, accuracy, favourite)
        groups = sessions if clustered else None
        intervals = bootstrap_intervals(labels, answers, NAMES, groups, NUM_RESAMPLES, seed)
        for name, score in truth.items():
            low, high = intervals[name]
            inside[name] += low <= score <= high
    return {name: count / num_datasets for name, count in inside.items()}


def test_the_truth_is_that_of_very_many_sessions():
    rng = np.random.default_rng(5)
    labels, accuracy, favourite, _ = simulate(rng, 20_000)
    matrix = np.zeros((len(NAMES), len(NAMES)))
    np.add.at(matrix, (labels, answer(rng, labels, accuracy, favourite)), 1)
    assert true_scores(MEAN_ACCURACY)["accuracy"] == pytest.approx(MEAN_ACCURACY)
    for name, value in matrix_scores(matrix).items():
        assert value == pytest.approx(true_scores(MEAN_ACCURACY)[name], abs=0.005), name


@pytest.mark.slow
def test_intervals_of_sessions_hold_the_truth_and_those_of_single_rows_are_too_narrow():
    by_session, by_row = coverage(60), coverage(60, clustered=False)
    for name in by_session:
        assert by_session[name] >= 0.9 and by_row[name] < 0.75, name


@pytest.mark.slow
def test_intervals_of_correlated_sessions_hold_the_truth():
    for name, share in coverage(500).items():
        assert 0.92 <= share <= 0.97, name


@pytest.mark.slow
def test_few_sessions_lose_little():
    """Plain percentiles would hold it in 85 of 100."""
    for name, share in coverage(300, num_sessions=8).items():
        assert 0.89 <= share <= 0.97, name


@pytest.mark.slow
def test_intervals_of_a_difference_hold_the_truth():
    """Two systems that meet the same sessions, one of them a tenth more often right."""
    rng, num_datasets = np.random.default_rng(11), 200
    inside = dict.fromkeys(("accuracy", "macro_f1"), 0)
    widths, separate = [], []
    for _ in range(num_datasets):
        labels, accuracy, favourite, sessions = simulate(rng)
        runs_of = {}
        for name, factor in (("first", 1.0), ("second", 0.9)):
            # Each system has its own good and bad sessions beside those that are hard for both.
            own = np.clip(factor * accuracy + rng.normal(0, 0.05, NUM_SESSIONS)[sessions], 0, 1)
            answers = answer(rng, labels, own, favourite)
            runs_of[name] = [as_run(name, labels, answers, sessions)]
        (comparison,) = compare_systems(runs_of, NAMES, num_resamples=NUM_RESAMPLES)
        for name in inside:
            truth = true_scores(MEAN_ACCURACY)[name] - true_scores(0.9 * MEAN_ACCURACY)[name]
            inside[name] += comparison.differences[name].low <= truth <= comparison.differences[name].high
        difference = comparison.differences["accuracy"]
        widths.append(difference.high - difference.low)
        low, high = bootstrap_intervals(labels, answers, NAMES, sessions, 200)["accuracy"]
        separate.append(high - low)
    for name, count in inside.items():
        assert 0.91 <= count / num_datasets <= 0.98, name
    # What is hard for both drops out: otherwise it would be wider than that of one system, by the root of 2.
    assert np.mean(widths) < 0.85 * np.mean(separate)


def as_run(name, labels, answers, sessions):
    return ScoredRun(
        system=name,
        protocol="session",
        fold=None,
        seed=1,
        segment_ids=[str(row) for row in range(len(labels))],
        groups=sessions.tolist(),
        group_column="session",
        labels=labels,
        probabilities=np.eye(len(NAMES))[answers],
        train_counts=np.ones(len(NAMES)),
    )
