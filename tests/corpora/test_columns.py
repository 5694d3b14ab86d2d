"""The table of a prepared dataset: names for labels, ties and rows without a label, entropy of votes."""

import numpy as np
import pytest
from datasets import Value, load_from_disk

from corpora.columns import TIE, UNLABELLED, read_table, sizes, vote_entropy


def test_rows_of_all_splits_in_their_order(own_dataset):
    rows = read_table(own_dataset)
    assert list(rows["split"]) == ["train"] * 3 + ["test"] * 2
    assert list(rows["label"]) == ["calm", "calm", "up|set <b>", "happy", UNLABELLED]
    assert list(rows["label"].cat.categories) == ["calm", "happy", "up|set <b>", UNLABELLED]
    assert set(rows) == {"split", "label", "duration"}
    assert sizes(rows) == ["5 rows", "0.2 minutes"]


def test_a_tie_is_no_missing_label(prepared_dir):
    dataset = load_from_disk(prepared_dir)
    rows, names = read_table(dataset), dataset["train"].features["label"].names
    for row, (_, read) in zip(dataset["train"], rows.iterrows(), strict=True):
        assert read["emotions"] == row["emotions"]
        assert read["label"] == (names[row["emotions"][0]] if len(row["emotions"]) == 1 else TIE)
    assert (rows["label"] == TIE).any() and UNLABELLED not in rows["label"].cat.categories


def test_a_column_with_nothing_in_it_is_absent(own_dataset):
    dataset = own_dataset.map(lambda row: {"session": None, "speaker": row["segment_id"]}, remove_columns="audio")
    dataset = dataset.cast_column("session", Value("int32"))
    rows = read_table(dataset)
    assert "session" not in rows and sizes(rows)[-1] == "5 speakers"


def test_a_negative_label_is_none(own_dataset):
    dataset = own_dataset.map(lambda row: {"label": -1}, remove_columns="audio")
    assert set(read_table(dataset)["label"]) == {UNLABELLED}


def test_vote_entropy():
    votes = np.array([[10, 0, 0], [5, 5, 0], [2, 1, 1], [4, 4, 4]])
    assert vote_entropy(votes) == pytest.approx([0, 1, 1.5, np.log2(3)])
