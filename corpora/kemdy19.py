"""Finds the rows of a KEMDy19 folder: annotation/SessionNN_F_res.csv and SessionNN_M_res.csv list all segments of a
session, judged for the actress and for the actor; a row is used where the person judged is the one who speaks."""

import os
import re
from pathlib import Path

from corpora import kemdy
from corpora.kemdy import DUPLICATE, KEMDY19, MALFORMED_ID, Annotation, Session, read_annotation_file
from corpora.rows import Corpus


SEGMENT_ID = re.compile(r"(Sess(\d{2})_(?:script0[1-6]|impro0[1-4]))_([FM])\d{3}")
FOLDERS = (re.compile(r"Session\d{2}"), re.compile(r"Sess\d{2}_(?:script0[1-6]|impro0[1-4])"))

JUDGED_AS_LISTENER = "judged for the listener, not the speaker"
OTHER_SESSION = "Segment ID of another session"


def read_corpus(corpus_dir: str | Path) -> Corpus:
    """The rows of a KEMDy19 folder, see [`kemdy.read_corpus`]."""
    return kemdy.read_corpus(corpus_dir, KEMDY19, FOLDERS, _read_sessions)


def _read_sessions(annotation_files: list[Path], notes: dict[str, list[str]]) -> list[Session]:
    sessions: dict[int, Session] = {}
    for path in annotation_files:
        number = int(KEMDY19.annotation_file.fullmatch(path.name).group(1))
        session = sessions.setdefault(number, Session(number, [], KEMDY19, encoding="utf-8"))
        session.annotations += _read_file(path, notes)
    _mark_duplicates(list(sessions.values()))
    return list(sessions.values())


def _read_file(path: Path, notes: dict[str, list[str]]) -> list[Annotation]:
    number, person = KEMDY19.annotation_file.fullmatch(path.name).groups()
    folder = os.path.join(path.parent.parent, "wav", f"Session{number}")
    annotations = list(read_annotation_file(path, KEMDY19, notes))
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
