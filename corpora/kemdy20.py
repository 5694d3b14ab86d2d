"""Reads a KEMDy20 folder (annotation/SessNN_eval.csv, wav/SessionNN/<Segment ID>.wav and .txt) into rows.
Every row of the annotation comes back, either with its columns or with the reason why it can't be used."""

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configuration_rsa_cfn import EMOTIONS
from corpora import CorpusError
from corpora.recordings import UnusableRecording, read_recording


ANNOTATION_FILE = re.compile(r"Sess(\d{2})_eval\.csv")
SESSION_FOLDER = re.compile(r"Session(\d{2})")
SEGMENT_ID = re.compile(r"Sess(\d{2})(_script0[1-6]_(User\d{3}([FM]))_\d{3})")
# Only letters that stand alone before the slash are tags: the lookbehind spares words such as "cc/".
TAG = re.compile(r"(?<![A-Za-z])[cnNulb]/")
HANGUL = re.compile("[\uac00-\ud7a3]")

NUM_COLUMNS = 37
START, END, ID, TOTAL, VALENCE, AROUSAL = range(1, 7)
RATER_LABELS = range(7, NUM_COLUMNS, 3)
SHORT_SECONDS = 0.5

AUDIO_AND_TRANSCRIPT_MISSING = "audio and transcript missing"
AUDIO_MISSING = "audio missing"
BLANK_ROW = "blank row"
DUPLICATE = "duplicate Segment ID"
MALFORMED_ID = "malformed Segment ID"
PREFIX_CORRECTED = "Segment ID prefix corrected"
TRANSCRIPT_EMPTY = "transcript empty"
TRANSCRIPT_MISSING = "transcript missing"
TRANSCRIPT_UNREADABLE = "transcript unreadable"
UNKNOWN_TOTAL = "unknown emotion in Total Evaluation"


@dataclass
class Annotation:
    """One row of an annotation csv, before its recording and transcript are read.

    `name` is the corrected Segment ID, or the place in the csv where there is none; `cells` are stripped.
    """

    name: str
    cells: list[str]
    written_id: str = ""
    problem: str | None = None
    repairs: list[str] = field(default_factory=list)


@dataclass
class Session:
    """The annotation of one session and the folder of its recordings."""

    number: int
    annotation_file: Path
    folder: Path
    annotations: list[Annotation]
    has_bom: bool
    has_crlf: bool


@dataclass
class Utterance:
    """One row read: `columns` when it can be used, otherwise None and the `problem`."""

    name: str
    problem: str | None
    repairs: list[str]
    columns: dict | None


@dataclass
class Corpus:
    """All sessions in the order of their csv files, and the files of the folder that no row asks for."""

    sessions: list[Session]
    wav_without_row: list[str]
    txt_without_row: list[str]
    ignored_files: list[str]


class _Unusable(Exception):
    """The utterance can't be used; the message is the reason shown in the report."""


def find_annotation_files(corpus_dir: str | Path) -> list[Path]:
    """The annotation files of a KEMDy20 folder, in session order.

    Raises:
        CorpusError: `corpus_dir` is not a KEMDy20 folder.
    """
    corpus_dir = Path(corpus_dir)
    if not corpus_dir.is_dir():
        what = "is not a folder" if corpus_dir.exists() else "does not exist"
        raise CorpusError(f"{corpus_dir} {what}: give the KEMDy20 folder that holds annotation/ and wav/")
    missing = [name for name in ("annotation", "wav") if not (corpus_dir / name).is_dir()]
    if missing:
        raise CorpusError(f"{corpus_dir} has no {'/ and no '.join(missing)}/: {_where_to_point(corpus_dir)}")
    files = sorted(path for path in (corpus_dir / "annotation").iterdir() if ANNOTATION_FILE.fullmatch(path.name))
    if not files:
        hint = "give a KEMDy20 folder, whose annotation/ holds Sess01_eval.csv to Sess40_eval.csv"
        if any((corpus_dir / "annotation").glob("Session*_res.csv")):
            hint = f"its Session*_res.csv look like KEMDy19, which is not supported: {hint}"
        raise CorpusError(f"{corpus_dir}/annotation has no Sess*_eval.csv: {hint}")
    return files


def _where_to_point(corpus_dir: Path) -> str:
    inside = [path for path in sorted(corpus_dir.iterdir()) if (path / "annotation").is_dir()]
    if len(inside) == 1:
        return f"the corpus seems to be one folder below, give {inside[0]}"
    if corpus_dir.name in ("annotation", "wav") and (corpus_dir.parent / "annotation").is_dir():
        return f"the corpus seems to be one folder above, give {corpus_dir.parent}"
    return "give the KEMDy20 folder that holds annotation/ and wav/ (such as KEMDy20_v1_1)"


def read_corpus(corpus_dir: str | Path) -> Corpus:
    """Reads all annotation files and lists all recordings and transcripts, without opening these.

    Raises:
        CorpusError: the folder or one of its csv files does not have the shape of KEMDy20.
    """
    corpus_dir = Path(corpus_dir)
    sessions = [read_annotation_file(path) for path in find_annotation_files(corpus_dir)]
    _mark_duplicates(sessions)
    known = {name for session in sessions for row in session.annotations for name in (row.name, row.written_id)}
    corpus = Corpus(sessions, [], [], [])
    for path in sorted((corpus_dir / "annotation").iterdir()):
        if not ANNOTATION_FILE.fullmatch(path.name):
            corpus.ignored_files.append(f"annotation/{path.name}")
    for folder in sorted((corpus_dir / "wav").iterdir()):
        if not (SESSION_FOLDER.fullmatch(folder.name) and folder.is_dir()):
            corpus.ignored_files.append(f"wav/{folder.name}")
            continue
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.suffix not in (".wav", ".txt"):
                corpus.ignored_files.append(f"wav/{folder.name}/{path.name}")
            # "Sess01..." in Session02 is a stray even where session 1 has a row of that name.
            elif path.stem not in known or path.stem[4:6] != folder.name[7:]:
                strays = corpus.wav_without_row if path.suffix == ".wav" else corpus.txt_without_row
                strays.append(path.stem)
    return corpus


def read_annotation_file(path: str | Path) -> Session:
    """Reads one annotation csv; the session is taken from the name of the file, as v1_0 has wrong Segment IDs.

    Raises:
        CorpusError: the csv does not have the two header rows and 37 columns of KEMDy20.
    """
    path = Path(path)
    number = ANNOTATION_FILE.fullmatch(path.name).group(1)
    try:
        content = path.read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [([cell.strip() for cell in cells], cells, reader.line_num) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} is not readable as a csv in utf-8 ({error}): restore it from the corpus") from None
    _check_header(path, [cells for cells, _, _ in rows[:2]])
    annotations = []
    for cells, as_written, line in rows[2:]:
        row = _read_cells(cells, number, f"{path.name} line {line}")
        if row.problem != BLANK_ROW and cells != as_written:
            row.repairs.append("blanks around cells removed")
        annotations.append(row)
    folder = path.parent.parent / "wav" / f"Session{number}"
    bom = content.startswith(b"\xef\xbb\xbf")
    return Session(int(number), path, folder, annotations, has_bom=bom, has_crlf=b"\r\n" in content)


def _check_header(path: Path, header: list[list[str]]) -> None:
    first, second = header + [[]] * (2 - len(header))
    has_width = len(first) >= NUM_COLUMNS and not any(first[NUM_COLUMNS:])
    if has_width and first[ID] == "Segment ID" and second[TOTAL : TOTAL + 1] == ["Emotion"]:
        return
    expected = "KEMDy20 has two header rows of 37 columns with 'Segment ID' in the fourth"
    if first[9:10] == ["Segment ID"]:
        found = f"{len(first)} columns as in KEMDy19, which is not supported"
    elif not has_width:
        found = f"{len(first)} columns"
    else:
        found = f"the headers {first[ID]!r} and {second[TOTAL : TOTAL + 1]} in columns 4 and 5"
    raise CorpusError(f"{path} has {found}; {expected}: restore the file or take it out of annotation/")


def _read_cells(cells: list[str], session: str, place: str) -> Annotation:
    if not any(cells):
        return Annotation(place, cells, problem=BLANK_ROW)
    if len(cells) <= AROUSAL:
        return Annotation(place, cells, problem="row has fewer than 7 cells")
    written_id = cells[ID]
    if not written_id or not _split_labels(cells[TOTAL]):
        return Annotation(written_id or place, cells, written_id, problem=BLANK_ROW)
    match = SEGMENT_ID.fullmatch(written_id)
    if not match:
        return Annotation(written_id, cells, written_id, problem=MALFORMED_ID)
    repairs = [] if match.group(1) == session else [PREFIX_CORRECTED]
    return Annotation(f"Sess{session}{match.group(2)}", cells, written_id, repairs=repairs)


def _mark_duplicates(sessions: list[Session]) -> None:
    """Keeps the first row of each Segment ID. A row copied into the csv of another session looks like one whose
    prefix is wrong; it is told apart by its own session listing the ID too, and by having no recording here."""
    usable = [(session, row) for session in sessions for row in session.annotations if row.problem is None]
    at_home = {row.written_id for _, row in usable if PREFIX_CORRECTED not in row.repairs}
    seen = set()
    for session, row in usable:
        copied = PREFIX_CORRECTED in row.repairs and row.written_id in at_home
        if row.name in seen:
            row.problem = DUPLICATE
        elif copied and not (session.folder / f"{row.name}.wav").exists():
            row.name, row.problem = row.written_id, DUPLICATE
        else:
            seen.add(row.name)


def read_session(session: Session) -> Iterator[Utterance]:
    """Reads recordings and transcripts one by one, so that only one utterance is in memory at a time."""
    for annotation in session.annotations:
        yield read_utterance(annotation, session)


def read_utterance(annotation: Annotation, session: Session) -> Utterance:
    """One row of the dataset.

    Returns:
        `Utterance` whose `columns` are `audio` (16 kHz mono 16-bit wav: `bytes`, `path`), `text`, `raw_text`,
        `label` (an emotion, or None where the raters tie), `emotions` (the winners), `votes` (7 counts in the order
        of `EMOTIONS`), `valence`, `arousal` (1 to 5), `segment_id`, `session`, `speaker`, `gender`, `start`, `end`
        (seconds in the recording of the topic) and `duration` (seconds of the wav in `audio`).
    """
    name, repairs = annotation.name, list(annotation.repairs)
    try:
        if annotation.problem is not None:
            raise _Unusable(annotation.problem)
        columns = _read_judgements(annotation.cells, repairs)
        columns |= _read_files(session.folder / f"{name}.wav", session.folder / f"{name}.txt", repairs)
        speaker, gender = SEGMENT_ID.fullmatch(name).group(3, 4)
        columns |= {"segment_id": name, "session": session.number, "speaker": speaker, "gender": gender}
    except (_Unusable, UnusableRecording) as reason:
        return Utterance(name, str(reason), [], None)
    return Utterance(name, None, repairs, columns)


def _read_files(wav_file: Path, txt_file: Path, repairs: list[str]) -> dict:
    has_wav, has_txt = wav_file.exists(), txt_file.exists()
    if not has_wav or not has_txt:
        neither = AUDIO_AND_TRANSCRIPT_MISSING
        raise _Unusable(AUDIO_MISSING if has_txt else TRANSCRIPT_MISSING if has_wav else neither)
    try:
        content = txt_file.read_bytes()
    except OSError:
        raise _Unusable(TRANSCRIPT_UNREADABLE) from None
    if not content:
        raise _Unusable(TRANSCRIPT_EMPTY)
    raw_text = decode_transcript(content, repairs)
    text = remove_tags(raw_text)
    if not text:
        # Kept: the splits of the paper count these utterances.
        repairs.append(f"transcript {'holds only tags' if raw_text else 'is blank'}, text left empty")
    wav, duration = read_recording(wav_file, repairs)
    if duration < SHORT_SECONDS:
        repairs.append(f"shorter than {SHORT_SECONDS} s")
    audio = {"bytes": wav, "path": wav_file.name}
    return {"audio": audio, "text": text, "raw_text": raw_text, "duration": duration}


def _read_judgements(cells: list[str], repairs: list[str]) -> dict:
    winners = []
    for label in _split_labels(cells[TOTAL]):
        emotion = _emotion(label)
        if emotion is None:
            raise _Unusable(UNKNOWN_TOTAL)
        if emotion not in winners:
            winners.append(emotion)
    if "disgust" in _split_labels(cells[TOTAL].lower()):
        repairs.append("total label spelled disgust, not disqust")
    votes = dict.fromkeys(EMOTIONS, 0)
    spelled_right = False
    for column in RATER_LABELS:
        label = cells[column] if column < len(cells) else ""
        emotion = _emotion(label)
        spelled_right |= label.lower() == "disgust"
        if emotion is not None:
            votes[emotion] += 1
        else:
            _note_once(repairs, "unknown rater label not counted" if label else "missing rater label not counted")
    if spelled_right:
        repairs.append("rater label spelled disgust, not disqust")
    numbers = {"valence": VALENCE, "arousal": AROUSAL, "start": START, "end": END}
    return {
        "label": winners[0] if len(winners) == 1 else None,
        "emotions": winners,
        "votes": list(votes.values()),
        **{name: _number(cells[column], name, repairs) for name, column in numbers.items()},
    }


def _split_labels(total: str) -> list[str]:
    return [label.strip() for label in total.split(";") if label.strip()]


def _emotion(label: str) -> str | None:
    label = label.lower()
    label = "disgust" if label == "disqust" else label
    return label if label in EMOTIONS else None


def _number(cell: str, name: str, repairs: list[str]) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    repairs.append(f"{name} is not a number, left null")
    return None


def _note_once(repairs: list[str], note: str) -> None:
    if note not in repairs:
        repairs.append(note)


def decode_transcript(content: bytes, repairs: list[str]) -> str:
    """The transcript on one line, without blanks around it; what had to be mended is appended to `repairs`."""
    text = _decode(content, repairs).strip().strip("\ufeff\0").strip()
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    if len(lines) > 1:
        repairs.append("lines of the transcript joined")
    return " ".join(lines)


def _decode(content: bytes, repairs: list[str]) -> str:
    # Hangul in cp949 that happens to be valid utf-8 never reads as Hangul syllables, so finding some settles it.
    try:
        text = content.decode("utf-8")
        if HANGUL.search(text):
            repairs.append("transcript read as utf-8")
            return text
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp949")
    except UnicodeDecodeError:
        repairs.append("undecodable bytes replaced")
        return content.decode("cp949", errors="replace")


def remove_tags(raw_text: str) -> str:
    """The words of a transcript: without noise tags ("n/", "b/" ...) and marks of doubt, stutter and filler."""
    without_marks = re.sub(r"[*+/]", "", TAG.sub("", raw_text))
    return " ".join(without_marks.split())
