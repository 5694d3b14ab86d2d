"""The answer in words: it names the best, says when nothing differs, and what the paper's protocol adds."""

import pytest

from experiments.answer import NO_VERDICT, answer
from experiments.sheets import comparisons_sheet
from tests.made_results import LONG_NAME, MARKED, make_results, make_smallest


@pytest.fixture
def results():
    return make_results()


def test_the_best_and_what_surely_differs(results):
    headline, fair, flattering, added = answer(results)
    where = "on sessions that were not trained on (protocol session), over 5 folds × 2 seeds"
    assert headline.startswith(f"{LONG_NAME} has the highest macro F1 {where}: .595 [.574, .619], ")
    assert headline.endswith(f".007 [−.012, +.029] above {MARKED}, which may be chance.")
    best = max(
        (entry for entry in results.scores if entry.protocol == "session"),
        key=lambda entry: entry.estimates["macro_f1"].value,
    )
    estimate = best.estimates["macro_f1"]
    ends = " ".join(f"{value:.3f}"[1:] for value in (estimate.value, estimate.low, estimate.high))
    assert ends in headline.replace("[", "").replace(",", "").replace("]", "")
    assert f"next come {MARKED} .587 [.566, .611] and rsa_cfn .536 [.515, .560]; always" in fair
    assert "always answering the most frequent class has .130" in fair
    assert f"of fusions 32 differ in macro F1 after Holm's correction: {LONG_NAME} is .105 above late_fusion" in fair
    assert "Surely better than audio alone: 10 of 10 fusions; than text alone: 10 of 10 fusions." in fair
    assert "never predicted by audio (predicts 2 of 7)" in fair and "majority" not in fair
    where = "on a random split whose reported rows choose the epoch (protocol paper), over 2 seeds"
    assert flattering.startswith(f"{LONG_NAME} has the highest macro F1 {where}: ")
    assert "adds +.020 macro F1" in added and "in the mean over 11 systems" in added


def test_fusions_that_do_not_differ(results):
    for pair in results.comparisons:
        pair.differences["macro_f1"].p_holm = 0.2
    assert "No pair of fusions differs in macro F1 after Holm's correction (45 pairs)" in answer(results)[1]
    assert "Surely better than audio alone: 0 of 10 fusions" in answer(results)[1]


def test_a_sure_difference_has_its_p(results):
    for pair in results.comparisons:
        pair.differences["macro_f1"].p_holm = 0.002
    assert answer(results)[0].endswith(f" above {MARKED}, surely (p .002 after Holm's correction).")


def test_one_seed_has_no_verdict(results):
    """However small its p is."""
    for pair in results.comparisons:
        pair.seeds = pair.seeds[:1]
    told, marked = answer(results), comparisons_sheet(results, "session").marked["p (Holm)"]
    assert told[0].endswith(f"above {MARKED}, {NO_VERDICT}.") and f"Fusions are ranked {NO_VERDICT}." in told[1]
    assert not marked.any() and not any(word in " ".join(told) for word in ("surely", "Surely", "chance", "differ"))


def test_a_single_session_and_a_single_protocol(results):
    for pair in results.comparisons:
        pair.differences["macro_f1"].p_holm = None
    for entry in results.flattery:
        entry.session = entry.difference = None
    results.scores = [entry for entry in results.scores if entry.protocol == "paper"]
    headline, text, added = answer(results)
    assert headline.endswith(f", {NO_VERDICT}.") and f"Fusions are ranked {NO_VERDICT}." in text
    assert "adds +.020" in added and "folds of sessions" not in added


def test_next_to_nothing():
    results = make_smallest()
    where = "on a random split whose reported rows choose the epoch (protocol paper), over 1 fold × 1 seed"
    assert answer(results) == [
        f"text has the highest macro F1 {where}: .500.",
        "Its unweighted average recall is .500.",
    ]
    results.scores = []
    assert answer(results) == ["No run has finished, so there is nothing to tell yet."]


def test_of_two_baselines_of_a_modality_the_better_one_counts(results):
    """Each fusion is counted once."""
    audio = next(system for system in results.systems if system.name == "audio")
    audio.fusion = "text"
    scores = {entry.system: entry for entry in results.scores if entry.protocol == "session"}
    assert scores["text"].estimates["macro_f1"].value > scores["audio"].estimates["macro_f1"].value
    told = answer(results)[1]
    assert "Surely better than text alone: 10 of 10 fusions." in told and "audio alone" not in told
