"""What KEMDy19 and KEMDy20 have in common: annotation rows with ten raters, a .wav and a .txt for each of them.
Every row of the annotation comes back, either with its columns or with the reason why it can't be used."""

import csv
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpora import EMOTIONS
from corpora.recordings import read_recording
from corpora.rows import Corpus, UnusableRow, Utterance
from corpora.transcripts import decode_transcript, remove_tags
from foundation.errors import InputError


COLUMNS = (
    "audio",
    "text",
    "raw_text",
    "label",
    "emotions",
    "votes",
    "valence",
    "arousal",
    "segment_id",
    "session",
    "speaker",
    "gender",
    "start",
    "end",
    "duration",
)
NUM_RATERS = 10
START, END = 1, 2
SHORT_SECONDS = 0.5
MAX_TRANSCRIPT_BYTES = 1 << 20

AUDIO_AND_TRANSCRIPT_MISSING = "audio and transcript missing"
BLANK_ROW = "blank row"
DUPLICATE = "duplicate Segment ID"
MALFORMED_ID = "malformed Segment ID"
TRANSCRIPT_EMPTY = "transcript empty"
TRANSCRIPT_MISSING = "transcript missing"
TRANSCRIPT_TOO_LONG = "transcript larger than 1 MiB"
TRANSCRIPT_UNREADABLE = "transcript unreadable"
UNKNOWN_TOTAL = "unknown emotion in Total Evaluation"

IGNORED_FILES = "ignored, not of the corpus"
SESSIONS_MISSING = "sessions without annotation"
TXT_WITHOUT_ROW = "txt without a row"
WAV_WITHOUT_ROW = "wav without a row"
WITH_BOM = "csv with a byte order mark"
WITH_CRLF = "csv with CRLF line ends"


@dataclass(frozen=True)
class Layout:
    """What the annotation files are called, the session first in their names, and where the cells of their rows are:
    after the Segment ID come emotion, valence and arousal of the total, and then the same of each rater."""

    corpus: str
    num_sessions: int
    annotation_file: re.Pattern
    example: str
    segment_id: int
    disgust: str

    @property
    def total(self) -> int:
        return self.segment_id + 1

    @property
    def valence(self) -> int:
        return self.segment_id + 2

    @property
    def arousal(self) -> int:
        return self.segment_id + 3

    @property
    def num_columns(self) -> int:
        return self.segment_id + 4 + 3 * NUM_RATERS


KEMDY19 = Layout(
    "KEMDy19",
    num_sessions=20,
    annotation_file=re.compile(r"Session(\d{2})_([FM])_res\.csv"),
    example="Session01_F_res.csv",
    segment_id=9,
    disgust="disgust",
)
KEMDY20 = Layout(
    "KEMDy20",
    num_sessions=40,
    annotation_file=re.compile(r"Sess(\d{2})_eval\.csv"),
    example="Sess01_eval.csv",
    segment_id=3,
    disgust="disqust",
)
OTHER_LAYOUT = {KEMDY19: KEMDY20, KEMDY20: KEMDY19}


@dataclass(slots=True)
class Annotation:
    """One row of an annotation csv, before its recording and transcript are read.

    `name` is the corrected Segment ID, or the place in the csv where there is none; `cells` are stripped.
    """

    name: str
    cells: list[str]
    written_id: str = ""
    problem: str | None = None
    repairs: list[str] = field(default_factory=list)
    speaker: str = ""
    gender: str = ""
    folder: str = ""


@dataclass
class Session:
    """The annotation of one session; a row's recording and transcript are in the row's `folder`."""

    number: int
    annotations: list[Annotation]
    layout: Layout
    encoding: str
    split: str = "train"

    @property
    def name(self) -> str:
        return f"session{self.number:02d}"

    @property
    def num_rows(self) -> int:
        return len(self.annotations)

    def utterances(self) -> Iterator[Utterance]:
        """Reads recordings and transcripts one by one, so that only one utterance is in memory at a time."""
        for annotation in self.annotations:
            yield self._read(annotation)

    def _read(self, annotation: Annotation) -> Utterance:
        name, repairs = annotation.name, list(annotation.repairs)
        try:
            if annotation.problem is not None:
                raise UnusableRow(annotation.problem)
            columns = read_judgements(annotation.cells, self.layout, repairs)
            columns |= _read_files(os.path.join(annotation.folder, name), self.encoding, repairs)
        except UnusableRow as reason:
            return Utterance(name, str(reason), [], None)
        columns |= {"segment_id": name, "session": self.number}
        columns |= {"speaker": annotation.speaker, "gender": annotation.gender}
        return Utterance(name, None, repairs, columns)


def read_corpus(
    corpus_dir: str | Path,
    layout: Layout,
    folders: tuple[re.Pattern, ...],
    read_sessions: Callable[[list[Path], dict[str, list[str]]], list[Session]],
) -> Corpus:
    """Reads all annotation files and lists all recordings and transcripts, without opening these.

    Args:
        folders: what the names of the folders under wav/ look like, level by level; the last one holds the files.
        read_sessions: makes sessions of the annotation files, and notes what is worth telling of them.

    Raises:
        InputError: the folder or one of its csv files does not have the shape of the corpus.
    """
    corpus_dir = Path(corpus_dir)
    annotation_files = _find_annotation_files(corpus_dir, layout)
    notes: dict[str, list[str]] = {}
    sessions = read_sessions(annotation_files, notes)
    files, found = _survey_files(corpus_dir, annotation_files, sessions, folders)
    there = {session.number for session in sessions}
    missing = [f"Session{number:02d}" for number in range(1, layout.num_sessions + 1) if number not in there]
    notes |= found | ({SESSIONS_MISSING: missing} if missing else {})
    return Corpus(EMOTIONS, COLUMNS, sessions, files, notes)


def _find_annotation_files(corpus_dir: Path, layout: Layout) -> list[Path]:
    """The annotation files of a corpus folder, in session order."""
    if not corpus_dir.is_dir():
        what = "is not a folder" if corpus_dir.exists() else "does not exist"
        raise InputError(f"{corpus_dir} {what}: give the {layout.corpus} folder that holds annotation/ and wav/")
    missing = [name for name in ("annotation", "wav") if not (corpus_dir / name).is_dir()]
    if missing:
        hint = _where_to_point(corpus_dir, layout.corpus)
        raise InputError(f"{corpus_dir} has no {'/ and no '.join(missing)}/: {hint}")
    names = sorted(os.listdir(corpus_dir / "annotation"))
    files = [corpus_dir / "annotation" / name for name in names if layout.annotation_file.fullmatch(name)]
    if not files:
        other = OTHER_LAYOUT[layout]
        hint = f"give the {layout.corpus} folder, whose annotation/ holds one for each session"
        if any(other.annotation_file.fullmatch(name) for name in names):
            hint = f"its files look like {other.corpus}, give --corpus {other.corpus.lower()}"
        raise InputError(f"{corpus_dir}/annotation has no file like {layout.example}: {hint}")
    return files


def _where_to_point(corpus_dir: Path, corpus: str) -> str:
    inside = [path for path in sorted(corpus_dir.iterdir()) if (path / "annotation").is_dir()]
    if len(inside) == 1:
        return f"the corpus seems to be one folder below, give {inside[0]}"
    if corpus_dir.name in ("annotation", "wav") and (corpus_dir.parent / "annotation").is_dir():
        return f"the corpus seems to be one folder above, give {corpus_dir.parent}"
    return f"give the {corpus} folder that holds annotation/ and wav/"


def _survey_files(
    corpus_dir: Path, annotation_files: list[Path], sessions: list[Session], folders: tuple[re.Pattern, ...]
) -> tuple[list[str], dict[str, list[str]]]:
    """Lists what lies in the corpus, without opening it.

    Args:
        folders: what the names of the folders under wav/ look like, level by level; the last one holds the files.

    Returns:
        The files that belong to the corpus, and notes that name recordings and transcripts without a row in the
        annotation, and files that are not of the corpus.
    """
    files, ignored, strays = [str(path) for path in annotation_files], [], {".wav": [], ".txt": []}
    ignored += [f"annotation/{name}" for name in sorted(os.listdir(corpus_dir / "annotation"))]
    of_corpus = {f"annotation/{path.name}" for path in annotation_files}
    ignored = [name for name in ignored if name not in of_corpus]
    asked_for = {os.path.join(row.folder, row.name) for session in sessions for row in session.annotations}

    def survey(folder: str, shown: str, levels: tuple[re.Pattern, ...]) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            stem, extension = os.path.splitext(entry.name)
            if levels and levels[0].fullmatch(entry.name) and entry.is_dir():
                survey(entry.path, f"{shown}/{entry.name}", levels[1:])
            elif levels or extension not in strays or entry.name.startswith("."):
                ignored.append(f"{shown}/{entry.name}")
            elif os.path.join(folder, stem) in asked_for:
                files.append(entry.path)
            else:
                strays[extension].append(stem)

    survey(str(corpus_dir / "wav"), "wav", folders)
    notes = {WAV_WITHOUT_ROW: strays[".wav"], TXT_WITHOUT_ROW: strays[".txt"], IGNORED_FILES: ignored}
    return files, {kind: names for kind, names in notes.items() if names}


def read_annotation_file(path: Path, layout: Layout, notes: dict[str, list[str]]) -> Iterator[Annotation]:
    """The rows of one csv, in their order; their Segment IDs are not looked at yet.

    Raises:
        InputError: the csv does not have the two header rows and the columns of the corpus.
    """
    try:
        content = path.read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [(cells, reader.line_num) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not readable as a csv in utf-8 ({error}): restore it from the corpus") from None
    _check_header(path, [[cell.strip() for cell in cells] for cells, _ in rows[:2]], layout)
    if content.startswith(b"\xef\xbb\xbf"):
        notes.setdefault(WITH_BOM, []).append(path.name)
    if b"\r\n" in content:
        notes.setdefault(WITH_CRLF, []).append(path.name)
    for as_written, line in rows[2:]:
        # One string for all cells that say "neutral": a row then keeps a few hundred bytes in memory, not thousands.
        cells = [sys.intern(cell.strip()) for cell in as_written]
        place = f"{path.name} line {line}"
        if not any(cells):
            yield Annotation(place, cells, problem=BLANK_ROW)
            continue
        if len(cells) <= layout.arousal:
            yield Annotation(place, cells, problem=f"row has fewer than {layout.arousal + 1} cells")
            continue
        written_id = cells[layout.segment_id]
        row = Annotation(written_id or place, cells, written_id)
        if not written_id or not _split_labels(cells[layout.total]):
            row.problem = BLANK_ROW
        elif cells != as_written:
            row.repairs.append("blanks around cells removed")
        yield row


def _check_header(path: Path, header: list[list[str]], layout: Layout) -> None:
    first, second = header + [[]] * (2 - len(header))
    has_width = len(first) >= layout.num_columns and not any(first[layout.num_columns :])
    id_is_there = has_width and first[layout.segment_id] == "Segment ID"
    if id_is_there and second[layout.total : layout.total + 1] == ["Emotion"]:
        return
    place = layout.segment_id + 1
    expected = (
        f"{layout.corpus} has two header rows of {layout.num_columns} columns with 'Segment ID' in column {place}"
    )
    other = OTHER_LAYOUT[layout]
    if first[other.segment_id : other.segment_id + 1] == ["Segment ID"] and not id_is_there:
        found = f"{len(first)} columns as in {other.corpus}, give --corpus {other.corpus.lower()}"
    elif not has_width:
        found = f"{len(first)} columns"
    else:
        cells = (first[layout.segment_id], second[layout.total : layout.total + 1])
        found = f"the headers {cells[0]!r} and {cells[1]} in columns {place} and {place + 1}"
    raise InputError(f"{path} has {found}; {expected}: restore the file or take it out of annotation/")


def _read_files(path: str, encoding: str, repairs: list[str]) -> dict:
    content = _read_transcript(path)
    raw_text = decode_transcript(content, repairs, encoding)
    text = remove_tags(raw_text)
    if not text:
        # Kept: the splits of the paper count these utterances.
        repairs.append(f"transcript {'holds only tags' if raw_text else 'is blank'}, text left empty")
    wav, duration = read_recording(f"{path}.wav", repairs)
    if duration < SHORT_SECONDS:
        repairs.append(f"shorter than {SHORT_SECONDS} s")
    audio = {"bytes": wav, "path": f"{os.path.basename(path)}.wav"}
    return {"audio": audio, "text": text, "raw_text": raw_text, "duration": duration}


def _read_transcript(path: str) -> bytes:
    try:
        # A third of the time that a file object takes, for files of a hundred bytes.
        descriptor = os.open(f"{path}.txt", os.O_RDONLY)
    except FileNotFoundError:
        has_audio = os.path.exists(f"{path}.wav")
        raise UnusableRow(TRANSCRIPT_MISSING if has_audio else AUDIO_AND_TRANSCRIPT_MISSING) from None
    except OSError:
        raise UnusableRow(TRANSCRIPT_UNREADABLE) from None
    try:
        content = os.read(descriptor, MAX_TRANSCRIPT_BYTES + 1)
    except OSError:
        raise UnusableRow(TRANSCRIPT_UNREADABLE) from None
    finally:
        os.close(descriptor)
    if not content:
        raise UnusableRow(TRANSCRIPT_EMPTY)
    if len(content) > MAX_TRANSCRIPT_BYTES:
        raise UnusableRow(TRANSCRIPT_TOO_LONG)
    return content


def read_judgements(cells: list[str], layout: Layout, repairs: list[str]) -> dict:
    """What the raters said.

    Returns:
        `label` (an emotion, or None where the raters tie), `emotions` (the winners), `votes` (7 counts in the order of
        `EMOTIONS`), `valence`, `arousal` (1 to 5, means over the raters), `start` and `end` (seconds in the recording
        of the topic).

    Raises:
        UnusableRow: the total holds an emotion that is none of the seven.
    """
    winners, winners_as_written = [], _split_labels(cells[layout.total].lower())
    for label in winners_as_written:
        emotion = _emotion(label)
        if emotion is None:
            raise UnusableRow(UNKNOWN_TOTAL)
        if emotion not in winners:
            winners.append(emotion)
    if layout.disgust != "disgust" and "disgust" in winners_as_written:
        repairs.append(f"total label spelled disgust, not {layout.disgust}")
    numbers = {"valence": layout.valence, "arousal": layout.arousal, "start": START, "end": END}
    return {
        "label": winners[0] if len(winners) == 1 else None,
        "emotions": winners,
        "votes": _count_votes(cells, layout, repairs),
        **{name: _number(cells[column], name, repairs) for name, column in numbers.items()},
    }


def _count_votes(cells: list[str], layout: Layout, repairs: list[str]) -> list[int]:
    labels = [label.lower() for label in cells[layout.total + 3 : layout.num_columns : 3]]
    labels += [""] * (NUM_RATERS - len(labels))
    votes = dict.fromkeys(EMOTIONS, 0)
    for label in labels:
        emotion = _emotion(label)
        if emotion is not None:
            votes[emotion] += 1
        else:
            _note_once(repairs, "unknown rater label not counted" if label else "missing rater label not counted")
    if layout.disgust != "disgust" and "disgust" in labels:
        repairs.append(f"rater label spelled disgust, not {layout.disgust}")
    return list(votes.values())


def _split_labels(total: str) -> list[str]:
    return [label.strip() for label in total.split(";") if label.strip()]


def _emotion(label: str) -> str | None:
    """The emotion of a label in lower case, under this project's spelling."""
    return "disgust" if label == "disqust" else label if label in EMOTIONS else None


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
