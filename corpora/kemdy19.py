"""Finds the rows of a KEMDy19 folder: annotation/SessionNN_F_res.csv and SessionNN_M_res.csv list all segments of a
session, judged for the actress and for the actor; a row is used where the person judged is the one who speaks."""

import os
import re
from pathlib import Path

from corpora import EMOTIONS, CorpusError
from corpora.kemdy import (
    COLUMNS,
    DUPLICATE,
    MALFORMED_ID,
    Annotation,
    Layout,
    Session,
    find_annotation_files,
    missing_sessions,
    read_annotation_file,
    survey_files,
)
from corpora.rows import Corpus


ANNOTATION_FILE = re.compile(r"Session(\d{2})_([FM])_res\.csv")
SEGMENT_ID = re.compile(r"(Sess(\d{2})_(?:script0[1-6]|impro0[1-4]))_([FM])\d{3}")
FOLDERS = (re.compile(r"Session\d{2}"), re.compile(r"Sess\d{2}_(?:script0[1-6]|impro0[1-4])"))
LAYOUT = Layout("KEMDy19", segment_id=9, disgust="disgust")
NUM_SESSIONS = 20

JUDGED_AS_LISTENER = "judged for the listener, not the speaker"
OTHER_SESSION = "Segment ID of another session"


def read_corpus(corpus_dir: str | Path) -> Corpus:
    """Reads all annotation files and lists all recordings and transcripts, without opening these.

    Raises:
        CorpusError: the folder or one of its csv files does not have the shape of KEMDy19.
    """
    corpus_dir = Path(corpus_dir)
    annotation_files = find_annotation_files(corpus_dir, ANNOTATION_FILE, "KEMDy19")
    if not annotation_files:
        hint = "give a KEMDy19 folder, whose annotation/ holds Session01_F_res.csv to Session20_M_res.csv"
        if any((corpus_dir / "annotation").glob("Sess*_eval.csv")):
            hint = f"its Sess*_eval.csv look like KEMDy20, give --corpus kemdy20: or {hint}"
        raise CorpusError(f"{corpus_dir}/annotation has no Session*_res.csv: {hint}")
    notes: dict[str, list[str]] = {}
    sessions: dict[int, Session] = {}
    for path in annotation_files:
        number = int(ANNOTATION_FILE.fullmatch(path.name).group(1))
        session = sessions.setdefault(number, Session(number, [], LAYOUT, encoding="utf-8"))
        session.annotations += _read_file(path, notes)
    sessions = list(sessions.values())
    _mark_duplicates(sessions)
    files, found = survey_files(corpus_dir, annotation_files, sessions, FOLDERS)
    notes |= found | missing_sessions(sessions, NUM_SESSIONS)
    return Corpus(EMOTIONS, COLUMNS, sessions, files, notes)


def _read_file(path: Path, notes: dict[str, list[str]]) -> list[Annotation]:
    number, person = ANNOTATION_FILE.fullmatch(path.name).groups()
    folder = os.path.join(path.parent.parent, "wav", f"Session{number}")
    annotations = list(read_annotation_file(path, LAYOUT, notes))
    for row in annotations:
        row.folder = folder
        if row.problem is None:
            _read_segment_id(row, number, person)
    return annotations


def _read_segment_id(row: Annotation, session: str, person: str) -> None:
    match = SEGMENT_ID.fullmatch(row.written_id)
    if not match:
        row.problem = MALFORMED_ID
        return
    row.folder = os.path.join(row.folder, match.group(1))
    row.gender = match.group(3)
    # One actress and one actor play in each session and in no other.
    row.speaker = f"Sess{session}{row.gender}"
    if match.group(2) != session:
        row.problem = OTHER_SESSION
    elif row.gender != person:
        row.problem = JUDGED_AS_LISTENER


def _mark_duplicates(sessions: list[Session]) -> None:
    seen = set()
    for row in (row for session in sessions for row in session.annotations):
        if row.problem is None and row.name in seen:
            row.problem = DUPLICATE
        if row.problem is None:
            seen.add(row.name)
