"""Where KEMDy19 and KEMDy20 differ: names of files and folders, places of cells, and how a Segment ID is read."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from corpora.rows import Row


NUM_RATERS = 10
START, END = 1, 2

MALFORMED_ID = "malformed Segment ID"
PREFIX_CORRECTED = "Segment ID prefix corrected"


@dataclass(slots=True)
class Annotation(Row):
    """One row of an annotation csv; `name` is the corrected Segment ID, or the place in the csv where there is none.
    `cells` are stripped; `folder` holds recording and transcript."""

    written_id: str = ""
    speaker: str = ""
    gender: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Layout:
    """What a corpus's files are called, and where the cells of its rows are: after the Segment ID come emotion, valence
    and arousal of the total, and then the same of each rater."""

    corpus: str
    num_sessions: int
    annotation_file: re.Pattern  # finds the session in the name, and what else `read_id` is given
    example: str
    folders: tuple[re.Pattern, ...]  # under wav/, level by level; the last one holds the files
    encoding: str  # of the transcripts
    segment_id: int
    disgust: str
    read_id: Callable[..., None]  # sets what the written ID of a row tells, or the row's problem

    @property
    def total(self) -> int:
        return self.segment_id + 1

    @property
    def num_columns(self) -> int:
        return self.segment_id + 4 + 3 * NUM_RATERS


ID_OF_KEMDY19 = re.compile(r"(Sess(\d{2})_(?:script0[1-6]|impro0[1-4]))_([FM])\d{3}")
ID_OF_KEMDY20 = re.compile(r"Sess(\d{2})(_script0[1-6]_(User\d{3}([FM]))_\d{3})")


def _read_id_of_kemdy19(row: Annotation, session: str, person: str) -> None:
    """Two files list all segments of a session, judged for the actress and for the actor; a row is used where the
    person judged is the one who speaks."""
    match = ID_OF_KEMDY19.fullmatch(row.written_id)
    if not match:
        row.problem = MALFORMED_ID
        return
    row.folder = os.path.join(row.folder, match.group(1))
    row.gender = match.group(3)
    # One actress and one actor play in each session and in no other.
    row.speaker = f"Sess{session}{row.gender}"
    if match.group(2) != session:
        row.problem = "Segment ID of another session"
    elif row.gender != person:
        row.problem = "judged for the listener, not the speaker"


def _read_id_of_kemdy20(row: Annotation, session: str) -> None:
    """The session is taken from the name of the file, as v1_0 has wrong Segment IDs."""
    match = ID_OF_KEMDY20.fullmatch(row.written_id)
    if not match:
        row.problem = MALFORMED_ID
        return
    if match.group(1) != session:
        row.repairs.insert(0, PREFIX_CORRECTED)
    row.name = f"Sess{session}{match.group(2)}"
    row.speaker, row.gender = match.group(3, 4)


KEMDY19 = Layout(
    "KEMDy19",
    num_sessions=20,
    annotation_file=re.compile(r"Session(\d{2})_([FM])_res\.csv"),
    example="Session01_F_res.csv",
    folders=(re.compile(r"Session\d{2}"), re.compile(r"Sess\d{2}_(?:script0[1-6]|impro0[1-4])")),
    encoding="utf-8",
    segment_id=9,
    disgust="disgust",
    read_id=_read_id_of_kemdy19,
)
KEMDY20 = Layout(
    "KEMDy20",
    num_sessions=40,
    annotation_file=re.compile(r"Sess(\d{2})_eval\.csv"),
    example="Sess01_eval.csv",
    folders=(re.compile(r"Session\d{2}"),),
    encoding="cp949",
    segment_id=3,
    disgust="disqust",
    read_id=_read_id_of_kemdy20,
)
OTHER_LAYOUT = {KEMDY19: KEMDY20, KEMDY20: KEMDY19}
