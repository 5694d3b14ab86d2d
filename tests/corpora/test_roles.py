"""Roles: columns of any kind become the type of their role or are refused in one line, and labels become classes."""

import math
import unicodedata

import pytest
from datasets import Audio, ClassLabel, Dataset, Features, List, Value

from corpora.roles import check_column, encode_labels, read_columns
from foundation.errors import InputError


NAN = math.nan
EMOTIONS = ClassLabel(names=["sad", "calm"])


def make_parts(*columns, **features):
    """Parts of one column each, whose values are those of `label`, or a dict of several."""
    columns = [column if isinstance(column, dict) else {"label": column} for column in columns]
    parts = [Dataset.from_dict(column) for column in columns]
    for name, feature in features.items():
        parts = [part.cast_column(name, feature) for part in parts]
    return list(zip(("train", "test"), parts))


def read(role, *values, **features):
    return read_columns(make_parts(*({role: part} for part in values), **features), [role])[role]


def encode(*parts, **features):
    parts = make_parts(*parts, **features)
    columns = read_columns(parts, ("label", "emotions", "votes"))
    names = encode_labels(parts, columns)
    return names, columns


def test_columns_of_all_parts_follow_each_other():
    parts = make_parts({"text": ["가", "나"], "label": [0, 1], "speaker": ["a", "b"]}, {"label": [1], "text": ["다"]})
    assert read_columns(parts, ("text", "label", "speaker", "session")) == {
        "text": ["가", "나", "다"],
        "label": [0, 1, 1],
        "part": ["train", "train", "test"],
        "segment_id": ["train/0", "train/1", "test/0"],
    }


def test_ids_are_the_datasets_own_or_numbers():
    assert read("segment_id", ["x", None, "y"]) == ["x", "1", "y"]
    pieces = [("train", Dataset.from_dict({"text": ["가", "나"]})), ("train", Dataset.from_dict({"text": ["다"]}))]
    assert read_columns(pieces, ("text",))["segment_id"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "role, parts, expected",
    [
        ("text", [[" 네\u200b. ", None, "None", ""]], ["네.", None, "None", ""]),
        ("text", [[112, 7]], ["112", "7"]),
        ("text", [[112.0, NAN, 0.5]], ["112", None, "0.5"]),
        ("session", [[3.0, NAN, 12.0]], [3, None, 12]),
        ("speaker", [[unicodedata.normalize("NFD", "가"), "", "nan", "01", "1"]], ["가", None, None, "01", "1"]),
        # csv files of one dataset, of which only the second names a speaker by a letter.
        ("speaker", [[7, 10], ["7", "b"]], ["7", "10", "7", "b"]),
        ("speaker", [[None, None], [7, None]], [None, None, 7, None]),
    ],
)
def test_values_become_the_type_of_their_role(role, parts, expected):
    assert read(role, *parts) == expected


def test_named_speakers_have_their_names():
    assert read("speaker", [1, 0, -1], speaker=ClassLabel(names=["kim", "lee"])) == ["lee", "kim", None]


@pytest.mark.parametrize(
    "role, values, found",
    [
        ("text", [["가", "나"]], "values of type list of string"),
        ("text", [True], "values of type bool"),
        ("text", [b"abc"], "values of type binary"),
        ("label", [[1, 0]], "values of type list of int"),
        ("label", [{"name": "sad"}], "values of type dict of name"),
        ("label", [0.5, 1.0], "0.5"),
        ("label", [0, -2], "-2"),
        ("label", [math.inf], "inf"),
        ("session", [[1]], "values of type list of int"),
        ("session", [1.5], "1.5"),
        ("votes", ["many"], "values of type string"),
        ("emotions", [["sad"]], "values of type list of string"),
    ],
)
def test_what_no_role_can_have_is_refused_in_one_line(role, values, found):
    with pytest.raises(InputError) as error:
        read(role, values)
    assert str(error.value).startswith(f"column {role} holds {found}; give ") and "\n" not in str(error.value)
    with pytest.raises(InputError, match=f"^--column mine holds {found[:6]}".replace("[", r"\[")):
        read_columns(make_parts({role: values}), {role: "--column mine"})


def test_what_a_recording_can_be():
    encoded = {"bytes": Value("binary"), "path": Value("string")}
    samples = {"array": List(Value("float32")), "sampling_rate": Value("int64")}
    for feature in (Value("string"), Value("large_binary"), Audio(decode=False), encoded, samples):
        check_column("audio", Features({"audio": feature})["audio"], "--audio_column_name audio")
    for feature in (Value("int64"), List(Value("float32")), EMOTIONS, {"rate": Value("int64")}):
        with pytest.raises(
            InputError, match="^--audio_column_name audio holds values of type .*; give recordings: paths"
        ):
            check_column("audio", Features({"audio": feature})["audio"], "--audio_column_name audio")


@pytest.mark.parametrize(
    "labels, names, expected",
    [
        (["sad", "calm", None, "sad"], ["calm", "sad"], [1, 0, None, 1]),
        (["sad ", "", "None", "nan", "\ufeffsad"], ["sad"], [0, None, None, None, 0]),
        ([unicodedata.normalize(form, "기쁨") for form in ("NFC", "NFD")], ["기쁨"], [0, 0]),
        ([2, 0, -1, None], ["LABEL_0", "LABEL_1", "LABEL_2"], [2, 0, None, None]),
        ([2.0, NAN, 0.0], ["LABEL_0", "LABEL_1", "LABEL_2"], [2, None, 0]),
        ([True, False, None], ["False", "True"], [1, 0, None]),
        (["1", "0"], ["0", "1"], [1, 0]),
    ],
)
def test_labels_become_indices(labels, names, expected):
    assert encode(labels)[0] == names
    assert encode(labels)[1]["label"] == expected


def test_a_class_label_keeps_its_order_and_classes_without_rows():
    names, columns = encode([1, None, -1], [1], label=EMOTIONS)
    assert (names, columns["label"]) == (["sad", "calm"], [1, None, None, 1])


def test_class_labels_that_differ_are_matched_by_name():
    """With the raters' choices and votes, which count classes in the order of their own part."""
    raters = {"label": [0], "emotions": [[0, 1]], "votes": [[7, 3]]}
    parts = [
        ("train", Dataset.from_dict(raters).cast_column("label", EMOTIONS)),
        ("test", Dataset.from_dict(raters).cast_column("label", ClassLabel(names=["angry", "sad"]))),
    ]
    columns = read_columns(parts, ("label", "emotions", "votes"))
    assert encode_labels(parts, columns) == ["sad", "calm", "angry"]
    assert columns["label"] == [0, 2]
    assert columns["emotions"] == [[0, 1], [2, 0]]
    assert columns["votes"] == [[7, 3, 0], [3, 0, 7]]


def test_names_in_words_join_those_of_a_class_label():
    parts = [make_parts([1, 0], label=EMOTIONS)[0], ("test", Dataset.from_dict({"label": ["calm", "angry"]}))]
    columns = read_columns(parts, ["label"])
    assert encode_labels(parts, columns) == ["sad", "calm", "angry"]
    assert columns["label"] == [1, 0, 1, 2]


def test_classes_that_differ_in_case_are_warned_of(caplog):
    assert encode(["Happy", "sad", "happy"])[0] == ["Happy", "happy", "sad"]
    assert "Happy and happy are two classes; if they are meant to be one, write them alike" in caplog.text


@pytest.mark.parametrize(
    "parts, message",
    [
        (
            [[0, 6, 3000]],
            "column label holds the number 3000, and only 3 different ones; give one class in each row",
        ),
        ([[None, None]], "column label holds nothing; give one class in each row"),
        ([[0, 1], ["sad", "calm"]], "column label holds names in one part and numbers in another; give names in all"),
        ([{"label": ["a", "b"], "votes": [[1, 2], [3]]}], "columns emotions and votes don't fit 2 classes"),
        ([{"label": ["a", "b"], "emotions": [[0], [2]]}], "columns emotions and votes don't fit 2 classes"),
    ],
)
def test_labels_that_cannot_be_classes(parts, message):
    with pytest.raises(InputError) as error:
        encode(*parts)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
