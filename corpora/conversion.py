"""What became of every row of a corpus: counted while it is read, shown as a table, stored as JSON and CSV.
The table names the first few utterances of each kind, the files name all of them."""

import csv
import io
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from corpora.rows import Corpus, Row
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
    labels: Counter = field(default_factory=Counter)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    repairs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: Row) -> None:
        self.rows_read += 1
        for repair in row.repairs:
            self.repairs[repair].append(row.name)
        if row.columns is None:
            self.skipped[row.problem].append(row.name)
        else:
            self.rows_written += 1
            self.seconds += row.columns["duration"]
            self.labels[row.columns["label"] or TIE] += 1


def conversion_report(corpus: Corpus, shards: list[ShardReport]) -> dict:
    """The shards added up, as a dict for JSON; `skipped`, `repairs` and `notes` map a kind to a list of names. `labels`
    counts ties too where the corpus has raters."""
    names = (*corpus.label_names, TIE) if "emotions" in corpus.columns else corpus.label_names
    return {
        "rows_read": sum(shard.rows_read for shard in shards),
        "rows_written": sum(shard.rows_written for shard in shards),
        "rows_skipped": sum(len(skipped) for shard in shards for skipped in shard.skipped.values()),
        "skipped": _merged([shard.skipped for shard in shards]),
        "repairs": _merged([shard.repairs for shard in shards]),
        "notes": {kind: list(map(writable, names)) for kind, names in corpus.notes.items()},
        "labels": {name: sum(shard.labels[name] for shard in shards) for name in names},
        "hours": sum(shard.seconds for shard in shards) / 3600,
    }


def _merged(kinds_per_shard: list[dict[str, list[str]]]) -> dict[str, list[str]]:
    merged = {kind: [] for kind in sorted(set().union(*kinds_per_shard))}
    for kind, names in merged.items():
        names += [writable(name) for kinds in kinds_per_shard for name in kinds.get(kind, ())]
    return merged


def skipped_table(shards: list[ShardReport]) -> str:
    """The rows that were not written, as CSV: the shard, the row's name and the reason."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["shard", "row", "reason"])
    for shard in shards:
        for reason, names in shard.skipped.items():
            writer.writerows([shard.shard, inert(writable(name)), reason] for name in names)
    return stream.getvalue()


def format_report(report: dict, output_dir: str | Path) -> str:
    """The closing table of a conversion, for people."""
    written = report["rows_written"]
    lines = [f"Rows read     {report['rows_read']:6d}", f"Rows written  {written:6d}"]
    told = {"repairs": "  (rows written, but mended)", "notes": "  (of the folder, no rows)"}
    for title, what in (("Rows skipped", "skipped"), ("Repairs", "repairs"), ("Notes", "notes")):
        kinds = report[what]
        lines.append(f"{title:<14}{sum(map(len, kinds.values())):6d}{told.get(what, '')}")
        width = max(map(len, kinds), default=0)
        lines += [f"  {kind:<{width}}  {len(names):6d}  {first_names(names)}" for kind, names in kinds.items()]
    lines.append("Labels")
    width = min(max(14, *map(len, report["labels"])), MOST_WIDTH)
    for label, count in report["labels"].items():
        lines.append(f"  {label:<{width}}  {count:6d}  {count / max(written, 1):6.1%}")
    lines.append(f"  {'total':<{width}}  {written:6d}  {1:6.1%}")
    lines.append(f"Audio  {report['hours']:.2f} hours")
    for name, value in report.get("asr_text", {}).items():
        lines.append(f"asr_text: {name} {value:.4g}")
    lines.append(f"Dataset in {writable(str(output_dir))} (complete lists in its {REPORT_FILE} and {SKIPPED_FILE})")
    return "\n".join(lines)
