"""The tables of the report as data, so that Markdown, HTML and CSV can't differ, and how its numbers are written.
Each system has one record of plain numbers under each protocol: the rows of results.csv, which other tables show."""

from dataclasses import dataclass, field

from experiments.results import (
    MAJORITY,
    PAPER,
    SESSION,
    Comparison,
    Difference,
    Results,
    Run,
    System,
    SystemScores,
    Table,
)
from metrics.intervals import FEW_GROUPS
from metrics.scores import LEADING, SCORES


PROTOCOLS = {
    SESSION: "folds of whole sessions; the epoch is chosen on rows of the training side",
    PAPER: "a random split, with speakers on both sides; the epoch is the one that is best on the reported rows",
}
SINGLE_MODALITIES = ("audio", "text")
# As the paper's tables divide them.
KINDS = {
    MAJORITY: "",
    "audio": "audio",
    "text": "text",
    "late_fusion": "late",
    "hybrid_fusion": "cross-modality",
}
EARLY = "early"
# Of p after the correction of Holm.
SIGNIFICANCE_LEVEL = 0.05
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Cell:
    """What a cell says, what stands below it in small letters, and whether to point at it."""

    text: str
    below: tuple[str, ...] = ()
    is_marked: bool = False


@dataclass
class Sheet:
    """
    A table as it is shown.

    Args:
        title (`str`): Above it.
        head (`list[str]`): Names of the columns.
        alignment (`str`): `l` or `r` for each column.
        rows (`list[list[Cell]]`): A plain string stands for a cell without anything below.
        notes (`list[str]`): What to know about it, a paragraph each.
    """

    title: str
    head: list[str]
    alignment: str
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    kind = "sheet"

    def __post_init__(self):
        self.rows = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


def format_score(value: float | None, digits: int = 3, is_difference: bool = False) -> str:
    """As the field writes scores, `.812` for 0.8123: a difference with its sign, and nothing for None."""
    if value is None:
        return ""
    text = f"{abs(value):.{digits}f}"
    text = text.removeprefix("0") if digits else text
    if not text.strip(".0"):
        return text
    return (MINUS if value < 0 else "+" if is_difference else "") + text


def format_p(p: float | None) -> str:
    return "<.001" if p is not None and p < 0.0005 else format_score(p)


def format_published(value: float | None) -> str:
    """With all its digits."""
    return "" if value is None else f"{value:.5f}".removeprefix("0")


def format_interval(low: float | None, high: float | None, is_difference: bool = False) -> str:
    """Both ends; nothing where a single session gives none."""
    if low is None or high is None:
        return ""
    return f"[{format_score(low, is_difference=is_difference)}, {format_score(high, is_difference=is_difference)}]"


def format_count(count: float | None) -> str:
    """Of rows, which may be a mean over seeds."""
    if count is None:
        return ""
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"


def format_seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def format_gibibytes(num_bytes: float | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 2**30:.2f}"


def find_protocols(results: Results) -> list[str]:
    """Those that the plan has, the fair one first."""
    there = {run.protocol for run in results.runs} | {scores.protocol for scores in results.scores}
    return [protocol for protocol in PROTOCOLS if protocol in there]


def find_scores(results: Results, protocol: str) -> list[SystemScores]:
    """Of the systems with a finished run, in the order of the plan."""
    by_name = {scores.system: scores for scores in results.scores if scores.protocol == protocol}
    return [by_name[system.name] for system in results.systems if system.name in by_name]


def find_system(results: Results, name: str) -> System:
    return next(system for system in results.systems if system.name == name)


def is_fusion(system: System) -> bool:
    """Whether it has both modalities."""
    return system.fusion != MAJORITY and system.fusion not in SINGLE_MODALITIES


def is_significant(difference: Difference) -> bool:
    return difference.p_holm is not None and difference.p_holm < SIGNIFICANCE_LEVEL


def find_difference(results: Results, protocol: str, system: str, reference: str) -> Difference | None:
    """What the macro F1 of a system has above that of another."""
    for comparison in results.comparisons:
        if comparison.protocol != protocol or LEADING not in comparison.differences:
            continue
        difference = comparison.differences[LEADING]
        if (comparison.first, comparison.second) == (system, reference):
            return difference
        if (comparison.first, comparison.second) == (reference, system):
            low = None if difference.high is None else -difference.high
            high = None if difference.low is None else -difference.low
            return Difference(-difference.value, low, high, difference.p, difference.p_holm)
    return None


def system_records(results: Results) -> list[dict]:
    """
    One record for each protocol and each system that has a run or scores there, with the same keys.

    Returns:
        Plain values, None for what isn't there: what the system is, its `state`, `runs` and `rows`, each of `SCORES`
        (`macro_f1`, and the same with `_low`, `_high`, `_mean`, `_sd`), `f1_`, `recall_`, `rows_` and `predicted_` for
        each class, the published number, and the cost of a run.
    """
    scores = {(entry.system, entry.protocol): entry for entry in results.scores}
    planned = scores.keys() | {(run.system, run.protocol) for run in results.runs}
    return [
        _system_record(results, system, protocol, scores.get((system.name, protocol)))
        for protocol in find_protocols(results)
        for system in results.systems
        if (system.name, protocol) in planned
    ]


def _system_record(results: Results, system: System, protocol: str, scores: SystemScores | None) -> dict:
    runs = [run for run in results.runs if (run.system, run.protocol) == (system.name, protocol)]
    published = (row.published for table in results.tables for row in table.rows if row.system == system.name)
    record = {
        "protocol": protocol,
        "system": system.name,
        "fusion": system.fusion,
        "kind": KINDS.get(system.fusion, EARLY),
        "text_model": system.text_model,
        "audio_model": system.audio_model,
        "variant": system.variant,
        "is_baseline": system.is_baseline,
        "published_weighted_f1": next((value for value in published if value is not None), None),
        "state": "finished" if scores else "failed" if runs else "not run",
        "runs": scores.num_runs if scores else 0,
        "failed_runs": sum(run.error is not None for run in runs),
        "folds": " ".join(map(str, scores.folds)) if scores else "",
        "seeds": " ".join(map(str, scores.seeds)) if scores else "",
        "rows": scores.num_rows if scores else None,
        "group_column": scores.group_column if scores else None,
        "groups": scores.num_groups if scores else None,
    }
    for name in SCORES:
        estimate = scores.estimates.get(name) if scores else None
        for suffix, value in (("", "value"), ("_low", "low"), ("_high", "high"), ("_mean", "mean"), ("_sd", "sd")):
            record[name + suffix] = None if estimate is None else getattr(estimate, value)
    calibration, cost = (scores.calibration, scores.cost) if scores else (None, None)
    record["expected_calibration_error"] = calibration and calibration.expected_calibration_error
    classes = {entry.name: entry for entry in scores.classes} if scores else {}
    record["predicted_classes"] = sum(entry.predicted > 0 for entry in classes.values()) if scores else None
    for label in results.label_names:
        for name in ("f1", "recall", "rows", "predicted"):
            record[f"{name}_{label}"] = getattr(classes[label], name) if label in classes else None
    for name in ("parameters", "fusion_parameters", "seconds", "peak_memory_bytes"):
        record[name] = None if cost is None else getattr(cost, name)
    return record


def run_records(results: Results) -> list[dict]:
    """One record for each run, with the same keys: the rows of runs.csv."""
    names = list(dict.fromkeys([*SCORES, *(name for run in results.runs for name in run.scores)]))
    names_of_last = list(dict.fromkeys(name for run in results.runs for name in run.last_epoch))
    return [_run_record(run, names, names_of_last) for run in results.runs]


def _run_record(run: Run, names: list[str], names_of_last: list[str]) -> dict:
    record = {
        "name": run.name,
        "protocol": run.protocol,
        "system": run.system,
        "fold": run.fold,
        "seed": run.seed,
        "state": "finished" if run.error is None else "failed",
        "error": run.error,
    }
    record |= {name: run.scores.get(name) for name in names}
    record |= {f"last_epoch_{name}": run.last_epoch.get(name) for name in names_of_last}
    cost = ("parameters", "fusion_parameters", "seconds", "peak_memory_bytes")
    return record | {name: getattr(run, name) for name in cost} | {"command": run.command}


def score_with_interval(record: dict, name: str) -> str:
    return f"{format_score(record[name])} {format_interval(record[f'{name}_low'], record[f'{name}_high'])}".strip()


def scores_sheet(results: Results, protocol: str) -> Sheet:
    """All systems under one protocol."""
    rows = []
    for record in _records_of(results, protocol):
        cells = [_name_cell(record)]
        if record["state"] != "finished":
            rows.append([*cells, Cell(record["state"], is_marked=True), *[""] * (len(SCORES) + 2)])
            continue
        for name in SCORES:
            mean, sd = format_score(record[f"{name}_mean"]), format_score(record[f"{name}_sd"])
            runs = f"{mean} ± {sd}" if sd else f"{mean}, one run" if record["runs"] == 1 else mean
            cells.append(Cell(score_with_interval(record, name), (runs,)))
        failed = (f"{record['failed_runs']} failed",) if record["failed_runs"] else ()
        cells += [
            format_score(record["expected_calibration_error"]),
            Cell(str(record["runs"]), failed, bool(failed)),
            format_count(record["rows"]),
        ]
        rows.append(cells)
    head = ["system", *(score.short for score in SCORES.values()), "ECE", "runs", "rows"]
    notes = [_intervals_note(find_scores(results, protocol))]
    if protocol == PAPER:
        notes.append(
            "Read with care: the protocol paper picks the epoch on the very rows that are reported, and speakers and "
            "sessions of these rows were trained on."
        )
    return Sheet(f"Protocol {protocol}: {PROTOCOLS[protocol]}", head, "l" + "r" * (len(head) - 1), rows, notes)


def _records_of(results: Results, protocol: str) -> list[dict]:
    return [record for record in system_records(results) if record["protocol"] == protocol]


def _name_cell(record: dict) -> Cell:
    return Cell(record["system"], ("baseline",) if record["is_baseline"] else ())


def _intervals_note(scores: list[SystemScores]) -> str:
    """What the numbers of a table of scores are."""
    text = (
        "The first line of a cell is the score of the rows of all folds together (pooled, the mean over the seeds), "
        "the second mean ± standard deviation over the runs, one for each fold and seed. "
    )
    groups = {entry.group_column for entry in scores}
    counts = sorted({entry.num_groups for entry in scores})
    number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else ""
    if not scores or not any(entry.estimates[name].low is not None for entry in scores for name in entry.estimates):
        text += "There are no intervals: nothing that could be drawn again and again."
    elif groups == {None}:
        text += (
            f"In brackets is the 95 % interval of a bootstrap over the {number} rows. If several are of one speaker, "
            "the true one is wider."
        )
    else:
        column = next(name for name in sorted(groups, key=str) if name is not None)
        text += (
            f"In brackets is its 95 % interval: a bootstrap that draws the {number} {column}s whole, since utterances "
            f"of one {column} are alike."
        )
        if counts[0] < FEW_GROUPS:
            text += f" With so few {column}s the true interval is wider."
    return f"{text} UAR: unweighted average recall. ECE: expected calibration error."


def paper_sheet(results: Results, table: Table) -> Sheet:
    """A table of the plan, with ours beside what the paper published for it, if anything."""
    records = {(record["system"], record["protocol"]): record for record in system_records(results)}
    protocols, rows = find_protocols(results), []
    for row in table.rows:
        system = find_system(results, row.system)
        kind = KINDS.get(system.fusion, EARLY)
        names = [system.fusion, kind, system.text_model or "", system.audio_model or "", system.variant or ""]
        cells = [*names, format_published(row.published)]
        for protocol in protocols:
            record = records.get((system.name, protocol))
            if record is None or record["state"] != "finished":
                cells += [Cell("not run" if record is None else record["state"], is_marked=record is not None), "", ""]
                continue
            weighted = (format_interval(record["weighted_f1_low"], record["weighted_f1_high"]),)
            cells.append(Cell(format_score(record["weighted_f1"]), weighted if weighted[0] else ()))
            cells += [format_score(record[name]) for name in ("macro_f1", "unweighted_average_recall")]
        rows.append(cells)
    head = ["fusion", "kind", "text backbone", "audio backbone", "variant", "published weighted F1"]
    for protocol in protocols:
        head += [f"weighted F1 ({protocol})", f"macro F1 ({protocol})", f"UAR ({protocol})"]
    alignment = "lllll" + "r" * (len(head) - 5)
    notes = ["Weighted F1 stands over its 95 % interval."]
    if any(row.published is not None for row in table.rows):
        notes.append(
            "Published: weighted F1 of one run on a random split, the best of ten epochs chosen on the reported rows, "
            "2,560 rows, where a 95 % interval is about ± .012; of our protocols, paper is the one that does the same."
        )
        return Sheet(table.title, head, alignment, rows, notes)
    column = head.index("published weighted F1")
    head, alignment, *rows = ([*cells[:column], *cells[column + 1 :]] for cells in (head, alignment, *rows))
    return Sheet(table.title, head, "".join(alignment), rows, notes)


def comparisons_sheet(results: Results, protocol: str) -> Sheet | None:
    """Every pair, the surest difference first."""
    pairs = [entry for entry in results.comparisons if entry.protocol == protocol and LEADING in entry.differences]
    if not pairs:
        return None

    def order(pair: Comparison) -> tuple[float, float]:
        difference = pair.differences[LEADING]
        return (2.0 if difference.p_holm is None else difference.p_holm, -abs(difference.value))

    rows = []
    for pair in sorted(pairs, key=order):
        difference, mcnemar = pair.differences[LEADING], pair.mcnemar
        rows.append(
            [
                pair.first,
                pair.second,
                format_score(difference.value, is_difference=True),
                format_interval(difference.low, difference.high, is_difference=True),
                format_p(difference.p),
                Cell(format_p(difference.p_holm), is_marked=is_significant(difference)),
                f"{pair.seeds_above} of {len(pair.seeds)}",
                f"{format_count(mcnemar.only_first)} / {format_count(mcnemar.only_second)}",
                format_p(mcnemar.p),
                Cell(format_p(mcnemar.p_holm), is_marked=mcnemar.p_holm < SIGNIFICANCE_LEVEL),
                format_count(pair.num_rows),
            ]
        )
    head = ["first", "second", "difference in macro F1", "95 % interval", "p", "p (Holm)", "seeds above"]
    head += ["right only in first / second", "McNemar p", "McNemar p (Holm)", "rows"]
    notes = [
        "First minus second, on the rows that both were scored on, sessions drawn whole. Holm's correction is for all "
        f"{len(pairs)} comparisons of the protocol; below .05 is marked. Seeds above: with how many seeds the first is "
        "ahead. McNemar's exact test is of the accuracy, and takes rows for independent."
    ]
    return Sheet(f"All pairs, protocol {protocol}", head, "ll" + "r" * (len(head) - 2), rows, notes)


def classes_sheet(results: Results, protocol: str) -> Sheet:
    """F1, recall, rows and predicted rows of each class, and how many classes a system knows at all."""
    rows = []
    for record in _records_of(results, protocol):
        if record["state"] != "finished":
            continue
        known, number = record["predicted_classes"], len(results.label_names)
        cells = [_name_cell(record), Cell(f"{known} of {number}", is_marked=known < number)]
        for label in results.label_names:
            recall = f"recall {format_score(record[f'recall_{label}'])}"
            counts = (
                f"{format_count(record[f'predicted_{label}'])} predicted",
                f"{format_count(record[f'rows_{label}'])} rows",
            )
            cells.append(Cell(format_score(record[f"f1_{label}"]), (recall, *counts), not record[f"predicted_{label}"]))
        rows.append(cells)
    head = ["system", "classes predicted", *results.label_names]
    notes = ["F1 of each class, then its recall, how often it was predicted, and how many rows it has. Marked: never."]
    return Sheet(f"Classes, protocol {protocol}", head, "l" + "r" * (len(head) - 1), rows, notes)


def flattery_sheet(results: Results) -> Sheet:
    """What choosing the epoch on the reported rows, and speakers on both sides, add."""
    rows = []
    for entry in results.flattery:
        difference = entry.difference
        cells = [
            entry.system,
            SCORES[entry.score].short,
            *(format_score(value) for value in (entry.best_epoch, entry.last_epoch, entry.session)),
            format_score(entry.best_epoch - entry.last_epoch, is_difference=True),
        ]
        if difference is None:
            cells += ["", "", ""]
        else:
            cells += [
                format_score(difference.value, is_difference=True),
                format_interval(difference.low, difference.high, is_difference=True),
                format_count(entry.num_rows),
            ]
        rows.append(cells)
    head = ["system", "score", "paper: best epoch", "paper: last epoch", "session"]
    head += ["best − last epoch", "best epoch − session", "95 % interval", "rows of both"]
    notes = [
        "Best epoch: as the paper reports, chosen on the reported rows. Last epoch: the same runs with nothing chosen, "
        "speakers still on both sides. Session: speakers apart. The last difference is on the rows that both protocols "
        "scored."
    ]
    return Sheet("What the paper's protocol adds", head, "ll" + "r" * (len(head) - 2), rows, notes)


def cost_sheet(results: Results, protocol: str) -> Sheet | None:
    """Of one run."""
    rows = []
    for record in _records_of(results, protocol):
        if record["parameters"] is not None:
            counts = (f"{record[name]:,.0f}" for name in ("parameters", "fusion_parameters"))
            cost = [format_seconds(record["seconds"]), format_gibibytes(record["peak_memory_bytes"])]
            rows.append([record["system"], score_with_interval(record, LEADING), *counts, *cost])
    head = ["system", "macro F1", "parameters", "of the fusion", "seconds", "peak memory (GiB)"]
    notes = ["Means over the runs; a run is one fold with one seed, in a process of its own."]
    return Sheet(f"Cost of a run, protocol {protocol}", head, "lrrrrr", rows, notes) if rows else None


def failures_sheet(results: Results) -> Sheet | None:
    """Runs that failed, and why."""
    rows = [[run.name, run.system, Cell(run.error, is_marked=True)] for run in results.runs if run.error is not None]
    return Sheet("Failed runs", ["run", "system", "error"], "lll", rows) if rows else None


def runs_sheet(results: Results) -> Sheet:
    """Every run."""
    rows = []
    for record in run_records(results):
        error = record["error"]
        state = Cell(record["state"], () if error is None else (error,), error is not None)
        number = record["parameters"]
        rows.append(
            [
                record["name"],
                record["protocol"],
                record["system"],
                "" if record["fold"] is None else str(record["fold"]),
                str(record["seed"]),
                state,
                *(format_score(record[name]) for name in SCORES),
                format_seconds(record["seconds"]),
                format_gibibytes(record["peak_memory_bytes"]),
                "" if number is None else f"{number:,}",
            ]
        )
    head = ["run", "protocol", "system", "fold", "seed", "state", *(score.short for score in SCORES.values())]
    head += ["seconds", "peak memory (GiB)", "parameters"]
    return Sheet("Runs", head, "lllrrl" + "r" * (len(head) - 6), rows)


def versions_sheet(results: Results) -> Sheet:
    rows = [[name, version] for name, version in results.versions.items()]
    return Sheet("Versions", ["", "version"], "ll", rows)
