"""Targets: the class or the raters' shares, what becomes of ties, and what rare classes weigh."""

import logging

import numpy as np
import pytest
from datasets import Dataset

from training.labels import balanced_class_weights, make_targets, target_shares, vote_shares


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


def test_shares_of_votes():
    assert vote_shares([[1, 3], None, [0, 0], []], 2).tolist() == [[0.25, 0.75], [0, 0], [0, 0], [0, 0]]
    for unfit in (None, ["two", "one"], [[1, 2, 3]], [[1, 2], [1]], [1, 2]):
        assert vote_shares(unfit, 2) is None


@pytest.mark.parametrize(
    "train",
    [
        Dataset.from_dict({"label": [0, 0, 0, 2]}),
        Dataset.from_dict({"label_shares": [[0.9, 0, 0.1]] * 3 + [[0.2, 0, 0.8]]}),
    ],
)
def test_balanced_class_weights_have_a_mean_of_1_over_the_rows(train):
    shares = target_shares(train, 3)
    weights = np.array(balanced_class_weights(shares))
    assert weights[1] == 0
    assert (shares @ weights).mean() == pytest.approx(1)
    # Each class that occurs weighs as much as any other.
    assert shares.sum(axis=0)[0] * weights[0] == pytest.approx(shares.sum(axis=0)[2] * weights[2])
