"""Intervals: the scores they are of, a closed form, and sessions that are drawn whole."""

import numpy as np
import pytest
from datasets import Dataset

from training.intervals import bootstrap_intervals, find_groups, matrix_scores
from training.metrics import EmotionMetric


NAMES = ["neutral", "happy", "sad"]


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_the_scores_are_those_of_the_metric(num_labels):
    """Also where a class is never true, or neither true nor predicted."""
    rng = np.random.default_rng(num_labels)
    references, predictions = rng.integers(0, num_labels, 40), rng.integers(0, 2, 40)
    expected = EmotionMetric(NAMES).compute(predictions=predictions, references=references)
    matrix = np.zeros((1, 3, 3))
    np.add.at(matrix[0], (references, predictions), 1)
    scores = matrix_scores(matrix, NAMES)
    assert {"macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy", "f1_sad", "recall_sad"} <= set(scores)
    for name, values in scores.items():
        assert values == pytest.approx([expected[name]]), name


def test_rows_alone_have_the_interval_of_the_binomial():
    references = np.zeros(1000, dtype=int)
    predictions = np.r_[np.zeros(800, dtype=int), np.ones(200, dtype=int)]
    low, high = bootstrap_intervals(references, predictions, NAMES)["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.003)


def test_whole_sessions_are_drawn():
    """Of ten sessions that are all right or all wrong, each counts as one observation, however many rows it has."""
    references = np.zeros(1000, dtype=int)
    groups = [f"Sess{row // 100}" for row in range(1000)]
    predictions = np.r_[np.zeros(800, dtype=int), np.ones(200, dtype=int)]
    intervals = bootstrap_intervals(references, predictions, NAMES, groups)
    # Percentiles of a binomial of 10 draws at 0.8.
    assert intervals["accuracy"] == pytest.approx((0.5, 1.0))
    assert bootstrap_intervals(references, predictions, NAMES, groups) == intervals


def test_one_group_has_no_interval():
    references = np.zeros(5, dtype=int)
    assert bootstrap_intervals(references, references, NAMES, [1] * 5) == {}
    assert bootstrap_intervals(references[:0], references[:0], NAMES) == {}


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({"session": [1, 1, 2], "speaker": ["a", "b", "c"]}, ("session", [1, 1, 2])),
        ({"session": [1, None, 2], "speaker": ["a", "b", "c"]}, ("speaker", ["a", "b", "c"])),
        ({"session": [1, 1, 1]}, None),
        ({"text": ["a", "b", "c"]}, None),
    ],
)
def test_sessions_before_speakers_before_rows(columns, group):
    assert find_groups(Dataset.from_dict(columns)) == group
