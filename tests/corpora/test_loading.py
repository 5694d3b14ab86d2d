"""Loading: folders as people lay them out, columns that all parts have, IDs for rows without one, and labels of any
kind as class indices."""

import io
import os
import tarfile

import pytest
from datasets import ClassLabel, Dataset, IterableDataset, Value

from corpora.loading import encode_labels, load_parts, read_columns
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


@pytest.fixture
def speech(tmp_path):
    """A function that makes empty files and others with a content, and gives their folder."""

    def speech(*names, **contents):
        for name in names:
            (tmp_path / "speech" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "speech" / name).touch()
        for name, content in contents.items():
            (tmp_path / "speech" / name.replace("_", ".")).write_text(content, encoding="utf-8")
        return str(tmp_path / "speech")

    return speech


def test_paths_start_in_the_folder_of_their_table(speech):
    names = [f"wavs/{index}.wav" for index in range(3)]
    folder = speech(
        *names, train_csv="audio;text;label\nwavs/0.wav;1;0\nwavs/1.wav;01;\n", test_csv="audio\n../x.wav\n"
    )
    parts = load_parts(folder)
    assert parts["train"]["audio"][:] == [os.path.join(folder, name) for name in names[:2]]
    # Numbers only where nothing is lost by that.
    assert (parts["train"]["text"][:], parts["train"]["label"][:]) == (["1", "01"], [0, None])
    assert parts["test"]["audio"][:] == [os.path.join(folder, "../x.wav")]


@pytest.mark.parametrize("kind, streaming", [("parquet", False), ("parquet", True), ("json", False)])
def test_paths_of_other_files_start_in_their_folder(speech, kind, streaming):
    folder = speech("wavs/0.wav", "wavs/1.wav")
    for part in ("train", "test"):
        rows = Dataset.from_dict({"sound": [f"wavs/{part}.wav"], "label": [1]})
        getattr(rows, f"to_{kind}")(f"{folder}/{part}.{kind}")
    parts = load_parts(folder, streaming=streaming, audio_column="sound")
    assert isinstance(parts["test"], IterableDataset if streaming else Dataset)
    assert {part: next(iter(rows)) for part, rows in parts.items()} == {
        part: {"sound": f"{folder}/wavs/{part}.wav", "label": 1} for part in ("train", "test")
    }
    assert parts["test"].features["sound"] == Value("string")


def test_audiofolder_needs_no_torchcodec(speech):
    lines = '{"file_name": "a/0.wav", "votes": [1, 2]}\n\n{"file_name": ""}\n{"file_name": [1]}\nno object\n'
    folder = speech("train/a/0.wav", "test/a/0.wav", metadata_jsonl=lines)
    (train,) = load_parts(folder).values()
    assert train["audio"][:] == [f"{folder}/a/0.wav", None] and train["votes"][:] == [[1, 2], None]
    os.remove(f"{folder}/metadata.jsonl")
    parts = load_parts(folder)
    assert {part: rows[0] for part, rows in parts.items()} == {
        part: {"segment_id": f"{part}/a/0.wav", "label": "a", "split": part, "audio": f"{folder}/{part}/a/0.wav"}
        for part in ("train", "test")
    }


def test_webdataset_is_read_from_its_tars(tmp_path):
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}-000.tar", "w") as tar:
            for name, content in (("0.wav", part), ("0.txt", "말"), ("0.json", '{"label": "sad", "speaker": "s"}')):
                member = tarfile.TarInfo(name)
                member.size = len(content.encode())
                tar.addfile(member, io.BytesIO(content.encode()))
    for part, rows in load_parts(str(tmp_path)).items():
        assert (rows["text"][:], rows["label"][:], rows["speaker"][:]) == (["말"], ["sad"], ["s"])
        assert rows["segment_id"][:] == [f"{part}-000/0.wav"] and open(rows["audio"][0]).read() == part


def test_why_a_dataset_cant_be_loaded_is_said_in_a_line(speech, tmp_path):
    for name in ("demo", "kemdy20"):
        speech(f"{name}/dataset_dict.json")
    for name, reason in (
        ("speech", "speech holds datasets and is none itself: give .*speech/demo or .*speech/kemdy20"),
        ("broken", r"broken can't be loaded; .* \(ArrowInvalid: JSON parse error"),
        ("a.zip", "a.zip can't be unpacked .*: unpack it, and give the folder"),
    ):
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / "x.json").write_text('{"a": 1}\n[')
        (tmp_path / "a.zip").write_bytes(b"PK\3\4")
        with pytest.raises(InputError, match=reason) as error:
            load_parts(str(tmp_path / name))
        assert "\n" not in str(error.value)
