"""The answer in words: it names the best, says when nothing differs, and what the paper's protocol adds."""

import pytest

from experiments.answer import answer
from tests.made_results import LONG_NAME, make_results, make_smallest


@pytest.fixture
def results():
    return make_results()


def test_the_best_and_what_surely_differs(results):
    fair, flattering, added = answer(results)
    assert fair.startswith(
        f"On sessions that were not trained on (protocol session, 5 folds, 2 seeds) {LONG_NAME} has "
    )
    best = max(
        (entry for entry in results.scores if entry.protocol == "session"),
        key=lambda entry: entry.estimates["macro_f1"].value,
    )
    estimate = best.estimates["macro_f1"]
    ends = " ".join(f"{value:.3f}"[1:] for value in (estimate.value, estimate.low, estimate.high))
    assert ends in fair.replace("[", "").replace(",", "").replace("]", "")
    assert "always answering the most frequent class has .130" in fair
    assert f"of fusions 32 differ in macro F1 after Holm's correction: {LONG_NAME} is .105 above late_fusion" in fair
    assert "Surely better than audio alone: 10 of 10 fusions; than text alone: 10 of 10 fusions." in fair
    assert "never predicted by audio (predicts 2 of 7)" in fair and "majority" not in fair
    assert flattering.startswith("On a random split whose reported rows choose the epoch (protocol paper, 2 seeds) ")
    assert "adds +.020 macro F1" in added and "in the mean over 11 systems" in added


def test_fusions_that_do_not_differ(results):
    for pair in results.comparisons:
        pair.differences["macro_f1"].p_holm = 0.2
    assert "No pair of fusions differs in macro F1 after Holm's correction (45 pairs)" in answer(results)[0]
    assert "Surely better than audio alone: 0 of 10 fusions" in answer(results)[0]


def test_a_single_session_and_a_single_protocol(results):
    for pair in results.comparisons:
        pair.differences["macro_f1"].p_holm = None
    for entry in results.flattery:
        entry.session = entry.difference = None
    results.scores = [entry for entry in results.scores if entry.protocol == "paper"]
    flattering, added = answer(results)
    assert "No pair of fusions differs" in flattering
    assert "adds +.020" in added and "folds of sessions" not in added


def test_next_to_nothing():
    results = make_smallest()
    (only,) = answer(results)
    assert "1 fold, 1 seed) text has the highest macro F1, .500 (" in only
    results.scores = []
    assert answer(results) == ["No run has finished, so there is nothing to tell yet."]


def test_of_two_baselines_of_a_modality_the_better_one_counts(results):
    """Each fusion is counted once."""
    audio = next(system for system in results.systems if system.name == "audio")
    audio.fusion = "text"
    scores = {entry.system: entry for entry in results.scores if entry.protocol == "session"}
    assert scores["text"].estimates["macro_f1"].value > scores["audio"].estimates["macro_f1"].value
    told = answer(results)[0]
    assert "Surely better than text alone: 10 of 10 fusions." in told and "audio alone" not in told
