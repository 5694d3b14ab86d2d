"""Results as DataFrames of plain values: a row for each system and protocol, for each run, and for each pair.
The first two are results.csv and runs.csv; sheets, charts and the answer in words are made of all three."""

import pandas
from pandas import DataFrame

from experiments.results import COST, ENSEMBLE, MAJORITY, Results, System, SystemScores, is_fusion
from metrics.scores import LEADING, SCORES


# As the paper's tables divide them; all others fuse early.
KINDS = {MAJORITY: "", ENSEMBLE: "ensemble", "audio": "audio", "text": "text", "late_fusion": "late"}
KINDS["hybrid_fusion"] = "cross-modality"
EARLY = "early"
SYSTEM_COLUMNS = ["protocol", "system", "fusion", "kind", "text_model", "audio_model", "variant", "is_baseline"]
SYSTEM_COLUMNS += ["published_weighted_f1", "state", "runs", "failed_runs", "folds", "seeds", "rows", "group_column"]
SYSTEM_COLUMNS += ["groups"]
RUN_COLUMNS = ["name", "protocol", "system", "fold", "seed", "state", "error"]
OF_A_SCORE = {"": "value", "_low": "low", "_high": "high", "_mean": "mean", "_sd": "sd"}
OF_A_CLASS = ("f1", "recall", "rows", "predicted")
# Of p after Holm's correction.
SIGNIFICANCE_LEVEL = 0.05
# Of one seed nobody knows how much of a difference is luck.
MIN_SEEDS = 2


def system_frame(results: Results) -> DataFrame:
    """One row for each protocol and each system that has a run or scores there: what it is, its scores with the parts
    in `OF_A_SCORE`, those `OF_A_CLASS`, and the cost of a run; None for what isn't there."""
    columns = [*SYSTEM_COLUMNS, *(name + suffix for name in results.titles for suffix in OF_A_SCORE)]
    columns += ["expected_calibration_error", "predicted_classes"]
    columns += [f"{kind}_{label}" for label in results.label_names for kind in OF_A_CLASS] + [*COST]
    planned = {(entry.system, entry.protocol) for entry in [*results.runs, *results.scores]}
    scores_of = {(entry.system, entry.protocol): entry for entry in results.scores}
    records = [
        _system_record(results, system, protocol) | _score_record(scores_of.get((system.name, protocol)))
        for protocol in results.protocols
        for system in results.systems
        if (system.name, protocol) in planned
    ]
    return _frame(records, columns)


def _system_record(results: Results, system: System, protocol: str) -> dict:
    errors = [run.error for run in results.runs if (run.system, run.protocol) == (system.name, protocol)]
    published = (row.published for table in results.tables for row in table.rows if row.system == system.name)
    return vars(system) | {
        "protocol": protocol,
        "system": system.name,
        "kind": KINDS.get(system.fusion, EARLY),
        "published_weighted_f1": next((value for value in published if value is not None), None),
        "failed_runs": sum(error is not None for error in errors),
    }


def _score_record(scores: SystemScores | None) -> dict:
    if scores is None:
        return {"state": "failed", "runs": 0, "folds": "", "seeds": ""}
    record = {
        "state": "finished",
        "runs": scores.num_runs,
        "folds": " ".join(map(str, scores.folds)),
        "seeds": " ".join(map(str, scores.seeds)),
        "rows": scores.num_rows,
        "group_column": scores.group_column,
        "groups": scores.num_groups,
        "predicted_classes": sum(entry["predicted"] > 0 for entry in scores.classes),
    }
    for name, estimate in scores.estimates.items():
        record |= {name + suffix: getattr(estimate, part) for suffix, part in OF_A_SCORE.items()}
    for entry in scores.classes:
        record |= {f"{kind}_{entry['name']}": entry[kind] for kind in OF_A_CLASS}
    if scores.calibration is not None:
        record["expected_calibration_error"] = scores.calibration.expected_calibration_error
    return record | (scores.cost or {})


def run_frame(results: Results) -> DataFrame:
    """One row for each run: its scores, those after its last epoch where that was compared, its cost and command."""
    names = dict.fromkeys([*SCORES, *(name for run in results.runs for name in run.scores)])
    last_names = dict.fromkeys(f"last_epoch_{name}" for run in results.runs for name in run.last_epoch)
    records = [
        vars(run)
        | {"state": "finished" if run.error is None else "failed"}
        | run.scores
        | {f"last_epoch_{name}": score for name, score in run.last_epoch.items()}
        for run in results.runs
    ]
    return _frame(records, [*RUN_COLUMNS, *names, *last_names, *COST, "command"])


def _frame(records: list[dict], columns: list[str]) -> DataFrame:
    """Whole numbers stay whole beside what isn't there, which is None."""
    frame = DataFrame(records, columns=columns, dtype=object)
    return frame.where(frame.notna(), None)


def pair_frame(results: Results, protocol: str) -> DataFrame:
    """One row for each pair of systems under a protocol: the fields of its `Comparison` and of its `Difference` in the
    leading score, and `is_significant`, of those that have a verdict."""
    records = [
        vars(pair) | vars(pair.differences[LEADING]) for pair in results.comparisons if pair.protocol == protocol
    ]
    numbers = ["value", "low", "high", "p", "p_holm"]
    columns = ["first", "second", *numbers, "seeds_above", "seeds", "num_rows"]
    pairs = DataFrame(records, columns=columns).astype(dict.fromkeys(numbers, float))
    fusions = [system.name for system in results.systems if is_fusion(system.fusion)]
    has_verdict = pairs.p_holm.notna() & (pairs.seeds.map(len) >= MIN_SEEDS)
    return pairs.assign(
        has_verdict=has_verdict,
        is_significant=has_verdict & (pairs.p_holm < SIGNIFICANCE_LEVEL),
        first_is_fusion=pairs["first"].isin(fusions),
        second_is_fusion=pairs["second"].isin(fusions),
    )


def from_both_sides(pairs: DataFrame) -> DataFrame:
    """Each pair as it is, and turned round: the difference of each system from every other."""
    names = {"first": "second", "low": "high", "first_is_fusion": "second_is_fusion"}
    turned = pairs.rename(columns=names | {other: name for name, other in names.items()})
    turned[["value", "low", "high"]] *= -1
    return pandas.concat([pairs, turned], ignore_index=True)
