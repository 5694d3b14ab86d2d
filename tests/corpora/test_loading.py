"""Loading: columns that all parts have, IDs for rows without one, and labels of any kind as class indices."""

import pytest
from datasets import ClassLabel, Dataset

from corpora.loading import encode_labels, read_columns
from foundation.errors import InputError


def make_parts(*labels, feature=None):
    parts = [(name, Dataset.from_dict({"label": values})) for name, values in zip(("train", "test"), labels)]
    return parts if feature is None else [(name, part.cast_column("label", feature)) for name, part in parts]


def test_columns_of_all_parts_follow_each_other():
    parts = [
        ("train", Dataset.from_dict({"text": ["가", "나"], "label": [0, 1], "speaker": ["a", "b"]})),
        ("test", Dataset.from_dict({"label": [1], "text": ["다"]})),
    ]
    assert read_columns(parts, ("text", "label", "speaker", "session")) == {
        "text": ["가", "나", "다"],
        "label": [0, 1, 1],
        "part": ["train", "train", "test"],
        "segment_id": ["train/0", "train/1", "test/0"],
    }


def test_ids_are_the_datasets_own_or_numbers():
    with_ids = Dataset.from_dict({"segment_id": ["x", "y"]})
    assert read_columns([("train", with_ids)], ("segment_id",))["segment_id"] == ["x", "y"]
    pieces = [("train", Dataset.from_dict({"text": ["가", "나"]})), ("train", Dataset.from_dict({"text": ["다"]}))]
    assert read_columns(pieces, ("text",))["segment_id"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "labels, feature, expected, names",
    [
        ([1, None, -1, 0], ClassLabel(names=["up", "down"]), [1, None, None, 0], ["up", "down"]),
        (["sad", "calm", None, "sad"], None, [1, 0, None, 1], ["calm", "sad"]),
        ([2, 0, -1, None], None, [2, 0, None, None], ["LABEL_0", "LABEL_1", "LABEL_2"]),
    ],
)
def test_labels_become_indices(labels, feature, expected, names):
    parts = make_parts(labels, feature=feature)
    assert encode_labels(parts, "label", parts[0][1]["label"][:]) == (expected, names)


@pytest.mark.parametrize(
    "parts, message",
    [
        (make_parts([0.5, 1.5]), "the labels in label are of type"),
        (make_parts([0, -2]), "give class names, or indices from 0 on"),
        (make_parts([None, None]), "give class names, or indices from 0 on"),
        (
            make_parts([0, 1], feature=ClassLabel(names=["a", "b"]))
            + [("test", make_parts([0], feature=ClassLabel(names=["b", "a"]))[0][1])],
            "the parts have different classes in label: a, b and b, a",
        ),
    ],
)
def test_labels_that_cannot_be_classes(parts, message):
    with pytest.raises(InputError) as error:
        encode_labels(parts, "label", sum((part["label"][:] for _, part in parts), []))
    assert message in str(error.value)
