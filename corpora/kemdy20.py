"""Finds the rows of a KEMDy20 folder: annotation/SessNN_eval.csv, wav/SessionNN/<Segment ID>.wav and .txt.
What a row means is read by `kemdy`."""

import os
import re
from pathlib import Path

from corpora import kemdy
from corpora.kemdy import DUPLICATE, KEMDY20, MALFORMED_ID, Annotation, Session, read_annotation_file
from corpora.rows import Corpus


SEGMENT_ID = re.compile(r"Sess(\d{2})(_script0[1-6]_(User\d{3}([FM]))_\d{3})")
FOLDERS = (re.compile(r"Session\d{2}"),)

PREFIX_CORRECTED = "Segment ID prefix corrected"


def read_corpus(corpus_dir: str | Path) -> Corpus:
    """The rows of a KEMDy20 folder, see [`kemdy.read_corpus`]."""
    return kemdy.read_corpus(corpus_dir, KEMDY20, FOLDERS, _read_sessions)


def _read_sessions(annotation_files: list[Path], notes: dict[str, list[str]]) -> list[Session]:
    sessions = [_read_session(path, notes) for path in annotation_files]
    _mark_duplicates(sessions)
    return sessions


def _read_session(path: Path, notes: dict[str, list[str]]) -> Session:
    """The session is taken from the name of the file, as v1_0 has wrong Segment IDs."""
    number = KEMDY20.annotation_file.fullmatch(path.name).group(1)
    folder = os.path.join(path.parent.parent, "wav", f"Session{number}")
    annotations = list(read_annotation_file(path, KEMDY20, notes))
    for row in annotations:
        row.folder = folder
        if row.problem is None:
            _read_segment_id(row, number)
    return Session(int(number), annotations, KEMDY20, encoding="cp949")


def _read_segment_id(row: Annotation, session: str) -> None:
    match = SEGMENT_ID.fullmatch(row.written_id)
    if not match:
        row.problem = MALFORMED_ID
        return
    if match.group(1) != session:
        row.repairs.insert(0, PREFIX_CORRECTED)
    row.name = f"Sess{session}{match.group(2)}"
    row.speaker, row.gender = match.group(3, 4)


def _mark_duplicates(sessions: list[Session]) -> None:
    """Keeps the first row of each Segment ID. A row copied into the csv of another session looks like one whose
    prefix is wrong; it is told apart by its own session listing the ID too, and by having no recording here."""
    usable = [row for session in sessions for row in session.annotations if row.problem is None]
    at_home = {row.written_id for row in usable if PREFIX_CORRECTED not in row.repairs}
    seen = set()
    for row in usable:
        copied = PREFIX_CORRECTED in row.repairs and row.written_id in at_home
        if row.name in seen:
            row.problem = DUPLICATE
        elif copied and not os.path.exists(os.path.join(row.folder, f"{row.name}.wav")):
            row.name, row.problem = row.written_id, DUPLICATE
        else:
            seen.add(row.name)
