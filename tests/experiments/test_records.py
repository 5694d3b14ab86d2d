"""Results as DataFrames: the numbers are the dataclasses' own, and a pair is there from both sides."""

import pytest

from experiments.records import from_both_sides, pair_frame, run_frame, system_frame
from experiments.results import PAPER, SESSION
from metrics.scores import SCORES
from tests.made_results import MARKED, make_results, make_smallest


@pytest.fixture(scope="module")
def results():
    return make_results()


def test_systems_have_every_number(results):
    records = system_frame(results).set_index(["system", "protocol"])
    assert len(records) == 2 * len(results.systems)
    for scores in results.scores:
        record = records.loc[scores.system, scores.protocol]
        for name in SCORES:
            estimate = scores.estimates[name]
            expected = [estimate.value, estimate.low, estimate.high, estimate.mean, estimate.sd]
            assert [record[name + suffix] for suffix in ("", "_low", "_high", "_mean", "_sd")] == expected
        for entry in scores.classes:
            names = ("f1", "recall", "rows", "predicted")
            assert all(record[f"{name}_{entry['name']}"] == entry[name] for name in names)
        assert (record["runs"], record["rows"], record["state"]) == (scores.num_runs, scores.num_rows, "finished")
    assert records.loc["audio", SESSION].predicted_classes == 2
    assert records.loc["rsa_cfn", PAPER].published_weighted_f1 == 0.89254
    failed = records.loc[MARKED, PAPER]
    assert (failed.state, failed.failed_runs, failed.macro_f1) == ("failed", 2, None)


def test_runs_have_their_scores_and_errors(results):
    for run, record in zip(results.runs, run_frame(results).to_dict("records"), strict=True):
        assert record["command"] == run.command and record["error"] == run.error
        assert {name: record[name] for name in run.scores} == run.scores
        assert {name: record[f"last_epoch_{name}"] for name in run.last_epoch} == run.last_epoch


def test_a_difference_is_there_from_both_sides(results):
    pairs = from_both_sides(pair_frame(results, SESSION)).set_index(["first", "second"])
    assert len(pairs) == 2 * 66
    there, back = (pairs.loc[pair] for pair in (("rsa", "text"), ("text", "rsa")))
    assert there.value == -back.value > 0 and there.p_holm == back.p_holm
    assert (there.low, there.high) == (-back.high, -back.low)
    assert there.first_is_fusion and not there.second_is_fusion and back.second_is_fusion
    assert pair_frame(make_smallest(), PAPER).empty
