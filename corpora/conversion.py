"""What became of every row of a corpus: counted while it is read, shown as a table, stored as JSON and CSV.
The table names the first few utterances of each kind, the files name all of them."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from corpora.rows import Corpus, Utterance
from foundation.words import first_names, inert, writable


REPORT_FILE = "conversion_report.json"
SKIPPED_FILE = "skipped.csv"
TIE = "tie"
MOST_WIDTH = 40


@dataclass
class ShardReport:
    """The rows of one shard; `skipped` and `repairs` map a reason or repair to the rows' names, in row order."""

    shard: str
    rows_read: int = 0
    rows_written: int = 0
    seconds: float = 0.0
    digest: str = ""
    labels: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    repairs: dict[str, list[str]] = field(default_factory=dict)

    def add(self, utterance: Utterance) -> None:
        self.rows_read += 1
        if utterance.columns is None:
            self.skipped.setdefault(utterance.problem, []).append(utterance.name)
            return
        self.rows_written += 1
        self.seconds += utterance.columns["duration"]
        label = utterance.columns["label"] or TIE
        self.labels[label] = self.labels.get(label, 0) + 1
        for repair in utterance.repairs:
            self.repairs.setdefault(repair, []).append(utterance.name)


def conversion_report(corpus: Corpus, shards: list[ShardReport]) -> dict:
    """The shards added up, as a dict for JSON; `skipped`, `repairs` and `notes` map a kind to a list of names.

    `labels` counts ties too where the corpus has raters.
    """
    names = (*corpus.label_names, TIE) if "emotions" in corpus.columns else corpus.label_names
    return {
        "rows_read": sum(shard.rows_read for shard in shards),
        "rows_written": sum(shard.rows_written for shard in shards),
        "rows_skipped": sum(len(skipped) for shard in shards for skipped in shard.skipped.values()),
        "skipped": _merged([shard.skipped for shard in shards]),
        "repairs": _merged([shard.repairs for shard in shards]),
        "notes": {kind: list(map(writable, names)) for kind, names in corpus.notes.items()},
        "labels": {name: sum(shard.labels.get(name, 0) for shard in shards) for name in names},
        "hours": sum(shard.seconds for shard in shards) / 3600,
    }


def _merged(kinds_per_shard: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for kinds in kinds_per_shard:
        for kind, names in kinds.items():
            merged.setdefault(kind, []).extend(map(writable, names))
    return dict(sorted(merged.items()))


def skipped_table(shards: list[ShardReport]) -> str:
    """The rows that were not written, as CSV: the shard, the row's name and the reason."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["shard", "row", "reason"])
    for shard in shards:
        writer.writerows(
            [shard.shard, inert(writable(name)), reason] for reason, names in shard.skipped.items() for name in names
        )
    return stream.getvalue()


def format_report(report: dict, output_dir: str | Path) -> str:
    """The closing table of a conversion, for people."""
    written = report["rows_written"]
    lines = [
        f"Rows read     {report['rows_read']:6d}",
        f"Rows written  {written:6d}",
        f"Rows skipped  {report['rows_skipped']:6d}",
        *_listed(report["skipped"]),
        f"Repairs       {sum(map(len, report['repairs'].values())):6d}  (rows written, but mended)",
        *_listed(report["repairs"]),
        f"Notes         {sum(map(len, report['notes'].values())):6d}  (of the folder, no rows)",
        *_listed(report["notes"]),
        "Labels",
    ]
    width = min(max(14, *map(len, report["labels"])), MOST_WIDTH)
    for label, count in report["labels"].items():
        lines.append(f"  {label:<{width}}  {count:6d}  {count / max(written, 1):6.1%}")
    lines.append(f"  {'total':<{width}}  {written:6d}  {1:6.1%}")
    lines.append(f"Audio  {report['hours']:.2f} hours")
    for name, value in report.get("asr_text", {}).items():
        lines.append(f"asr_text: {name} {value:.4g}")
    lines.append(f"Dataset in {writable(str(output_dir))} (complete lists in its {REPORT_FILE} and {SKIPPED_FILE})")
    return "\n".join(lines)


def _listed(kinds: dict[str, list[str]]) -> list[str]:
    if not kinds:
        return []
    width = max(map(len, kinds))
    return [f"  {kind:<{width}}  {len(names):6d}  {first_names(names)}" for kind, names in kinds.items()]
