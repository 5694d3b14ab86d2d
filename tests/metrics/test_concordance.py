"""Concordance: closed forms, Lin's formula by NumPy and scipy, rows without a value, and intervals over groups."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from metrics.concordance import concordance_scores, estimate_concordance
from metrics.intervals import expanded_interval


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 0.8, 200)
    return np.stack([values, 0.6 * values + 1.4 + rng.normal(0, 0.4, 200)])


def lin(values, told):
    """As Lin (1989) writes it, by Pearson's correlation and standard deviations that divide by n."""
    spread = np.std(values) * np.std(told)
    distance = np.var(values) + np.var(told) + (np.mean(values) - np.mean(told)) ** 2
    return 2 * pearsonr(values, told).statistic * spread / distance


def test_it_is_lins_formula(pair):
    assert estimate_concordance(pair)[0] == pytest.approx(lin(*pair), abs=1e-12)
    # Far from 0, as years are, the sums of squares would lose it.
    assert estimate_concordance(pair + 1e6)[0] == pytest.approx(lin(*pair), abs=1e-6)
    covariance = np.cov(pair, bias=True)
    by_hand = 2 * covariance[0, 1] / (np.trace(covariance) + np.diff(pair.mean(axis=1))[0] ** 2)
    assert estimate_concordance(pair)[0] == pytest.approx(by_hand, abs=1e-12)


def test_closed_forms(pair):
    values, variance = pair[0], np.var(pair[0])
    mean = np.full(200, values.mean())
    for told, expected in (
        (values, 1),
        (2 * values.mean() - values, -1),
        (values + 0.5, 2 * variance / (2 * variance + 0.25)),
        (mean + 2 * (values - mean), 2 * 2 / (1 + 4)),
        (mean, 0),
    ):
        assert estimate_concordance(np.stack([values, told]))[0] == pytest.approx(expected, abs=1e-9)


def test_only_rows_with_a_value_count(pair):
    holes = pair.copy()
    holes[0, 150:] = np.nan
    holes[1, :10] = np.inf
    assert estimate_concordance(holes) == estimate_concordance(pair[:, 10:150])
    assert estimate_concordance(pair[:, :1]) == [] == estimate_concordance(np.full((2, 5), np.nan))


def test_groups_are_drawn_whole(pair):
    """Ten groups are ten observations, however many rows each has."""
    groups = [f"Sess{row % 10}" for row in range(200)]
    value, low, high = estimate_concordance(pair, groups)
    rng = np.random.default_rng(1)
    members = np.arange(200).reshape(20, 10).T  # (G, 20)
    draws = [lin(*pair[:, members[rng.integers(10, size=10)].ravel()]) for _ in range(400)]
    assert [low, high] == pytest.approx([*map(float, expanded_interval(np.array(draws), 10))], abs=0.03)
    assert low < value < high
    assert estimate_concordance(pair, np.zeros(200)) == pytest.approx([value])
    often = np.tile(pair, 20)
    assert estimate_concordance(often, groups * 20) == pytest.approx([value, low, high])


def test_seeds_are_averaged(pair):
    other = pair[:, ::-1] * [[1], [0.5]]
    both, groups = np.concatenate([pair, other], axis=1), [row % 10 for row in range(200)]
    value, *ends = estimate_concordance(both, groups + groups[::-1], [1] * 200 + [2] * 200)
    assert value == pytest.approx((lin(*pair) + lin(*other)) / 2)
    assert ends[0] < value < ends[1]


def test_scores_have_the_names_of_their_attributes(pair):
    scores = concordance_scores({"valence": pair, "arousal": pair[:, :1]}, [row % 10 for row in range(200)])
    assert list(scores) == ["ccc_valence", "ccc_valence_low", "ccc_valence_high"]
    assert scores["ccc_valence"] == pytest.approx(lin(*pair))
