"""Reads KEMDy19 and KEMDy20: annotation rows with ten raters, a .wav and a .txt for each of them.
Every row of the annotation comes back, either with its columns or with the reason why it can't be used."""

import csv
import errno
import math
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from corpora import EMOTIONS
from corpora.kemdy_layouts import END, NUM_RATERS, OTHER_LAYOUT, PREFIX_CORRECTED, START, Annotation, Layout
from corpora.recordings import read_recording
from corpora.rows import Corpus, Shard, UnusableRow
from corpora.tables import MAX_TABLE_BYTES, read_cells
from corpora.transcripts import MAX_TRANSCRIPT_BYTES, TRANSCRIPT_TOO_LARGE, decode_transcript, remove_tags
from foundation.errors import InputError
from foundation.files import read_regular


COLUMNS = ("audio", "text", "raw_text", "label", "emotions", "votes", "valence", "arousal")
COLUMNS += ("segment_id", "session", "dialogue", "speaker", "gender", "start", "end", "duration")
SHORT_SECONDS = 0.5

BLANK_ROW = "blank row"
DUPLICATE = "duplicate Segment ID"


def read_corpus(corpus_dir: str | Path, layout: Layout) -> Corpus:
    """Reads all annotation files and lists all recordings and transcripts, without opening these."""
    corpus_dir = Path(corpus_dir)
    annotation_files = _find_annotation_files(corpus_dir, layout)
    notes: dict[str, list[str]] = {}
    sessions: dict[str, list[Annotation]] = {}
    for path in annotation_files:
        session, *others = layout.annotation_file.fullmatch(path.name).groups()
        rows = list(read_annotation_file(path, layout, notes))
        for row in rows:
            row.folder = os.path.join(corpus_dir, "wav", f"Session{session}")
            if row.problem is None:
                layout.read_id(row, session, *others)
        sessions.setdefault(session, []).extend(rows)
    annotations = [row for rows in sessions.values() for row in rows]
    _mark_duplicates(annotations)
    files, found = _survey_files(corpus_dir, annotation_files, annotations, layout.folders)
    missing = [f"Session{n:02d}" for n in range(1, layout.num_sessions + 1) if f"{n:02d}" not in sessions]
    notes |= found | ({"sessions without annotation": missing} if missing else {})
    shards = [
        Shard(f"session{session}", rows, partial(_read_row, session=int(session), layout=layout))
        for session, rows in sessions.items()
    ]
    return Corpus(EMOTIONS, COLUMNS, shards, files, notes)


def _read_row(row: Annotation, repairs: list[str], session: int, layout: Layout) -> dict:
    columns = read_judgements(row.cells, layout, repairs)
    columns |= _read_files(os.path.join(row.folder, row.name), layout.encoding, repairs)
    columns |= {"session": session, "dialogue": "_".join(row.name.split("_")[:2])}  # such as Sess01_script01
    return columns | {"segment_id": row.name, "speaker": row.speaker, "gender": row.gender}


def _mark_duplicates(annotations: list[Annotation]) -> None:
    """Keeps the first row of each Segment ID. A row copied into the csv of another session looks like one whose
    prefix is wrong; it is told apart by its own session listing the ID too, and by having no recording here."""
    usable = [row for row in annotations if row.problem is None]
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


def _find_annotation_files(corpus_dir: Path, layout: Layout) -> list[Path]:
    """The annotation files of a corpus folder, in session order."""
    if not corpus_dir.is_dir():
        what = "is not a folder" if corpus_dir.exists() else "does not exist"
        raise InputError(f"{corpus_dir} {what}: give the {layout.corpus} folder that holds annotation/ and wav/")
    if missing := [name for name in ("annotation", "wav") if not (corpus_dir / name).is_dir()]:
        hint = f"give the {layout.corpus} folder that holds annotation/ and wav/"
        inside = [path for path in sorted(corpus_dir.iterdir()) if (path / "annotation").is_dir()]
        if len(inside) == 1:
            hint = f"the corpus seems to be one folder below, give {inside[0]}"
        elif corpus_dir.name in ("annotation", "wav") and (corpus_dir.parent / "annotation").is_dir():
            hint = f"the corpus seems to be one folder above, give {corpus_dir.parent}"
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


def _survey_files(
    corpus_dir: Path, annotation_files: list[Path], annotations: list[Annotation], folders: tuple[re.Pattern, ...]
) -> tuple[list[str], dict[str, list[str]]]:
    """The files that belong to the corpus, none of them opened, and notes that name recordings and transcripts without
    a row in the annotation, and files that are not of the corpus."""
    files, strays = [str(path) for path in annotation_files], {".wav": [], ".txt": []}
    others = set(os.listdir(corpus_dir / "annotation")) - {path.name for path in annotation_files}
    ignored = [f"annotation/{name}" for name in sorted(others)]
    asked_for = {os.path.join(row.folder, row.name) for row in annotations}

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
    notes = {
        "wav without a row": strays[".wav"],
        "txt without a row": strays[".txt"],
        "ignored, not of the corpus": ignored,
    }
    return files, {kind: names for kind, names in notes.items() if names}


def read_annotation_file(path: Path, layout: Layout, notes: dict[str, list[str]]) -> Iterator[Annotation]:
    """The rows of one csv, in their order; their Segment IDs are not looked at yet."""
    try:
        content = read_regular(path, MAX_TABLE_BYTES)
        rows = read_cells(content, "utf-8-sig")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not readable as a csv in utf-8 ({reason}): restore it from the corpus") from None
    _check_header(path, [[cell.strip() for cell in cells] for cells, _ in rows[:2]], layout)
    if content.startswith(b"\xef\xbb\xbf"):
        notes.setdefault("csv with a byte order mark", []).append(path.name)
    if b"\r\n" in content:
        notes.setdefault("csv with CRLF line ends", []).append(path.name)
    for as_written, line in rows[2:]:
        # One string for all cells that say "neutral": a row then keeps a few hundred bytes in memory, not thousands.
        cells = [sys.intern(cell.strip()) for cell in as_written]
        place = f"{path.name} line {line}"
        if not any(cells):
            yield Annotation(place, cells, problem=BLANK_ROW)
            continue
        if len(cells) < layout.total + 3:
            yield Annotation(place, cells, problem=f"row has fewer than {layout.total + 3} cells")
            continue
        written_id = cells[layout.segment_id]
        row = Annotation(written_id or place, cells, written_id=written_id)
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
    place, other = layout.segment_id + 1, OTHER_LAYOUT[layout]
    expected = f"two header rows of {layout.num_columns} columns with 'Segment ID' in column {place}"
    if first[other.segment_id : other.segment_id + 1] == ["Segment ID"] and not id_is_there:
        found = f"{len(first)} columns as in {other.corpus}, give --corpus {other.corpus.lower()}"
    elif not has_width:
        found = f"{len(first)} columns"
    else:
        cells = (first[layout.segment_id], second[layout.total : layout.total + 1])
        found = f"the headers {cells[0]!r} and {cells[1]} in columns {place} and {place + 1}"
    raise InputError(f"{path} has {found}; {layout.corpus} has {expected}: restore it or take it out of annotation/")


def _read_files(path: str, encoding: str, repairs: list[str]) -> dict:
    try:
        content = read_regular(f"{path}.txt", MAX_TRANSCRIPT_BYTES)
    except FileNotFoundError:
        has_audio = os.path.exists(f"{path}.wav")
        raise UnusableRow("transcript missing" if has_audio else "audio and transcript missing") from None
    except OSError as error:
        raise UnusableRow(TRANSCRIPT_TOO_LARGE if error.errno == errno.EFBIG else "transcript unreadable") from None
    if not content:
        raise UnusableRow("transcript empty")
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


def read_judgements(cells: list[str], layout: Layout, repairs: list[str]) -> dict:
    """What the raters said: `label` (None where they tie), `emotions` (the winners), `votes` (7 counts in the order of
    `EMOTIONS`), `valence` and `arousal` (means, 1 to 5), `start` and `end` (seconds in the recording of the topic)."""
    winners, winners_as_written = [], _split_labels(cells[layout.total].lower())
    for label in winners_as_written:
        emotion = _emotion(label)
        if emotion is None:
            raise UnusableRow("unknown emotion in Total Evaluation")
        if emotion not in winners:
            winners.append(emotion)
    if layout.disgust != "disgust" and "disgust" in winners_as_written:
        repairs.append(f"total label spelled disgust, not {layout.disgust}")
    numbers = {"valence": layout.total + 1, "arousal": layout.total + 2, "start": START, "end": END}
    return {
        "label": winners[0] if len(winners) == 1 else None,
        "emotions": winners,
        "votes": _count_votes(cells, layout, repairs),
        **{name: _number(cells[column], name, repairs) for name, column in numbers.items()},
    }


def _count_votes(cells: list[str], layout: Layout, repairs: list[str]) -> list[int]:
    labels = [label.lower() for label in cells[layout.total + 3 : layout.num_columns : 3]]
    labels += [""] * (NUM_RATERS - len(labels))
    votes = [_emotion(label) for label in labels]
    repairs += dict.fromkeys(
        f"{'unknown' if label else 'missing'} rater label not counted"
        for label, vote in zip(labels, votes)
        if vote is None
    )
    if layout.disgust != "disgust" and "disgust" in labels:
        repairs.append(f"rater label spelled disgust, not {layout.disgust}")
    return [votes.count(emotion) for emotion in EMOTIONS]


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
