"""The tables of the report as they are shown, in Markdown and HTML alike, and how their numbers are written."""

from dataclasses import dataclass, field

import pandas
from pandas import DataFrame, Series

from experiments.records import EARLY, KINDS, MIN_SEEDS, pair_frame, run_frame, system_frame
from experiments.results import PAPER, SESSION, Difference, Results, SystemScores, Table
from metrics.intervals import FEW_GROUPS
from metrics.scores import LEADING, SCORES
from training.arguments import CONDITIONS


PROTOCOL_TITLES = {
    SESSION: "folds of whole sessions; the epoch is chosen on rows of the training side",
    PAPER: "a random split, with speakers on both sides; the epoch is the one that is best on the reported rows",
}
# What else than all rows is scored, by its name in a run.
ELSEWHERE = {
    **{name: f"{name.removeprefix('noise')} dB" if name.startswith("noise") else name for name in CONDITIONS},
    "audio": "audio alone",
    "text": "text alone",
    **{f"worst_{name}": f"worst {name}" for name in ("gender", "speaker", "length", "disagreement")},
}
# Columns of words, which are flush left; numbers are flush right.
WORDS = ("", "system", "first", "second", "score", "fusion", "kind", "text backbone", "audio backbone", "variant")
WORDS += ("run", "error", "version")
PUBLISHED = "published weighted F1"
MINUS = "\N{MINUS SIGN}"


@dataclass
class Sheet:
    """A table as it is shown."""

    title: str
    frame: DataFrame  # of text; what follows the first line of a cell stands below it in small letters
    notes: list[str] = field(default_factory=list)  # what to know about it, a paragraph each
    marked: dict[str, Series] = field(default_factory=dict)  # column → which of its cells are pointed at
    kind = "sheet"

    @property
    def sides(self) -> list[str]:
        """`l` or `r` for each column."""
        return ["l" if name in WORDS else "r" for name in self.frame]

    @property
    def rows(self) -> list[list[tuple[str, list[str], bool]]]:
        """Of each cell the first line, those below, and whether it is pointed at."""
        marks = DataFrame(False, self.frame.index, self.frame.columns).assign(**self.marked)
        lines = self.frame.map(lambda cell: cell.split("\n"))
        rows = zip(lines.to_numpy().tolist(), marks.to_numpy().tolist(), strict=True)
        return [[(first, below, is_marked) for (first, *below), is_marked in zip(*row)] for row in rows]


def format_score(value: float | None, digits: int = 3, is_difference: bool = False) -> str:
    """As the field writes scores, `.812` for 0.8123: a difference with its sign, and nothing for None or NaN."""
    if pandas.isna(value):
        return ""
    text = f"{abs(value):.{digits}f}"
    text = text.removeprefix("0") if digits else text
    if not text.strip(".0"):
        return text
    return (MINUS if value < 0 else "+" if is_difference else "") + text


def format_difference(value: float | None) -> str:
    return format_score(value, is_difference=True)


def format_p(p: float | None) -> str:
    return "<.001" if p is not None and p < 0.0005 else format_score(p)


def format_interval(low: float | None, high: float | None, is_difference: bool = False) -> str:
    """Both ends; nothing where too few sessions give none."""
    if pandas.isna(low) or pandas.isna(high):
        return ""
    return f"[{format_score(low, is_difference=is_difference)}, {format_score(high, is_difference=is_difference)}]"


def format_count(count: float | None) -> str:
    """Of rows, which may be a mean over seeds."""
    if pandas.isna(count):
        return ""
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"


def _intervals(frame: DataFrame, name: str) -> Series:
    ends = zip(frame[f"{name}_low"], frame[f"{name}_high"])
    return Series([format_interval(*both) for both in ends], frame.index, dtype=object)


def _with_interval(frame: DataFrame, name: str) -> Series:
    return (frame[name].map(format_score) + " " + _intervals(frame, name)).str.strip()


def _names(systems: DataFrame) -> Series:
    return systems.system + systems.is_baseline.map({True: "\nbaseline", False: ""})


def _of_protocol(results: Results, protocol: str) -> DataFrame:
    """The best in macro F1 first, what isn't finished last."""
    systems = system_frame(results)
    return systems[systems.protocol == protocol].sort_values(LEADING, ascending=False, key=_floats, kind="stable")


def _floats(values: Series) -> Series:
    return values.astype(float)


def scores_sheet(results: Results, protocol: str) -> Sheet:
    """All systems under one protocol."""
    systems = _of_protocol(results, protocol)
    is_finished = systems.state == "finished"
    shown = DataFrame({"system": _names(systems)}, dtype=object)
    for name, title in results.titles.items():
        runs = systems[f"{name}_mean"].map(format_score)
        runs += systems[f"{name}_sd"].map(lambda sd: "" if sd is None else f" ± {format_score(sd)}")
        runs[systems.runs == 1] += ", one run"
        shown[title] = (_with_interval(systems, name) + "\n" + runs).where(systems[name].notna(), "")
    counts = zip(systems.runs, systems.failed_runs)
    shown["ECE"] = systems.expected_calibration_error.map(format_score)
    shown["runs"] = [f"{runs}\n{failed} failed" if failed else f"{runs}" for runs, failed in counts]
    shown["rows"] = systems.rows.map(format_count)
    shown.loc[~is_finished, shown.columns[1:]] = ""
    first = shown.columns[1]
    shown.loc[~is_finished, first] = systems.state[~is_finished]
    notes = [_intervals_note(results.scores_of(protocol))]
    if protocol == PAPER:
        notes.append(
            "Read with care: the protocol paper picks the epoch on the very rows that are reported, and speakers and "
            "sessions of these rows were trained on."
        )
    marked = {first: ~is_finished, "runs": is_finished & (systems.failed_runs > 0)}
    return Sheet(f"Protocol {protocol}: {PROTOCOL_TITLES[protocol]}", shown, notes, marked)


def _intervals_note(scores: list[SystemScores]) -> str:
    """What the numbers of a table of scores are."""
    text = (
        "The first line of a cell is the score of the rows of all folds together (pooled, the mean over the seeds), "
        "the second mean ± standard deviation over the runs, one for each fold and seed. "
    )
    columns = sorted({entry.group_column for entry in scores if entry.group_column is not None})
    counts = sorted({entry.num_groups for entry in scores})
    number = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
    if not any(estimate.low is not None for entry in scores for estimate in entry.estimates.values()):
        text += "There are no intervals: nothing that could be drawn again and again."
    elif not columns:
        text += (
            f"In brackets is the 95 % interval of a bootstrap over the {number} rows. If several are of one speaker, "
            "the true one is wider."
        )
    else:
        text += (
            f"In brackets is its 95 % interval: a bootstrap that draws the {number} {columns[0]}s whole, since "
            f"utterances of one {columns[0]} are alike."
        )
        if counts[0] < FEW_GROUPS:
            text += f" With so few {columns[0]}s the true interval is wider."
    return f"{text} UAR: unweighted average recall. ECE: expected calibration error."


def paper_sheet(results: Results, table: Table) -> Sheet:
    """A table of the plan, with ours beside what the paper published for it, if anything."""
    systems = DataFrame([vars(system) for system in results.systems], dtype=object).set_index("name")
    systems = systems.loc[[row.system for row in table.rows]]
    columns = {"fusion": systems.fusion, "kind": systems.fusion.map(lambda fusion: KINDS.get(fusion, EARLY))}
    columns |= {"text backbone": systems.text_model, "audio backbone": systems.audio_model, "variant": systems.variant}
    shown, marked = DataFrame(columns, dtype=object).fillna(""), {}
    notes = ["Weighted F1 stands over its 95 % interval."]
    if any(row.published is not None for row in table.rows):
        shown[PUBLISHED] = [format_score(row.published, digits=5) for row in table.rows]
        notes.append(
            "Published: weighted F1 of one run on a random split, the best of ten epochs chosen on the reported rows, "
            "2,560 rows, where a 95 % interval is about ± .012; of our protocols, paper is the one that does the same."
        )
    for protocol in results.protocols:
        ours = _of_protocol(results, protocol).set_index("system").reindex(systems.index)
        is_finished, state = ours.state == "finished", ours.state.fillna("not run")
        weighted = (ours.weighted_f1.map(format_score) + "\n" + _intervals(ours, "weighted_f1")).str.strip()
        shown[f"weighted F1 ({protocol})"] = weighted.where(is_finished, state)
        marked[f"weighted F1 ({protocol})"] = ours.state == "failed"
        for name in (LEADING, "unweighted_average_recall"):
            shown[f"{SCORES[name].short} ({protocol})"] = ours[name].map(format_score)
    return Sheet(table.title, shown, notes, marked)


def comparisons_sheet(results: Results, protocol: str) -> Sheet | None:
    """Every pair, the surest difference first."""
    pairs = pair_frame(results, protocol)
    if pairs.empty:
        return None
    order = DataFrame({"p": pairs.p_holm.fillna(2.0), "size": -pairs.value.abs()})
    pairs = pairs.loc[order.sort_values(["p", "size"], kind="stable").index]
    shown = DataFrame(
        {
            "first": pairs["first"],
            "second": pairs["second"],
            "difference in macro F1": pairs.value.map(format_difference),
            "95 % interval": [format_interval(*ends, is_difference=True) for ends in zip(pairs.low, pairs.high)],
            "p": pairs.p.map(format_p),
            "p (Holm)": pairs.p_holm.map(format_p),
            "seeds above": [f"{above} of {len(seeds)}" for above, seeds in zip(pairs.seeds_above, pairs.seeds)],
            "rows": pairs.num_rows.map(format_count),
        },
        dtype=object,
    )
    notes = [
        "First minus second, on the rows that both were scored on, sessions drawn whole. Holm's correction is for all "
        f"{len(pairs)} comparisons of the protocol; below .05 is marked, from {MIN_SEEDS} seeds on. Seeds above: with "
        "how many seeds the first is ahead."
    ]
    return Sheet(f"All pairs, protocol {protocol}", shown, notes, {"p (Holm)": pairs.is_significant})


def classes_sheet(results: Results, protocol: str) -> Sheet:
    """F1, recall, rows and predicted rows of each class, and how many classes a system knows at all."""
    systems, number = _of_protocol(results, protocol), len(results.label_names)
    systems = systems[systems.state == "finished"]
    known = "classes predicted"
    shown = DataFrame({"system": _names(systems), known: systems.predicted_classes.map(f"{{}} of {number}".format)})
    marked = {known: systems.predicted_classes < number}
    for label in results.label_names:
        recall = "\nrecall " + systems[f"recall_{label}"].map(format_score)
        predicted = "\n" + systems[f"predicted_{label}"].map(format_count) + " predicted"
        rows = "\n" + systems[f"rows_{label}"].map(format_count) + " rows"
        shown[label] = systems[f"f1_{label}"].map(format_score) + recall + predicted + rows
        marked[label] = systems[f"predicted_{label}"] == 0
    notes = ["F1 of each class, then its recall, how often it was predicted, and how many rows it has. Marked: never."]
    return Sheet(f"Classes, protocol {protocol}", shown, notes, marked)


def flattery_sheet(results: Results) -> Sheet | None:
    """What choosing the epoch on the reported rows, and speakers on both sides, add."""
    if not results.flattery:
        return None
    missing = Difference(None, None, None)
    flattery = DataFrame([vars(entry) | vars(entry.difference or missing) for entry in results.flattery])
    ends = zip(flattery.low, flattery.high)
    columns = {
        "system": flattery.system,
        "score": flattery.score.map(lambda name: SCORES[name].short),
        "paper: best epoch": flattery.best_epoch.map(format_score),
        "paper: last epoch": flattery.last_epoch.map(format_score),
        "session": flattery.session.map(format_score),
        "best − last epoch": (flattery.best_epoch - flattery.last_epoch).map(format_difference),
        "best epoch − session": flattery.value.map(format_difference),
        "95 % interval": [format_interval(*both, is_difference=True) for both in ends],
        "rows of both": flattery.num_rows.where(flattery.value.notna()).map(format_count),
    }
    notes = [
        "Best epoch: as the paper reports, chosen on the reported rows. Last epoch: the same runs with nothing chosen, "
        "speakers still on both sides. Session: speakers apart. The last difference is on the rows that both protocols "
        "scored."
    ]
    return Sheet("What the paper's protocol adds", DataFrame(columns), notes)


def conditions_sheet(results: Results, protocol: str) -> Sheet | None:
    """Macro F1 of what else was scored than all rows with both modalities; nothing where that was all."""
    runs = [{"system": run.system} | run.scores for run in results.runs if run.protocol == protocol and run.scores]
    others = {f"{name}_{LEADING}": title for name, title in ELSEWHERE.items()}
    others = {name: title for name, title in others.items() if any(name in run for run in runs)}
    if not others:
        return None
    means = DataFrame(runs).groupby("system", sort=False)[[LEADING, *others]].mean()
    shown = means.map(format_score).rename(columns={LEADING: "all rows"} | others).reset_index()
    note = (
        "Macro F1, means over the runs: of clips in noise and on a telephone, of one modality alone, and of the worst "
        "of the slices, which of few rows is mostly chance."
    )
    return Sheet(f"Elsewhere and in parts: protocol {protocol}", shown.astype(object), [note])


def cost_sheet(results: Results, protocol: str) -> Sheet | None:
    """Of one run."""
    systems = _of_protocol(results, protocol)
    systems = systems[systems.parameters.notna()]
    if systems.empty:
        return None
    columns = {
        "system": systems.system,
        "macro F1": _with_interval(systems, LEADING),
        "parameters": systems.parameters.map("{:,.0f}".format),
        "of the fusion": systems.fusion_parameters.map("{:,.0f}".format),
        "seconds": systems.seconds.map(lambda seconds: f"{seconds:,.{0 if seconds >= 10 else 1}f}"),
        "peak memory (GiB)": systems.peak_memory_bytes.map(lambda size: f"{size / 2**30:.2f}"),
    }
    notes = ["Means over the runs; a run is one fold with one seed, in a process of its own."]
    return Sheet(f"Cost of a run, protocol {protocol}", DataFrame(columns), notes)


def failures_sheet(results: Results) -> Sheet | None:
    """Runs that failed, and why."""
    runs = run_frame(results)
    failed = runs[runs.error.notna()]
    if failed.empty:
        return None
    shown = DataFrame({"run": failed["name"], "system": failed.system, "error": failed.error.str.split().str.join(" ")})
    return Sheet("Failed runs", shown, marked={"error": failed.error.notna()})


def versions_sheet(results: Results) -> Sheet | None:
    if not results.versions:
        return None
    return Sheet(
        "Date and versions", DataFrame({"": list(results.versions), "version": list(results.versions.values())})
    )
