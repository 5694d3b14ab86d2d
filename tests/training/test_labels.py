"""Targets: the class or the raters' shares, what becomes of ties, and what rare classes weigh."""

import logging

import numpy as np
import pytest
from datasets import Dataset

from foundation.errors import InputError
from metrics.raters import vote_shares
from training.labels import (
    CLASS_WEIGHTS,
    attribute_ranges,
    class_weights,
    make_targets,
    match_classes,
    sampling_weights,
    target_shares,
)


NAMES = ["neutral", "happy", "angry"]
NEUTRAL, HAPPY, ANGRY = range(3)
COLUMNS = {
    #         majority, no votes, tie with neutral, without neutral, of three, without votes, another part
    "label": [HAPPY, ANGRY, None, None, None, None, HAPPY],
    "emotions": [[HAPPY], [ANGRY], [HAPPY, NEUTRAL], [HAPPY, ANGRY], [HAPPY, ANGRY, NEUTRAL], [ANGRY, NEUTRAL], []],
    "votes": [[2, 8, 0], None, [5, 5, 0], [0, 5, 5], [3, 3, 3], [0, 0, 0], [0, 10, 0]],
}
ROWS = [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "label_target, ties, expected",
    [
        ("majority", "drop", {0: HAPPY, 1: ANGRY}),
        ("majority", "transform", {0: HAPPY, 1: ANGRY, 2: HAPPY, 5: ANGRY}),
        ("majority", "soft", {0: [0, 1, 0], 1: [0, 0, 1], 2: [0.5, 0.5, 0], 3: [0, 0.5, 0.5], 4: [1 / 3] * 3}),
        ("soft", "drop", {0: [0.2, 0.8, 0], 1: [0, 0, 1]}),
        ("soft", "transform", {0: [0.2, 0.8, 0], 1: [0, 0, 1], 2: [0, 1, 0], 5: [0, 0, 1]}),
        ("soft", "soft", {0: [0.2, 0.8, 0], 1: [0, 0, 1], 2: [0.5, 0.5, 0], 3: [0, 0.5, 0.5], 4: [1 / 3] * 3}),
    ],
)
def test_every_target(label_target, ties, expected):
    rows, targets = make_targets(COLUMNS, ROWS, NAMES, label_target, ties)
    assert rows == list(expected)
    name = "label_shares" if "soft" in (label_target, ties) else "label"
    assert targets.keys() == {name}
    for row, target in enumerate(targets[name]):
        assert target == (pytest.approx(expected[row]) if row in expected else None)


def test_the_ranges_of_attributes_are_those_of_the_rows_with_a_value():
    rows = Dataset.from_dict({"a": [2.0, None, 5.0, np.nan], "b": [-1, 0, 3, 1], "c": [4.0, None, 4.0, None]})
    assert attribute_ranges(rows, ["b", "a"]) == [[-1, 3], [2, 5]]
    assert attribute_ranges(rows, None) is None
    with pytest.raises(InputError, match="^--attributes c doesn't vary over the training rows; give columns that do$"):
        attribute_ranges(rows, ["a", "c"])


def test_soft_ties_without_a_tie_are_classes():
    rows, targets = make_targets(COLUMNS, [0, 1], NAMES, "majority", "soft")
    assert (rows, targets["label"][:2]) == ([0, 1], [HAPPY, ANGRY])


def test_what_became_of_the_ties_is_counted(caplog):
    with caplog.at_level(logging.INFO):
        make_targets(COLUMNS, ROWS, NAMES, "soft", "transform")
    assert [record.getMessage() for record in caplog.records] == [
        "2 ties train as the emotion beside neutral.",
        "2 ties are left out of training.",
        "1 rows without votes train on their one class.",
    ]


def test_only_rows_that_several_emotions_share_are_ties(caplog):
    columns = {"label": [HAPPY, None, None, None], "emotions": [[HAPPY], [HAPPY, NEUTRAL], [], None]}
    with caplog.at_level(logging.INFO):
        make_targets(columns, [0, 1, 2, 3], NAMES, "majority", "drop")
        make_targets({"label": [HAPPY, None]}, [0, 1], NAMES, "majority", "drop")
    assert [record.getMessage() for record in caplog.records] == [
        "1 ties are left out of training.",
        "2 unlabelled rows are left out of training.",
        "1 unlabelled rows are left out of training.",
    ]


def test_shares_of_votes():
    assert vote_shares([[1, 3], None, [0, 0], []], 2).tolist() == [[0.25, 0.75], [0, 0], [0, 0], [0, 0]]
    assert vote_shares(None, 2) is None


@pytest.fixture(params=["classes", "shares"])
def shares(request):
    """Targets of four rows, of the first and the last of three classes."""
    if request.param == "classes":
        return target_shares(Dataset.from_dict({"label": [0, 0, 0, 2]}), 3)
    return target_shares(Dataset.from_dict({"label_shares": [[0.9, 0, 0.1]] * 3 + [[0.2, 0, 0.8]]}), 3)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_class_weights_have_a_mean_of_1_over_the_rows(kind, shares):
    weights = np.array(class_weights(kind, shares))
    assert weights[1] == 0
    assert (shares @ weights).mean() == pytest.approx(1)
    # Each class that occurs weighs as much as any other, or nearly so while there are so few rows.
    whole = shares.sum(axis=0) * weights
    assert whole[0] == pytest.approx(whole[2], rel=1e-9 if kind == "balanced" else 2e-3)


def test_effective_weights_tell_frequent_classes_less_apart():
    """Of KEMDy20's counts, by the closed form of an effective number: the sum of beta ** i over the rows."""
    counts = np.array([11120, 1183, 156, 144, 121, 61, 43])
    numbers = np.array([(0.999 ** np.arange(count)).sum() for count in counts])
    assert CLASS_WEIGHTS["effective"](counts) == pytest.approx(1 / numbers)
    shares = np.repeat(np.eye(7), counts, axis=0)
    balanced, effective = (np.array(class_weights(kind, shares)) for kind in ("balanced", "effective"))
    assert 1 < effective[6] / effective[0] < balanced[6] / balanced[0]
    assert effective[6] / effective[5] == pytest.approx(61 / 43, rel=0.02)


def test_each_class_is_drawn_as_often_as_any_other(shares):
    weights = sampling_weights(shares)
    drawn = weights @ shares / weights.sum()
    if (shares == shares.round()).all():
        assert weights.tolist() == [1 / 3, 1 / 3, 1 / 3, 1]
        assert drawn.tolist() == pytest.approx([0.5, 0, 0.5])
    else:
        assert weights == pytest.approx([0.9 / 2.9 + 0.1 / 1.1] * 3 + [0.2 / 2.9 + 0.8 / 1.1])
        assert drawn[2] > shares.mean(axis=0)[2]


def test_classes_get_the_indices_that_a_model_has_for_them():
    columns = {"label": [0, None, 1], "emotions": [[0], [0, 1], [1]], "votes": [[9, 1], [5, 5], None]}
    match_classes(columns, ["sad", "happy"], ["happy", "neutral", "sad"])
    assert columns["label"] == [2, None, 0]
    assert columns["emotions"] == [[2], [2, 0], [0]]
    assert columns["votes"] == [[1, 0, 9], [5, 0, 5], None]


def test_a_class_without_rows_need_not_be_known():
    columns = {"label": [1, 1], "votes": [[0, 9], [1, 8]]}
    match_classes(columns, ["bored", "happy"], ["happy", "sad"])
    assert columns == {"label": [0, 0]}
    with pytest.raises(InputError, match="knows the classes happy, sad; the dataset also has bored, give one without"):
        match_classes({"label": [0, 1]}, ["bored", "happy"], ["happy", "sad"])
