"""Pairs of systems: the same rows, tests by hand, corrections by hand, and what a protocol flatters."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from experiments.comparisons import compare_systems, holm, measure_flattery
from experiments.statistics import score_system


NAMES = ["neutral", "happy", "sad"]
SCORES = ["macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy"]


def answers_for(labels, seed, accuracy):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(0, 3, len(labels)))


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(3, 400, p=[0.6, 0.3, 0.1])


@pytest.fixture
def runs_of(make_run, labels):
    """Three systems, two folds, three seeds; `good` is far better, the others alike."""
    halves = {0: range(0, 200), 1: range(200, 400)}
    answers = {
        (name, seed): answers_for(labels, 10 * index + seed, accuracy)
        for index, (name, accuracy) in enumerate({"good": 0.9, "fair": 0.6, "other": 0.6}.items())
        for seed in (1, 2, 3)
    }
    return {
        name: [
            make_run(labels[rows], answers[name, seed][rows], system=name, fold=fold, seed=seed, rows=rows)
            for seed in (1, 2, 3)
            for fold, rows in halves.items()
        ]
        for name in ("good", "fair", "other")
    }


def test_every_pair_is_compared_once(runs_of):
    comparisons = compare_systems(runs_of, NAMES)
    assert [(pair.first, pair.second) for pair in comparisons] == list(combinations(runs_of, 2))
    for pair in comparisons:
        assert (pair.protocol, pair.num_rows, pair.seeds) == ("session", 400, [1, 2, 3])
        assert list(pair.differences) == SCORES
        first, second = (score_system(runs_of[name], NAMES).estimates for name in (pair.first, pair.second))
        for name, difference in pair.differences.items():
            assert difference.value == pytest.approx(first[name].value - second[name].value)
            assert difference.low < difference.value < difference.high
            assert difference.p <= difference.p_holm <= 1
            # The sign of what is far apart is beyond doubt, and only that.
            is_clear = pair.first == "good"
            assert (difference.low > 0) == (difference.p < 0.05) == (difference.p_holm < 0.05) == is_clear
    assert [pair.seeds_above for pair in comparisons[:2]] == [3, 3]
    assert comparisons[2].seeds_above < 3


def test_the_p_of_accuracy_is_near_that_of_a_paired_t_test_over_sessions(make_run, labels):
    first, second = answers_for(labels, 1, 0.70), answers_for(labels, 2, 0.62)
    runs_of = {"a": [make_run(labels, first, system="a")], "b": [make_run(labels, second, system="b")]}
    (pair,) = compare_systems(runs_of, NAMES)
    by_session = ((first == labels).astype(float) - (second == labels)).reshape(40, 10).mean(axis=1)
    expected = ttest_1samp(by_session, 0)
    low, high = expected.confidence_interval()
    difference = pair.differences["accuracy"]
    assert 0.005 < expected.pvalue < 0.5
    assert difference.p == pytest.approx(expected.pvalue, rel=0.25)
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.008)


def test_a_system_doesn_t_differ_from_itself(runs_of):
    (pair,) = compare_systems({"one": runs_of["fair"], "two": runs_of["fair"]}, NAMES)
    assert pair.seeds_above == 0
    for difference in pair.differences.values():
        assert (difference.value, difference.low, difference.high, difference.p_holm) == (0, 0, 0, 1)


def test_only_what_both_have_is_compared(make_run, runs_of, labels):
    """A missing run, a run on fewer rows in another order, and a system that shares nothing."""
    fewer = range(0, 150)
    swapped = list(fewer)[::-1]
    lacking = [run for run in runs_of["fair"] if (run.fold, run.seed) not in {(0, 1), (1, 3)}]
    partly = make_run(labels[swapped], labels[swapped], system="other", fold=0, seed=1, rows=swapped)
    apart = make_run(labels, labels, system="apart", seed=9)
    pairs = {
        (pair.first, pair.second): pair
        for pair in compare_systems(
            {"good": runs_of["good"], "fair": lacking, "other": [partly, *runs_of["other"][1:]], "apart": [apart]},
            NAMES,
        )
    }
    assert set(pairs) == {("good", "fair"), ("good", "other"), ("fair", "other")}
    assert pairs["good", "fair"].num_rows == 400
    kept = [run for run in runs_of["good"] if (run.fold, run.seed) not in {(0, 1), (1, 3)}]
    expected = [score_system(runs, NAMES).estimates["accuracy"].value for runs in (kept, lacking)]
    assert pairs["good", "fair"].differences["accuracy"].value == pytest.approx(expected[0] - expected[1])
    # Alone with that run, rows are matched by their names.
    (matched,) = compare_systems({"good": runs_of["good"][:1], "other": [partly]}, NAMES)
    right = (runs_of["good"][0].predictions == runs_of["good"][0].labels)[:150]
    assert (matched.num_rows, matched.seeds) == (150, [1])
    assert matched.differences["accuracy"].value == pytest.approx(right.mean() - 1)


def test_a_pair_is_the_same_beside_others(runs_of):
    """Whatever else is compared, but for the correction."""
    together = {(pair.first, pair.second): pair for pair in compare_systems(runs_of, NAMES, num_resamples=2000)}
    for names, pair in together.items():
        (alone,) = compare_systems({name: runs_of[name] for name in names}, NAMES, num_resamples=2000)
        for name, difference in alone.differences.items():
            assert difference.p == difference.p_holm
            assert pair.differences[name].p == difference.p
            assert (pair.differences[name].low, pair.differences[name].high) == (difference.low, difference.high)


def test_three_sessions_have_a_difference_but_no_p(make_run, labels):
    runs_of = {
        name: [make_run(labels[:30], answers_for(labels[:30], seed, 0.5), system=name)]
        for seed, name in enumerate(("a", "b"))
    }
    (pair,) = compare_systems(runs_of, NAMES)
    for difference in pair.differences.values():
        assert (difference.low, difference.high, difference.p, difference.p_holm) == (None, None, None, None)


def test_runs_of_different_datasets_are_refused(make_run, labels):
    moved = labels.copy()
    moved[7] = (moved[7] + 1) % 3
    runs_of = {"a": [make_run(labels, labels, system="a")], "b": [make_run(moved, labels, system="b")]}
    with pytest.raises(ValueError, match=rf"Row row7 has class {moved[7]} in the run of b.*class {labels[7]} in"):
        compare_systems(runs_of, NAMES)
    with pytest.raises(ValueError, match="Row row7"):
        measure_flattery(runs_of["a"], runs_of["b"], NAMES)


def test_holm_by_hand():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1 are .02, .03, .06, .04, and the last isn't below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.7]) == pytest.approx([0.8, 0.8])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_holm_keeps_the_order_and_is_never_below_p_nor_above_bonferroni(p_values):
    corrected, p_values = holm(p_values), np.array(p_values)
    assert (corrected >= p_values).all() and (corrected <= np.minimum(len(p_values) * p_values, 1)).all()
    assert (np.diff(corrected[np.argsort(p_values)]) >= 0).all()


def test_ten_systems_can_differ_after_correction(make_run):
    """A p-value is no smaller than the number of draws allows, which has to be enough for 45 pairs of 20 sessions."""
    labels = np.random.default_rng(0).choice(3, 200)
    runs_of = {
        f"system{index}": [make_run(labels, answers_for(labels, index, 0.95 if index == 0 else 0.4))]
        for index in range(10)
    }
    comparisons = compare_systems(runs_of, NAMES)
    assert len(comparisons) == 45
    assert all(pair.differences["accuracy"].p_holm < 0.05 for pair in comparisons if pair.first == "system0")


def paper_run(make_run, labels, answers, seed, last, rows=None):
    """Its second epoch was the best of the reported rows, its third the last."""
    history = [
        {"epoch": 1.0, "eval_weighted_f1": 0.1, "eval_macro_f1": 0.1},
        {"epoch": 3.0, "eval_weighted_f1": last, "eval_macro_f1": last / 2},
        {"epoch": 2.0, "eval_weighted_f1": 0.9, "eval_macro_f1": 0.9},
        {"epoch": 3.0, "train_runtime": 1.0},
    ]
    fields = {"protocol": "paper", "compared_on": "test", "log_history": history}
    return make_run(labels, answers, seed=seed, rows=rows, **fields)


def test_what_the_paper_s_protocol_flatters(make_run, labels):
    """Paper: 200 of the rows, seeds 1 and 2. Session: all of the rows in two folds, seed 3."""
    paper_rows = np.arange(0, 400, 2)
    paper = [
        paper_run(make_run, labels[paper_rows], answers_for(labels[paper_rows], seed, 0.9), seed, last, paper_rows)
        for seed, last in ((1, 0.6), (2, 0.7))
    ]
    answers = answers_for(labels, 3, 0.5)
    halves = {0: range(0, 200), 1: range(200, 400)}
    session = [make_run(labels[rows], answers[rows], fold=fold, seed=3, rows=rows) for fold, rows in halves.items()]
    weighted, macro = measure_flattery(paper, session, NAMES)
    assert (weighted.system, weighted.score, macro.score) == ("rsa", "weighted_f1", "macro_f1")
    assert (weighted.last_epoch, macro.last_epoch) == (pytest.approx(0.65), pytest.approx(0.325))
    on_same_rows = make_run(labels[paper_rows], answers[paper_rows], rows=paper_rows)
    for flattery in (weighted, macro):
        best, all_rows, same_rows = (
            score_system(runs, NAMES).estimates[flattery.score].value for runs in (paper, session, [on_same_rows])
        )
        assert (flattery.best_epoch, flattery.session) == (pytest.approx(best), pytest.approx(all_rows))
        assert flattery.num_rows == 200
        assert flattery.difference.value == pytest.approx(best - same_rows)
        assert 0 < flattery.difference.low < flattery.difference.value < flattery.difference.high
        assert flattery.difference.p < 0.05 and flattery.difference.p_holm is None


def test_flattery_of_one_protocol_alone(make_run, labels):
    answers = answers_for(labels, 1, 0.8)
    run = paper_run(make_run, labels, answers, seed=1, last=0.6)
    weighted, _ = measure_flattery([run], [], NAMES)
    assert (weighted.session, weighted.difference, weighted.num_rows) == (None, None, 0)
    assert weighted.best_epoch > weighted.last_epoch == pytest.approx(0.6)
    # Nothing compared: what is reported is of the last epoch.
    run.log_history = [{"epoch": 1.0, "loss": 1.0}]
    weighted, _ = measure_flattery([run], [], NAMES)
    assert weighted.last_epoch == pytest.approx(weighted.best_epoch)
    # No row in common.
    elsewhere = make_run(labels, answers, rows=range(1000, 1400))
    weighted, _ = measure_flattery([run], [elsewhere], NAMES)
    assert weighted.session is not None and (weighted.difference, weighted.num_rows) == (None, 0)
