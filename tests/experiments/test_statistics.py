"""The scores of one system: against scikit-learn and by hand, over folds and seeds that may be missing."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from experiments.results import MAJORITY
from experiments.statistics import NUM_BINS, calibrate, ensemble_runs, majority_runs, score_system
from metrics.concordance import estimate_concordance
from metrics.intervals import bootstrap_intervals


NAMES = ["neutral", "happy", "sad"]
SKLEARN = {
    "macro_f1": lambda labels, answers: f1_score(labels, answers, average="macro"),
    "unweighted_average_recall": lambda labels, answers: recall_score(labels, answers, average="macro"),
    "weighted_f1": lambda labels, answers: f1_score(labels, answers, average="weighted"),
    "accuracy": accuracy_score,
}


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(3, 200, p=[0.6, 0.3, 0.1])


def answers_for(labels, seed, accuracy=0.7):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(0, 3, len(labels)))


def test_folds_are_scored_together_and_seeds_are_averaged(make_run, labels):
    answers = {seed: answers_for(labels, seed) for seed in (1, 2)}
    halves = {0: range(0, 100), 1: range(100, 200)}
    runs = [
        make_run(labels[rows], answers[seed][rows], fold=fold, seed=seed, rows=rows)
        for seed in answers
        for fold, rows in halves.items()
    ]
    scores = score_system(runs, NAMES)
    assert (scores.system, scores.protocol, scores.folds, scores.seeds) == ("rsa", "session", [0, 1], [1, 2])
    assert (scores.num_runs, scores.num_rows, scores.group_column, scores.num_groups) == (4, 200, "session", 20)
    for name, score in SKLEARN.items():
        estimate = scores.estimates[name]
        assert estimate.value == pytest.approx(np.mean([score(labels, answers[seed]) for seed in answers])), name
        by_run = [score(run.labels, run.predictions) for run in runs]
        assert (estimate.mean, estimate.sd) == pytest.approx((np.mean(by_run), np.std(by_run, ddof=1))), name
        assert estimate.low < estimate.value < estimate.high
    expected = np.mean([confusion_matrix(labels, answers[seed]) for seed in answers], axis=0)
    assert np.array(scores.confusion_matrix) == pytest.approx(expected)
    for index, scored in enumerate(scores.classes):
        f1, recall = (
            np.mean([score(labels, answers[seed], average=None)[index] for seed in answers])
            for score in (f1_score, recall_score)
        )
        rows = {"rows": expected[index].sum(), "predicted": expected[:, index].sum()}
        assert scored == {"name": NAMES[index], "f1": pytest.approx(f1), "recall": pytest.approx(recall)} | rows
    json.dumps(asdict(scores))


def test_the_interval_of_one_run_is_that_of_its_card(make_run, labels):
    run = make_run(labels, answers_for(labels, 1))
    estimates = score_system([run], NAMES).estimates
    for name, ends in bootstrap_intervals(run.labels, run.predictions, NAMES, run.groups).items():
        if name in estimates:
            assert (estimates[name].low, estimates[name].high) == pytest.approx(ends)
    assert estimates["accuracy"].sd is None


def test_seeds_narrow_no_interval(make_run, labels):
    """The same answers from five seeds are no more evidence than from one."""
    answers = answers_for(labels, 1)
    once = score_system([make_run(labels, answers)], NAMES)
    often = score_system([make_run(labels, answers, seed=seed) for seed in range(5)], NAMES)
    for name, estimate in once.estimates.items():
        assert (often.estimates[name].low, often.estimates[name].high) == pytest.approx((estimate.low, estimate.high))


def test_a_missing_run_leaves_its_seed_what_there_is(make_run, labels):
    answers = {seed: answers_for(labels, seed) for seed in (1, 2)}
    first, rest = range(0, 30), range(30, 200)
    runs = [
        make_run(labels[first], answers[1][first], fold=0, seed=1, rows=first),
        make_run(labels[rest], answers[1][rest], fold=1, seed=1, rows=rest),
        make_run(labels[first], answers[2][first], fold=0, seed=2, rows=first),
    ]
    scores = score_system(runs, NAMES)
    assert (scores.num_runs, scores.num_rows, scores.num_groups) == (3, 200, 20)
    estimate = scores.estimates["macro_f1"]
    by_seed = [
        f1_score(labels, answers[1], average="macro"),
        f1_score(labels[first], answers[2][first], average="macro"),
    ]
    assert estimate.value == pytest.approx(np.mean(by_seed))
    assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_rows_are_drawn_where_there_are_no_groups(make_run, labels):
    answers = answers_for(labels, 1)
    scores = score_system([make_run(labels, answers, groups=None, group_column=None)], NAMES)
    assert (scores.group_column, scores.num_groups) == (None, 200)
    accuracy = scores.estimates["accuracy"]
    half = 1.972 * np.sqrt(accuracy.value * (1 - accuracy.value) / 199)
    assert (accuracy.low, accuracy.high) == pytest.approx((accuracy.value - half, accuracy.value + half), abs=0.006)


def test_three_sessions_have_scores_but_no_interval(make_run, labels):
    scores = score_system([make_run(labels[:30], answers_for(labels[:30], 1))], NAMES)
    assert scores.num_groups == 3
    for estimate in scores.estimates.values():
        assert 0 < estimate.value < 1 and estimate.low is None and estimate.high is None


def test_concordance_of_attributes(make_run, labels):
    rng = np.random.default_rng(0)
    values = labels + rng.normal(0, 0.5, 200)
    values[::7] = np.nan
    pairs = [np.stack([values, labels + rng.normal(0, 0.5, 200)]) for _ in range(2)]
    runs = [make_run(labels, labels, seed=seed, attributes={"valence": pair}) for seed, pair in enumerate(pairs)]
    estimate = score_system(runs, NAMES).estimates["ccc_valence"]
    by_run = [estimate_concordance(pair)[0] for pair in pairs]
    assert (estimate.value, estimate.mean) == pytest.approx((np.mean(by_run), np.mean(by_run)))
    assert estimate.sd == pytest.approx(np.std(by_run, ddof=1)) and estimate.low < estimate.value < estimate.high
    alone = score_system(runs[:1], NAMES).estimates["ccc_valence"]
    expected = estimate_concordance(pairs[0], runs[0].groups)
    assert (alone.value, alone.low, alone.high, alone.sd) == (*map(pytest.approx, expected), None)
    few = make_run(labels[:30], labels[:30], attributes={"valence": pairs[0][:, :30]})
    assert score_system([few], NAMES).estimates["ccc_valence"].low is None
    none = make_run(labels, labels, attributes={"valence": np.full((2, 200), np.nan)})
    assert score_system([none], NAMES).estimates["ccc_valence"].value is None
    assert "ccc_valence" not in score_system(majority_runs(runs), NAMES).estimates


def test_runs_with_other_groups_are_refused(make_run, labels):
    runs = [make_run(labels, labels), make_run(labels, labels, seed=2, group_column="speaker")]
    with pytest.raises(ValueError, match="one column of groups, and these name session, speaker"):
        score_system(runs, NAMES)


def test_the_majority_of_the_training_rows_is_answered(make_run, labels):
    counts = {0: np.array([5, 9, 1]), 1: np.array([9, 5, 1])}
    halves = {0: range(0, 100), 1: range(100, 200)}
    runs = [
        make_run(labels[rows], labels[rows], system=system, fold=fold, seed=1, rows=rows, train_counts=counts[fold])
        for system in ("rsa", "audio")
        for fold, rows in halves.items()
    ]
    baseline = majority_runs(runs)
    assert [(run.system, run.fold, run.seed) for run in baseline] == [(MAJORITY, 0, 1), (MAJORITY, 1, 1)]
    assert [set(run.predictions) for run in baseline] == [{1}, {0}]
    scores = score_system(baseline, NAMES)
    assert (scores.calibration, scores.cost) == (None, None)
    assert scores.estimates["accuracy"].value == np.r_[labels[:100] == 1, labels[100:] == 0].mean()
    # The runs it was made of are as they were.
    assert all((run.predictions == run.labels).all() for run in runs)


def test_an_ensemble_has_the_mean_probabilities_of_the_runs_that_belong_together(make_run, labels):
    runs_of = {}
    for number, (system, seeds) in enumerate({"rsa": (1, 2), "stack": (1, 2), "late": (2,)}.items()):
        runs_of[system] = [
            make_run(labels, answers_for(labels, 10 * number + seed), seed=seed, system=system) for seed in seeds
        ]
        for run in runs_of[system]:
            run.probabilities = np.random.default_rng(10 * number + run.seed).dirichlet([1, 1, 1], len(labels))
            run.seconds = 2.0
    both = ensemble_runs("both", ["rsa", "stack"], runs_of)
    assert [(run.system, run.seed, run.seconds) for run in both] == [("both", 1, 4.0), ("both", 2, 4.0)]
    for place, run in enumerate(both):
        expected = (runs_of["rsa"][place].probabilities + runs_of["stack"][place].probabilities) / 2
        assert np.allclose(run.probabilities, expected)
    assert [run.seed for run in ensemble_runs("three", ["rsa", "stack", "late"], runs_of)] == [2]
    (over_seeds,) = ensemble_runs("seeds", ["rsa"], runs_of)
    assert np.allclose(over_seeds.probabilities, np.mean([run.probabilities for run in runs_of["rsa"]], axis=0))
    assert ensemble_runs("one", ["late"], runs_of) == ensemble_runs("none", ["rsa", "missing"], runs_of) == []
    assert score_system(both, NAMES).system == "both"


def test_a_calibrated_predictor_has_no_calibration_error(make_run):
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.5, 1, 60_000)
    probabilities = np.c_[confidences, 1 - confidences]
    labels = (rng.random(60_000) > confidences).astype(int)
    calibration = calibrate([make_run(labels, probabilities, num_labels=2)])
    assert calibration.expected_calibration_error < 0.01
    assert sum(part.rows for part in calibration.bins) == 60_000 and len(calibration.bins) == NUM_BINS
    for part in calibration.bins[8:]:
        assert part.low < part.confidence <= part.high and part.accuracy == pytest.approx(part.confidence, abs=0.03)
    assert all(part.rows == 0 and part.confidence is None and part.accuracy is None for part in calibration.bins[:7])


def test_a_known_miscalibration_is_measured(make_run):
    """600 answers at .9 of which .75 are right, 400 at .6 of which .7 are: (600 * .15 + 400 * .1) / 1000."""
    confidences = np.repeat([0.9, 0.6], [600, 400])
    probabilities = np.c_[confidences, 1 - confidences]
    labels = np.repeat([0, 1, 0, 1], [450, 150, 280, 120])
    assert calibrate([make_run(labels, probabilities, num_labels=2)]).expected_calibration_error == pytest.approx(0.13)
    halves = [
        make_run(labels[start::2], probabilities[start::2], num_labels=2, fold=start, rows=range(start, 1000, 2))
        for start in (0, 1)
    ]
    assert calibrate(halves).expected_calibration_error == pytest.approx(0.13)


def test_a_bin_has_its_upper_edge(make_run):
    calibration = calibrate([make_run([0, 0], [[0.6, 0.4], [1.0, 0.0]], num_labels=2)])
    assert [(part.high, part.rows) for part in calibration.bins if part.rows] == [
        (pytest.approx(0.6), 1),
        (pytest.approx(1.0), 1),
    ]


def test_costs_are_means_over_the_runs(make_run):
    runs = [
        make_run([0], [0], seed=seed, seconds=seconds, peak_memory_bytes=2**20, parameters=100, fusion_parameters=10)
        for seed, seconds in ((1, 10.0), (2, 20.0))
    ]
    assert score_system(runs, NAMES).cost == {
        "parameters": 100,
        "fusion_parameters": 10,
        "seconds": 15,
        "peak_memory_bytes": 2**20,
    }
