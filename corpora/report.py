"""What became of every row of a corpus: counted while it is read, shown as a table, stored as JSON.
The table names the first few utterances of each kind, the JSON names all of them."""

from dataclasses import dataclass, field
from pathlib import Path

from configuration_rsa_cfn import EMOTIONS
from corpora.kemdy20 import Corpus, Utterance


REPORT_FILE = "conversion_report.json"
TIE = "tie"
NAMES_SHOWN = 5


@dataclass
class SessionReport:
    """The rows of one session; `skipped` and `repairs` map a reason or repair to the Segment IDs, in row order."""

    session: int
    rows_read: int = 0
    rows_written: int = 0
    seconds: float = 0.0
    digest: str = ""
    labels: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*EMOTIONS, TIE), 0))
    skipped: dict[str, list[str]] = field(default_factory=dict)
    repairs: dict[str, list[str]] = field(default_factory=dict)

    def add(self, utterance: Utterance) -> None:
        self.rows_read += 1
        if utterance.columns is None:
            self.skipped.setdefault(utterance.problem, []).append(utterance.name)
            return
        self.rows_written += 1
        self.seconds += utterance.columns["duration"]
        self.labels[utterance.columns["label"] or TIE] += 1
        for repair in utterance.repairs:
            self.repairs.setdefault(repair, []).append(utterance.name)


def conversion_report(corpus: Corpus, sessions: list[SessionReport]) -> dict:
    """Adds the sessions up.

    Returns:
        A dict that JSON can hold: `rows_read`, `rows_written`, `skipped`, `repairs` (kind to list of names), `labels`
        (count per emotion, and of ties), `hours` of audio written, the names in `wav_without_row`, `txt_without_row`,
        `ignored_files`, and the csv files in `annotation_with_bom`, `annotation_with_crlf`.
    """
    return {
        "rows_read": sum(session.rows_read for session in sessions),
        "rows_written": sum(session.rows_written for session in sessions),
        "skipped": _merged([session.skipped for session in sessions]),
        "repairs": _merged([session.repairs for session in sessions]),
        "wav_without_row": corpus.wav_without_row,
        "txt_without_row": corpus.txt_without_row,
        "ignored_files": corpus.ignored_files,
        "annotation_with_bom": [session.annotation_file.name for session in corpus.sessions if session.has_bom],
        "annotation_with_crlf": [session.annotation_file.name for session in corpus.sessions if session.has_crlf],
        "labels": {label: sum(session.labels[label] for session in sessions) for label in (*EMOTIONS, TIE)},
        "hours": sum(session.seconds for session in sessions) / 3600,
    }


def _merged(kinds_per_session: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for kinds in kinds_per_session:
        for kind, names in kinds.items():
            merged.setdefault(kind, []).extend(names)
    return dict(sorted(merged.items()))


def format_report(report: dict, output_dir: str | Path) -> str:
    """The closing table of a conversion, for people."""
    written = report["rows_written"]
    lines = [
        f"Rows read     {report['rows_read']:6d}",
        f"Rows written  {written:6d}",
        f"Rows skipped  {report['rows_read'] - written:6d}",
        *_listed(report["skipped"]),
        f"Repairs       {sum(map(len, report['repairs'].values())):6d}  (rows written, but mended)",
        *_listed(report["repairs"]),
    ]
    files = {
        "wav without a row": report["wav_without_row"],
        "txt without a row": report["txt_without_row"],
        "ignored, not of the corpus": report["ignored_files"],
        "csv with a byte order mark": report["annotation_with_bom"],
        "csv with CRLF line ends": report["annotation_with_crlf"],
    }
    files = {kind: names for kind, names in files.items() if names}
    lines += [f"Files of note {sum(map(len, files.values())):6d}", *_listed(files), "Labels"]
    for label, count in report["labels"].items():
        name = "tie (no label)" if label == TIE else label
        lines.append(f"  {name:<14}  {count:6d}  {count / max(written, 1):6.1%}")
    lines.append(f"  {'total':<14}  {written:6d}  {1:6.1%}")
    lines.append(f"Audio  {report['hours']:.2f} hours")
    lines.append(f"Dataset in {output_dir} (complete lists in its {REPORT_FILE})")
    return "\n".join(lines)


def _listed(kinds: dict[str, list[str]]) -> list[str]:
    if not kinds:
        return []
    width = max(map(len, kinds))
    lines = []
    for kind, names in kinds.items():
        lines.append(f"  {kind:<{width}}  {len(names):6d}  {first_names(names)}")
    return lines


def first_names(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
