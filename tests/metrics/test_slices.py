"""Scores of slices, against ten lines of pandas and scikit-learn."""

import numpy as np
import pandas
import pytest
from sklearn.metrics import f1_score, recall_score

from metrics.slices import divide, slice_scores


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(10, [0.5, 0.3, 0.2], 200)
    return pandas.DataFrame(
        {
            "speaker": rng.choice(list("abcde"), 200),
            "gender": rng.choice(["F", "M"], 200),
            "duration": rng.uniform(0.5, 9, 200),
            "votes": votes.tolist(),
            "label": rng.integers(3, size=200),
            "answer": rng.integers(3, size=200),
        }
    )


def test_scores_of_slices_are_those_of_their_rows(rows):
    slices = divide(rows.to_dict("list"))
    scores = slice_scores(rows.label.to_numpy(), rows.answer.to_numpy(), slices, 3)
    assert scores["by"].unique().tolist() == ["gender", "speaker", "length", "disagreement"]
    assert scores.groupby("by").rows.sum().eq(200).all()
    for name in ("gender", "speaker"):
        for value, part in rows.groupby(name):
            (found,) = scores[(scores["by"] == name) & (scores["slice"] == value)].to_dict("records")
            assert found["rows"] == len(part)
            assert found["macro_f1"] == pytest.approx(f1_score(part.label, part.answer, average="macro"))
            uar = recall_score(part.label, part.answer, average="macro")
            assert found["unweighted_average_recall"] == pytest.approx(uar)
    quarters = rows.groupby(pandas.qcut(rows.duration.round(2), 4)).size().tolist()
    assert sorted(scores[scores["by"] == "length"].rows) == sorted(quarters)
    for _, part in scores.groupby("by"):
        assert part.macro_f1.is_monotonic_increasing  # the worst first


def test_what_not_every_row_has_divides_nothing(rows):
    table = rows.to_dict("list")
    assert list(divide({"speaker": ["a"] * 200, "gender": [None, *["F"] * 199]})) == []
    assert list(divide({"duration": [0.0] * 200, "speaker": ["a", *["b"] * 199]})) == ["speaker"]
    assert list(divide({"speaker": list(map(str, range(200))), "duration": [None, *[1.0] * 199]})) == []
    assert list(divide({**table, "votes": [None, *table["votes"][1:]]})) == ["gender", "speaker", "length"]
    empty = slice_scores(rows.label.to_numpy(), rows.answer.to_numpy(), {}, 3)
    assert len(empty) == 0 and len(empty.groupby("by").macro_f1.min()) == 0
