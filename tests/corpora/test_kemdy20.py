"""Reading rules of KEMDy20, each on a tiny folder that has just the fault in question.
Sound files are sines, so that pitch and length can be told after a conversion."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configuration_rsa_cfn import EMOTIONS
from corpora import kemdy
from corpora.kemdy_layouts import KEMDY20
from corpora.transcripts import remove_tags
from foundation.errors import InputError


RATERS = ("01F", "02M", "03M", "04F", "05M", "06F", "07F", "08M", "09F", "10M")
FIRST_HEADER = ["Numb", "WAV", " ", "Segment ID", "Total Evaluation", " ", " "]
SECOND_HEADER = [" ", "start", "end", " "] + ["Emotion", "Valence", "Arousal"] * 11
for rater in RATERS:
    FIRST_HEADER += [f"Eval{rater}", " ", " "]


def annotation_row(segment_id, total="neutral", ratings=None, valence="3.4", arousal="2.9", start="3.5", end="4.5"):
    ratings = ratings or [total.split(";")[0]] * 10
    return ["1", start, end, segment_id, total, valence, arousal, *(c for label in ratings for c in (label, "3", "4"))]


def sine(seconds=1.0, rate=16000, pitch=440.0):
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


class Folder:
    """A KEMDy20 folder that is written row by row."""

    def __init__(self, path):
        self.path = path
        (path / "annotation").mkdir(parents=True)
        (path / "wav").mkdir()

    def write_csv(self, session, rows, encoding="utf-8", newline="\n"):
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=newline).writerows([FIRST_HEADER, SECOND_HEADER, *rows])
        file = self.path / "annotation" / f"Sess{session:02d}_eval.csv"
        file.write_bytes(text.getvalue().encode(encoding))
        return file

    def write_files(self, segment_id, text="안녕하세요.\n", samples=None, rate=16000, **wav_options):
        folder = self.path / "wav" / f"Session{segment_id[4:6]}"
        folder.mkdir(exist_ok=True)
        (folder / f"{segment_id}.txt").write_bytes(text if isinstance(text, bytes) else text.encode("cp949"))
        wav = folder / f"{segment_id}.wav"
        soundfile.write(wav, sine() if samples is None else samples, rate, format="WAV", **wav_options)
        return wav

    def read(self):
        return [
            utterance for session in kemdy.read_corpus(self.path, KEMDY20).shards for utterance in session.utterances()
        ]


ID = "Sess01_script01_User001F_001"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "KEMDy20_v1_1")


@pytest.fixture
def one_row(folder):
    """A folder with one sound row; a test damages it and calls `read`."""
    folder.write_csv(1, [annotation_row(ID)])
    folder.wav = folder.write_files(ID)
    folder.txt = folder.wav.with_suffix(".txt")
    return folder


def only(utterances):
    assert len(utterances) == 1
    return utterances[0]


def test_columns_of_a_sound_row(folder):
    ratings = ["happy"] * 4 + ["neutral"] * 3 + ["disqust", "fear", "sad"]
    folder.write_csv(7, [annotation_row("Sess07_script03_User014M_012", "happy", ratings)])
    wav = folder.write_files("Sess07_script03_User014M_012", "n/ 아/ 친구*, 1월?  l/\n")
    utterance = only(folder.read())
    assert utterance.problem is None and utterance.repairs == []
    assert utterance.columns == {
        "audio": {"bytes": wav.read_bytes(), "path": "Sess07_script03_User014M_012.wav"},
        "text": "아 친구, 1월?",
        "raw_text": "n/ 아/ 친구*, 1월?  l/",
        "label": "happy",
        "emotions": ["happy"],
        "votes": [3, 4, 0, 0, 1, 1, 1],
        "valence": 3.4,
        "arousal": 2.9,
        "segment_id": "Sess07_script03_User014M_012",
        "session": 7,
        "speaker": "User014M",
        "gender": "M",
        "dialogue": "Sess07_script03",
        "start": 3.5,
        "end": 4.5,
        "duration": 1.0,
    }


@pytest.mark.parametrize(
    ("total", "label", "emotions"),
    [
        ("disqust", "disgust", ["disgust"]),
        ("Happy", "happy", ["happy"]),
        ("happy;neutral", None, ["happy", "neutral"]),
        ("angry;neutral;disqust", None, ["angry", "neutral", "disgust"]),
        ("sad;", "sad", ["sad"]),
    ],
)
def test_winners_come_from_the_total_and_ties_have_no_label(one_row, total, label, emotions):
    one_row.write_csv(1, [annotation_row(ID, total)])
    columns = only(one_row.read()).columns
    assert (columns["label"], columns["emotions"]) == (label, emotions)


def test_spelling_disgust_is_understood_and_told(one_row):
    one_row.write_csv(1, [annotation_row(ID, "disgust", ["disgust"] * 6 + ["disqust"] * 4)])
    utterance = only(one_row.read())
    assert utterance.columns["label"] == "disgust"
    assert utterance.columns["votes"][EMOTIONS.index("disgust")] == 10
    assert utterance.repairs == ["total label spelled disgust, not disqust", "rater label spelled disgust, not disqust"]


def test_rows_come_in_the_order_of_session_and_file(folder):
    for session in (10, 2):
        ids = [f"Sess{session:02d}_script0{script}_User001F_001" for script in (3, 1, 2)]
        folder.write_csv(session, [annotation_row(name) for name in ids])
        for name in ids:
            folder.write_files(name)
    names = [utterance.columns["segment_id"][:15] for utterance in folder.read()]
    expected = ["Sess02_script03", "Sess02_script01", "Sess02_script02"]
    assert names == expected + [name.replace("Sess02", "Sess10") for name in expected]


def test_session_comes_from_the_file_name(folder):
    folder.write_csv(17, [annotation_row("Sess42_script01_User033M_001")])
    folder.write_files("Sess17_script01_User033M_001")
    utterance = only(folder.read())
    assert utterance.columns["segment_id"] == "Sess17_script01_User033M_001"
    assert utterance.columns["session"] == 17
    assert utterance.repairs == ["Segment ID prefix corrected"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([" "] * 37, "blank row"),
        ([], "blank row"),
        (annotation_row(""), "blank row"),
        (annotation_row(ID, " "), "blank row"),
        (annotation_row(ID)[:6], "row has fewer than 7 cells"),
        (annotation_row("Sess01_script07_User001F_001"), "malformed Segment ID"),
        (annotation_row(ID + "b"), "malformed Segment ID"),
        (annotation_row(ID, "happy;bored"), "unknown emotion in Total Evaluation"),
    ],
)
def test_rows_that_can_not_be_used(one_row, row, problem):
    second = "Sess01_script02_User002M_001"
    one_row.write_csv(1, [row, annotation_row(second)])
    one_row.write_files(second)
    utterances = one_row.read()
    assert [utterance.problem for utterance in utterances] == [problem, None]
    assert utterances[0].columns is None and utterances[0].name


def test_first_of_duplicate_rows_is_kept(one_row):
    one_row.write_csv(1, [annotation_row(ID), annotation_row(ID, "sad"), annotation_row("Sess09" + ID[6:])])
    utterances = one_row.read()
    assert [utterance.problem for utterance in utterances] == [None, "duplicate Segment ID", "duplicate Segment ID"]
    assert utterances[0].columns["label"] == "neutral"


def test_row_copied_into_another_session_is_a_duplicate_there(one_row):
    second = "Sess02_script01_User003F_001"
    one_row.write_csv(1, [annotation_row(ID), annotation_row(second)])
    one_row.write_csv(2, [annotation_row(second)])
    one_row.write_files(second)
    assert [(u.name, u.problem) for u in one_row.read()] == [
        (ID, None),
        (second, "duplicate Segment ID"),
        (second, None),
    ]


def test_labels_and_numbers_that_are_not_understood(one_row):
    ratings = ["sad"] * 7 + ["bored", "", "happy"]
    one_row.write_csv(1, [annotation_row(ID, "sad", ratings, valence="x", arousal="", start="nan", end="0:03")])
    utterance = only(one_row.read())
    assert sum(utterance.columns["votes"]) == 8
    assert [utterance.columns[name] for name in ("valence", "arousal", "start", "end")] == [None] * 4
    assert utterance.repairs == [
        "unknown rater label not counted",
        "missing rater label not counted",
        *(f"{name} is not a number, left null" for name in ("valence", "arousal", "start", "end")),
    ]


def test_row_without_rater_cells_has_no_votes(one_row):
    one_row.write_csv(1, [annotation_row(ID)[:7]])
    utterance = only(one_row.read())
    assert utterance.columns["votes"] == [0] * 7
    assert utterance.repairs == ["missing rater label not counted"]


def test_byte_order_mark_crlf_and_blanks_around_cells(one_row):
    one_row.write_csv(1, [annotation_row(f" {ID} ", " sad ")], encoding="utf-8-sig", newline="\r\n")
    notes = kemdy.read_corpus(one_row.path, KEMDY20).notes
    assert notes["csv with a byte order mark"] == notes["csv with CRLF line ends"] == ["Sess01_eval.csv"]
    utterance = only(one_row.read())
    assert (utterance.columns["segment_id"], utterance.columns["label"]) == (ID, "sad")
    assert utterance.repairs == ["blanks around cells removed"]


@pytest.mark.parametrize(
    ("content", "text", "repairs"),
    [
        ("똠방각하, 펲시.\n".encode("cp949"), "똠방각하, 펲시.", []),
        (b"OK?\n", "OK?", []),
        ("가요.\r\n".encode("utf-8-sig"), "가요.", ["transcript read as utf-8"]),
        ("갔다.\r\n\r\n왔다.\n".encode("cp949"), "갔다. 왔다.", ["lines of the transcript joined"]),
        ("가".encode("cp949") + b"\xff!", "가\ufffd!", ["undecodable bytes replaced"]),
        (b"n/ l/\n", "", ["transcript holds only tags, text left empty"]),
    ],
)
def test_transcripts(one_row, content, text, repairs):
    one_row.txt.write_bytes(content)
    utterance = only(one_row.read())
    assert (utterance.columns["text"], utterance.repairs) == (text, repairs)


@pytest.mark.parametrize(
    ("raw_text", "text"),
    [
        ("c/ 네 n/ N/ u/ l/ b/", "네"),
        ("아/ 그+ 그거* 맞아", "아 그 그거 맞아"),
        ("CNN/ TV를 봤어", "CNN TV를 봤어"),
        ("n/안녕b/", "안녕"),
    ],
)
def test_tags_are_removed(raw_text, text):
    assert remove_tags(raw_text) == text


def test_empty_transcript(one_row):
    one_row.txt.write_bytes(b"")
    assert only(one_row.read()).problem == "transcript empty"


def test_blank_transcript_is_kept(one_row):
    one_row.txt.write_bytes(b" \r\n")
    utterance = only(one_row.read())
    assert (utterance.problem, utterance.columns["text"]) == (None, "")
    assert utterance.repairs == ["transcript is blank, text left empty"]


@pytest.mark.parametrize(
    ("gone", "problem"),
    [
        (("wav",), "audio missing"),
        (("txt",), "transcript missing"),
        (("wav", "txt"), "audio and transcript missing"),
    ],
)
def test_missing_files(one_row, gone, problem):
    for kind in gone:
        getattr(one_row, kind).unlink()
    assert only(one_row.read()).problem == problem


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda wav: wav.write_bytes(b""), "audio empty"),
        (lambda wav: soundfile.write(wav, sine(0), 16000), "audio empty"),
        (lambda wav: wav.write_bytes(wav.read_bytes()[:30]), "audio unreadable"),
        (lambda wav: wav.write_bytes(b"no sound at all" * 100), "audio format not supported (convert with ffmpeg)"),
        (lambda wav: wav.write_bytes(wav.read_bytes()[:-2]), "audio truncated"),
        (lambda wav: soundfile.write(wav, 0 * sine(), 16000), "audio silent"),
        (lambda wav: soundfile.write(wav, np.stack([sine(), -sine()], 1), 16000), "audio silent"),
        (lambda wav: soundfile.write(wav, np.append(sine(), np.nan), 16000, subtype="FLOAT"), "audio not finite"),
    ],
)
def test_recordings_that_can_not_be_used(one_row, damage, problem):
    damage(one_row.wav)
    utterance = only(one_row.read())
    assert (utterance.problem, utterance.columns) == (problem, None)


def test_short_recording_is_kept_and_told(one_row):
    one_row.write_files(ID, samples=sine(0.2))
    utterance = only(one_row.read())
    assert utterance.columns["duration"] == pytest.approx(0.2)
    assert utterance.repairs == ["shorter than 0.5 s"]


def test_recording_in_another_format_is_converted(one_row):
    stereo = np.stack([sine(2, 44100), 0.5 * sine(2, 44100)], axis=1)
    one_row.write_files(ID, samples=stereo, rate=44100, subtype="PCM_24")
    utterance = only(one_row.read())
    told = ["re-encoded from WAV PCM_24", "mixed down from 2 channels", "resampled from 44100 Hz"]
    assert utterance.repairs == told
    assert utterance.columns["duration"] == pytest.approx(2.0, abs=1e-3)
    with soundfile.SoundFile(io.BytesIO(utterance.columns["audio"]["bytes"])) as sound:
        assert (sound.samplerate, sound.channels, sound.subtype) == (16000, 1, "PCM_16")
        samples = sound.read()
    assert len(samples) / 16000 == utterance.columns["duration"]
    assert np.argmax(np.abs(np.fft.rfft(samples))) / 2.0 == pytest.approx(440, abs=1)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.375, abs=0.01)


def test_float_recording_beyond_full_scale_is_clipped_not_wrapped(one_row):
    one_row.write_files(ID, samples=3 * sine(), subtype="FLOAT")
    utterance = only(one_row.read())
    assert utterance.repairs == ["re-encoded from WAV FLOAT", "samples beyond full scale clipped"]
    samples, _ = soundfile.read(io.BytesIO(utterance.columns["audio"]["bytes"]))
    assert np.corrcoef(samples, sine())[0, 1] > 0.9


def test_files_without_a_row_are_listed(one_row):
    one_row.write_files("Sess01_script06_User001X_099")
    one_row.write_files("Sess05_script01_User009F_001")
    for name in ("annotation/.DS_Store", "wav/Session01/Thumbs.db", f"wav/Session01/._{ID}.wav", "wav/notes.txt"):
        (one_row.path / name).write_bytes(b"x")
    notes = kemdy.read_corpus(one_row.path, KEMDY20).notes
    strays = ["Sess01_script06_User001X_099", "Sess05_script01_User009F_001"]
    assert notes["wav without a row"] == notes["txt without a row"] == strays
    ignored = ["annotation/.DS_Store", f"wav/Session01/._{ID}.wav", "wav/Session01/Thumbs.db", "wav/notes.txt"]
    assert notes["ignored, not of the corpus"] == ignored


def kemdy19_header():
    return "Numb,Wav,,ECG,,E4-EDA,,E4-TEMP,,Segment ID,Total Evaluation" + 32 * "," + "\n,start,end\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (kemdy19_header(), "43 columns as in KEMDy19, give --corpus kemdy19"),
        ("Numb,WAV, ,Segment ID\n", "4 columns"),
        ("", "0 columns"),
        (",".join(FIRST_HEADER) + "\n" + ",".join(annotation_row(ID)) + "\n", "'Segment ID' and ['neutral']"),
        ("a\n\udcff", "not readable as a csv in utf-8"),
    ],
)
def test_csv_of_another_shape_is_refused_by_name(one_row, content, told):
    file = one_row.path / "annotation" / "Sess03_eval.csv"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as error:
        kemdy.read_corpus(one_row.path, KEMDY20)
    assert str(file) in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def test_folders_that_are_no_corpus(one_row, tmp_path):
    cases = {
        tmp_path / "nowhere": "does not exist",
        one_row.wav: "is not a folder",
        one_row.path / "wav" / "Session01": "has no annotation/ and no wav/",
        one_row.path / "annotation": f"one folder above, give {one_row.path}",
        tmp_path: f"one folder below, give {one_row.path}",
    }
    for path, told in cases.items():
        with pytest.raises(InputError) as error:
            kemdy.read_corpus(path, KEMDY20)
        assert str(path) in str(error.value) and told in str(error.value)


def test_annotation_folder_without_csv_files(one_row):
    next((one_row.path / "annotation").iterdir()).unlink()
    with pytest.raises(InputError, match="has no file like Sess01_eval.csv: give the KEMDy20 folder"):
        kemdy.read_corpus(one_row.path, KEMDY20)
    Path(one_row.path, "annotation", "Session01_F_res.csv").touch()
    with pytest.raises(InputError, match="look like KEMDy19"):
        kemdy.read_corpus(one_row.path, KEMDY20)
