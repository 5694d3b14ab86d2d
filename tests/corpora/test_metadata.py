"""A folder of one's own: which rows of its csv are used, and what is said of the others."""

import csv
import io

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Value, load_from_disk

from corpora import EMOTIONS
from corpora.metadata import read_corpus
from foundation.errors import InputError
from prepare_dataset import main, prepare


def sine(seconds, rate, channels=1):
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    return np.stack([samples] * channels, axis=1)


class Folder:
    """Recordings and a csv that names them."""

    def __init__(self, path):
        self.path = path
        path.mkdir()

    def write_audio(self, name, seconds=1.0, rate=16000, channels=1, **options):
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.path / name, sine(seconds, rate, channels), rate, **options)

    def write_csv(self, rows, header=("path", "text", "label"), encoding="utf-8", delimiter=",", name="metadata.csv"):
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows([header, *rows])
        (self.path / name).write_bytes(text.getvalue().encode(encoding))
        return self.path / name

    def read(self, name="metadata.csv"):
        return [utterance for shard in read_corpus(self.path / name).shards for utterance in shard.utterances()]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "speech")


def test_any_format_rate_and_number_of_channels(folder, tmp_path):
    kinds = {
        "a/one.wav": {"rate": 44100, "channels": 2},
        "a/two.flac": {"rate": 8000},
        "b/three.ogg": {"rate": 48000, "channels": 2},
        "b/four.mp3": {"rate": 22050, "format": "MP3"},
        "five.wav": {},
    }
    for name, options in kinds.items():
        folder.write_audio(name, **options)
    header = ("Path", "text", "label", "speaker", "session", "age")
    metadata = folder.write_csv([(name, f"말 {name}", "bored", "kim", "s1", "30") for name in kinds], header)
    report = prepare("csv", None, tmp_path / "out", metadata_file=metadata)
    rows = load_from_disk(tmp_path / "out")["train"]
    assert rows["segment_id"][:] == list(kinds)
    assert rows.features["label"] == ClassLabel(names=["bored"]) and rows.features["session"] == Value("string")
    assert rows.column_names == ["audio", "text", "label", "segment_id", "session", "speaker", "duration"]
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert rate == 16000 and samples.ndim == 1
        assert len(samples) / rate == pytest.approx(row["duration"]) == pytest.approx(1.0, abs=0.1)
        peak = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)
        assert peak == pytest.approx(440, abs=3)
        assert (row["text"], row["speaker"], row["session"]) == (f"말 {row['segment_id']}", "kim", "s1")
    assert rows[4]["audio"]["bytes"] == (folder.path / "five.wav").read_bytes()
    assert report["notes"] == {"columns of the csv not used": ["age"]}


def test_splits_of_the_csv_become_splits_of_the_dataset(folder, tmp_path):
    names = [f"{index}.wav" for index in range(5)]
    for name in names:
        folder.write_audio(name)
    splits = ("train", "Test", "dev", "train", "")
    metadata = folder.write_csv(
        [(name, "말", emotion, split) for name, emotion, split in zip(names, EMOTIONS, splits)],
        header=("path", "text", "label", "split"),
    )
    report = prepare("csv", None, tmp_path / "out", metadata_file=metadata)
    dataset = load_from_disk(tmp_path / "out")
    assert {split: rows["segment_id"][:] for split, rows in dataset.items()} == {
        "train": ["0.wav", "3.wav"],
        "validation": ["2.wav"],
        "test": ["1.wav"],
    }
    # All seven in the model's order, though only five occur.
    assert dataset["train"].features["label"].names == list(EMOTIONS)
    assert (report["rows_read"], report["rows_written"], report["rows_skipped"]) == (5, 4, 1)


def test_rows_that_can_not_be_used(folder, tmp_path):
    folder.write_audio("good.wav")
    (folder.path / "bad.wav").write_text("no sound")
    (tmp_path / "outside.wav").write_bytes((folder.path / "good.wav").read_bytes())
    (folder.path / "link.wav").symlink_to(tmp_path / "outside.wav")
    (folder.path / "dangling.wav").symlink_to(tmp_path / "nowhere.wav")
    folder.write_csv(
        [
            ("good.wav", " 두  칸 ", "a"),
            ("./good.wav", "말", "a"),
            ("", "", ""),
            ("", "말", "a"),
            ("gone.wav", "말", "a"),
            ("dangling.wav", "말", "a"),
            ("bad.wav", "말", "a"),
            ("good.wav", "말"),
            ("link.wav", "", "b"),
            ("link.wav", "말", ""),
            ("../outside.wav", "말", "a"),
            ("a/../../outside.wav", "말", "a"),
            (str(tmp_path / "outside.wav"), "말", "a"),
        ]
    )
    utterances = folder.read()
    assert [utterance.problem for utterance in utterances] == [
        None,
        "duplicate path",
        "blank row",
        "path missing",
        "audio missing",
        "audio missing",
        "audio format not supported (convert with ffmpeg)",
        "row is not as wide as the header",
        None,
        "label missing",
        *["path leaves the folder of the recordings"] * 3,
    ]
    assert utterances[2].name == "line 4"
    assert utterances[0].columns["text"] == "두 칸"
    assert utterances[8].repairs == ["transcript is blank, text left empty"]


def test_sessions_are_numbers_only_where_all_are(folder):
    folder.write_audio("a.wav")
    folder.write_audio("b.wav")
    for sessions, numbered in ((("10", "2"), True), (("10", "x"), False), (("01", "1"), False)):
        folder.write_csv(zip(("a.wav", "b.wav"), "말말", "ab", sessions), ("path", "text", "label", "session"))
        assert read_corpus(folder.path / "metadata.csv").has_numbered_sessions == numbered
        expected = [int(name) if numbered else name for name in sessions]
        assert [utterance.columns["session"] for utterance in folder.read()] == expected


def test_spreadsheets_in_cp949_and_tab_separated_files(folder):
    folder.write_audio("a.wav")
    folder.write_csv([("a.wav", "쉼표, 있다", "기쁨")], encoding="cp949")
    assert folder.read()[0].columns["text"] == "쉼표, 있다"
    assert read_corpus(folder.path / "metadata.csv").notes == {"csv read as cp949": ["metadata.csv"]}
    folder.write_csv([("a.wav", "말, 말", "기쁨")], encoding="utf-8-sig", delimiter="\t", name="metadata.tsv")
    assert folder.read("metadata.tsv")[0].columns["text"] == "말, 말"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"file,text\n", "has no column named path and none named label, only file, text: give a header with"),
        (b"", "has no column named path and none named text and none named label, only none"),
        (b"path,text,label,text\n", "has several columns named text"),
        (b"path,text,label\n\xff\xff,\xff,\xff\n", "is neither utf-8 nor cp949"),
        (None, "can't be read (No such file or directory): give a csv"),
    ],
)
def test_what_is_no_csv_is_refused(folder, content, message):
    if content is not None:
        (folder.path / "metadata.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_corpus(folder.path / "metadata.csv")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_arguments_that_do_not_go_together(folder, tmp_path, capsys):
    folder.write_audio("a.wav")
    metadata = str(folder.write_csv([("a.wav", "말", "a")]))
    out = ["--output_dir", str(tmp_path / "out")]
    for arguments, message in (
        (["--corpus", "csv"], "--metadata is missing: give a csv"),
        (["--corpus", "demo", "--metadata", metadata], "--metadata has no use with --corpus demo"),
        (["--corpus", "csv", "--metadata", metadata, "--corpus_dir", "no"], "--corpus_dir no is not a folder"),
    ):
        assert main([*arguments, *out]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
