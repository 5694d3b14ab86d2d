"""Reading rules of KEMDy19, each on a tiny folder that has just the fault in question."""

import csv

import numpy as np
import pytest
import soundfile

from corpora import EMOTIONS
from corpora.kemdy import COLUMNS
from corpora.kemdy19 import read_corpus
from foundation.errors import InputError
from prepare_dataset import main


RATERS = ("01F", "02F", "03F", "04F", "05M", "06M", "07M", "08F", "09F", "10F")
FIRST_HEADER = ["Numb", "Wav", "", "ECG", "", "E4-EDA", "", "E4-TEMP", "", "Segment ID", "Total Evaluation", "", ""]
SECOND_HEADER = ["", *["start", "end"] * 4, "", *["Emotion", "Valence", "Arousal"] * 11]
for rater in RATERS:
    FIRST_HEADER += [f"Eval{rater}", "", ""]


def annotation_row(segment_id, total="neutral", votes=None, start="3.5", end="4.5"):
    votes = votes or [total.split(";")[0]] * 10
    # The biosignals' times are empty where a sensor failed, which is no reason to lose the row.
    return [
        "1",
        start,
        end,
        *[""] * 6,
        segment_id,
        total,
        "3.4",
        "2.9",
        *(c for vote in votes for c in (vote, "3", "4")),
    ]


class Folder:
    """A KEMDy19 folder that is written row by row."""

    def __init__(self, path):
        self.path = path
        (path / "annotation").mkdir(parents=True)
        (path / "wav").mkdir()

    def write_csv(self, session, person, rows):
        with open(self.path / "annotation" / f"Session{session:02d}_{person}_res.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([FIRST_HEADER, SECOND_HEADER, *rows])

    def write_files(self, segment_id, text="안녕하세요."):
        folder = self.path / "wav" / f"Session{segment_id[4:6]}" / segment_id.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{segment_id}.txt").write_text(text + "\n", encoding="utf-8")
        samples = 0.5 * np.sin(np.arange(16000) / 10)
        soundfile.write(folder / f"{segment_id}.wav", samples, 16000)

    def read(self):
        return [utterance for session in read_corpus(self.path).shards for utterance in session.utterances()]


ACTRESS, ACTOR = "Sess01_impro01_F001", "Sess01_script03_M001"


@pytest.fixture
def folder(tmp_path):
    """Session 1: one segment of each person, both listed in both files."""
    folder = Folder(tmp_path / "KEMDy19")
    folder.write_csv(1, "F", [annotation_row(ACTRESS, "sad"), annotation_row(ACTOR, "angry")])
    folder.write_csv(1, "M", [annotation_row(ACTRESS, "happy"), annotation_row(ACTOR, "disgust;neutral")])
    for segment_id in (ACTRESS, ACTOR):
        folder.write_files(segment_id, f"b/ {segment_id[-4:]} 갔어*")
    return folder


def test_speakers_are_judged_and_listeners_told_apart(folder):
    utterances = folder.read()
    assert [(utterance.name, utterance.problem) for utterance in utterances] == [
        (ACTRESS, None),
        (ACTOR, "judged for the listener, not the speaker"),
        (ACTRESS, "judged for the listener, not the speaker"),
        (ACTOR, None),
    ]
    actress, actor = utterances[0].columns, utterances[3].columns
    assert (actress["label"], actress["emotions"], actress["votes"]) == ("sad", ["sad"], [0, 0, 0, 0, 10, 0, 0])
    assert (actor["label"], actor["emotions"]) == (None, ["disgust", "neutral"])
    assert (actress["session"], actress["speaker"], actress["gender"]) == (1, "Sess01F", "F")
    assert (actor["session"], actor["speaker"], actor["gender"]) == (1, "Sess01M", "M")
    assert (actress["text"], actress["raw_text"]) == ("F001 갔어", "b/ F001 갔어*")
    assert (actress["start"], actress["end"], actress["valence"], actress["arousal"]) == (3.5, 4.5, 3.4, 2.9)
    assert actress["duration"] == 1.0
    # utf-8 transcripts and the right spelling of disgust are this corpus's own.
    assert utterances[0].repairs == utterances[3].repairs == []


def test_columns_are_those_of_kemdy20(folder):
    corpus = read_corpus(folder.path)
    assert corpus.label_names == EMOTIONS
    assert corpus.columns == COLUMNS
    assert set(folder.read()[0].columns) == set(corpus.columns)


def test_rows_that_can_not_be_used(folder):
    alone = {"txt": "Sess01_script04_F016", "wav": "Sess01_script04_F015"}
    rows = [annotation_row(name) for name in alone.values()]
    for name in alone.values():
        folder.write_files(name)
    for extension, name in alone.items():
        (folder.path / "wav/Session01/Sess01_script04" / f"{name}.{extension}").unlink()
    rows += [annotation_row(ACTRESS), annotation_row(ACTRESS, "happy"), annotation_row("Sess03_impro02_F001")]
    rows += [annotation_row("Sess01_impro05_F001"), annotation_row("../../etc/F001"), annotation_row(ACTOR)]
    folder.write_csv(1, "F", rows)
    folder.write_csv(1, "M", [])
    assert [utterance.problem for utterance in folder.read()] == [
        "transcript missing",
        "audio missing",
        None,
        "duplicate Segment ID",
        "Segment ID of another session",
        "malformed Segment ID",
        "malformed Segment ID",
        "judged for the listener, not the speaker",
    ]


def test_other_files_and_missing_sessions_are_noted(folder):
    folder.write_files("Sess01_impro02_M031")
    (folder.path / "wav" / "Session01" / "Sess01_impro01" / "notes.doc").touch()
    notes = read_corpus(folder.path).notes
    assert notes["wav without a row"] == notes["txt without a row"] == ["Sess01_impro02_M031"]
    assert notes["ignored, not of the corpus"] == ["wav/Session01/Sess01_impro01/notes.doc"]
    assert notes["sessions without annotation"] == [f"Session{number:02d}" for number in range(2, 21)]


def test_other_corpora_are_refused(folder, tmp_path):
    (folder.path / "annotation" / "Session02_F_res.csv").write_text("Numb,WAV, ,Segment ID\n , , , \n")
    with pytest.raises(InputError, match="4 columns as in KEMDy20, give --corpus kemdy20"):
        read_corpus(folder.path)
    other = Folder(tmp_path / "other")
    (other.path / "annotation" / "Sess01_eval.csv").touch()
    with pytest.raises(InputError, match="look like KEMDy20, give --corpus kemdy20"):
        read_corpus(other.path)


def test_conversion(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--corpus", "kemdy19", "--corpus_dir", str(folder.path), "--output_dir", str(out)]) == 0
    assert "judged for the listener, not the speaker       2" in capsys.readouterr().out
