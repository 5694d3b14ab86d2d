"""Loading: folders as people lay them out, their paths, and why one can't be loaded."""

import io
import os
import tarfile

import pytest
from datasets import Dataset, Value

from corpora.loading import load_parts
from foundation.errors import InputError


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


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_paths_of_other_files_start_in_their_folder(speech, kind):
    folder = speech("wavs/0.wav", "wavs/1.wav")
    for part in ("train", "test"):
        rows = Dataset.from_dict({"sound": [f"wavs/{part}.wav"], "label": [1]})
        getattr(rows, f"to_{kind}")(f"{folder}/{part}.{kind}")
    parts = load_parts(folder, audio_column="sound")
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
        ("long " * 999, r"can't be loaded; .* \(OSError: .*File name too long"),
        ("a.zip", "a.zip can't be unpacked .*: unpack it, and give the folder"),
    ):
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / "x.json").write_text('{"a": 1}\n[')
        (tmp_path / "a.zip").write_bytes(b"PK\3\4")
        with pytest.raises(InputError, match=reason) as error:
            load_parts(str(tmp_path / name))
        assert "\n" not in str(error.value)
