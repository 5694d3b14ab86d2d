"""Intervals: the scores they are of, closed forms, sessions that are drawn whole, and p-values that agree with them."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t, ttest_1samp

from corpora.folds import find_groups
from metrics.emotion_metric import EmotionMetric
from metrics.intervals import CONFIDENCE_LEVEL, bootstrap_intervals, bootstrap_scores, expanded_interval, two_sided_p
from metrics.scores import matrix_scores


NAMES = ["neutral", "happy", "sad"]


def matrices_of_accuracy(right, rows):
    """One system, one seed, two classes: in each group, so many of the rows are right."""
    matrices = np.zeros((len(right), 1, 1, 2, 2))
    matrices[:, 0, 0, 0, 0], matrices[:, 0, 0, 0, 1] = right, np.asarray(rows) - right
    return matrices


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


def test_an_empty_matrix_has_no_scores():
    scores = matrix_scores(np.stack([np.zeros((3, 3)), np.eye(3)]), NAMES)
    for name, (empty, full) in scores.items():
        assert np.isnan(empty) and full == 1, name


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


def test_the_standard_error_is_that_of_the_sessions():
    """With sessions of one size, accuracy is the mean over the sessions, and the error that of a mean."""
    right = np.random.default_rng(1).integers(5, 51, 30)
    draws = bootstrap_scores(matrices_of_accuracy(right, np.full(30, 50)))["accuracy"][0]
    shares = right / 50
    assert draws.mean() == pytest.approx(shares.mean(), abs=0.002)
    assert draws.std() == pytest.approx(shares.std(ddof=0) / np.sqrt(30), rel=0.03)


@pytest.mark.parametrize("num_groups", [6, 12, 200])
def test_the_interval_of_a_mean_is_student_s(num_groups):
    """Expanded percentiles come close to mean ± t · s / √n, where plain ones would be too narrow."""
    right = norm.ppf((np.arange(num_groups) + 0.5) / num_groups, loc=5000, scale=1000).round()
    draws = bootstrap_scores(matrices_of_accuracy(right, np.full(num_groups, 10_000)))["accuracy"][0]
    low, high = expanded_interval(draws, num_groups)
    shares = right / 10_000
    half = t.ppf((1 + CONFIDENCE_LEVEL) / 2, num_groups - 1) * shares.std(ddof=1) / np.sqrt(num_groups)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.1 * half)
    plain = np.diff(np.quantile(draws, [0.025, 0.975]))[0]
    expansion = np.sqrt(num_groups / (num_groups - 1)) * t.ppf(0.975, num_groups - 1) / 1.96
    assert (high - low) / plain == pytest.approx(expansion, rel=0.08)


def test_systems_see_the_same_draws_and_a_seed_counts_only_where_it_has_rows():
    rng = np.random.default_rng(2)
    matrices = rng.poisson(3, (12, 1, 2, 3, 3))
    late = matrices.copy()
    late[3:, :, 1] = 0  # the second seed has scored three of the groups
    draws = bootstrap_scores(np.concatenate([matrices, matrices, late], axis=1), NAMES, num_resamples=300)
    assert {"macro_f1", "f1_sad", "recall_sad"} <= set(draws)
    for name, (first, same, other) in draws.items():
        assert np.array_equal(first, same), name
        assert np.isfinite(other).all() and not np.array_equal(first, other), name
    # The draws in which none of the three groups is, some 3 of 100, have the first seed alone.
    alone = bootstrap_scores(matrices[:, :, :1], num_resamples=300)["accuracy"][0]
    assert 0 < (draws["accuracy"][2] == alone).sum() < 40


def test_one_group_has_no_interval():
    references = np.zeros(5, dtype=int)
    assert bootstrap_intervals(references, references, NAMES, [1] * 5) == {}
    assert bootstrap_intervals(references[:0], references[:0], NAMES) == {}


def test_two_groups_have_the_outermost_draws():
    draws = bootstrap_scores(matrices_of_accuracy(np.array([2, 6]), [10, 10]))["accuracy"]
    low, high = expanded_interval(draws, 2)
    assert (low, high) == (pytest.approx([0.2]), pytest.approx([0.6]))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-60, 60), min_size=1, max_size=400), st.integers(0, 60), st.integers(4, 60))
def test_p_is_below_05_where_the_interval_leaves_out_0(values, shift, num_groups):
    """For any distribution of at least as many draws as are made, also with many at 0."""
    draws = np.resize(values, 10_000) + shift
    low, high = expanded_interval(draws, num_groups)
    p = two_sided_p(draws, num_groups)
    assert 0 < p <= 1
    assert (p < 1 - CONFIDENCE_LEVEL) == bool(low > 0 or high < 0)


@pytest.mark.parametrize("num_groups", [4, 5, 8, 40, 2560])
def test_p_crosses_05_at_the_very_draw_that_the_interval_ends_at(num_groups):
    """Draw after draw is moved below 0: both turn at the same."""
    draws = np.arange(1, 10_001)
    turns = []
    for below in range(300):
        moved = draws - below
        low, _ = expanded_interval(moved, num_groups)
        assert (low > 0) == (two_sided_p(moved, num_groups) < 0.05)
        turns.append(low > 0)
    assert turns[0] and not turns[-1]


def test_p_is_near_that_of_the_t_test():
    differences = np.random.default_rng(3).normal(0.6, 1, 25)
    drawn = np.random.default_rng(4).integers(0, 25, (20_000, 25))
    p = two_sided_p(differences[drawn].mean(axis=1), 25)
    assert p == pytest.approx(ttest_1samp(differences, 0).pvalue, rel=0.5)
    assert two_sided_p(np.zeros(1000), 25) == 1


@pytest.mark.parametrize("num_groups", [8, 16, 40])
def test_p_far_from_0_is_not_bounded_by_the_number_of_draws(num_groups):
    """As Student's test has it, also where it is much less than one in all draws."""
    differences = np.random.default_rng(3).normal(3, 1, num_groups)
    drawn = np.random.default_rng(4).integers(0, num_groups, (10_000, num_groups))
    draws = differences[drawn].mean(axis=1)
    assert (draws > 0).all()
    p, expected = two_sided_p(draws, num_groups), ttest_1samp(differences, 0).pvalue
    assert p == pytest.approx(expected, rel=0.1)
    assert 0 < two_sided_p(draws + 1e6, num_groups) < p


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({"session": [1, 1, 2], "speaker": ["a", "b", "c"]}, ("session", [1, 1, 2])),
        ({"session": [1, None, 2], "speaker": ["a", "b", "c"]}, ("speaker", ["a", "b", "c"])),
        ({"session": [1, 1, 1], "speaker": ["a", "b", "b"]}, ("speaker", ["a", "b", "b"])),
        ({"session": [1, 1, 1]}, ("session", [1, 1, 1])),
        ({"text": ["a", "b", "c"]}, None),
    ],
)
def test_sessions_before_speakers_before_rows(columns, group):
    assert find_groups(Dataset.from_dict(columns)) == group
