"""A finished run as its folder holds it: the rows it was scored on, what it answered, and what training logged."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas
from pandas import DataFrame

from corpora.folds import GROUP_COLUMNS
from experiments.cells import ARGUMENTS, RECORD, is_finished, mark, read_arguments
from experiments.plan import Cell
from foundation.errors import InputError
from foundation.files import read_json
from foundation.words import active, writable
from training.checkpoints import FINISHED


@dataclass
class ScoredRun:
    """A finished cell."""

    system: str
    protocol: str
    fold: int | None
    seed: int
    segment_ids: list[str]  # the rows, in the order of the dataset
    groups: list[str] | None  # the session or speaker of each row, the widest that all rows have
    group_column: str | None  # which of them it is
    labels: np.ndarray  # (num_rows,), class indices
    probabilities: np.ndarray  # (num_rows, num_labels)
    train_counts: np.ndarray  # (num_labels,), rows of each class that it was trained on
    scores: dict[str, float] = field(default_factory=dict)  # of all_results.json
    log_history: list[dict] = field(default_factory=list)  # of trainer_state.json
    compared_on: str = "validation"  # or "test", where the reported rows chose the epoch
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    parameters: int = 0
    fusion_parameters: int = 0
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # what is so, and what was told: (2, num_rows)

    @property
    def last_evaluation(self) -> dict | None:
        """The scores logged after the last epoch, if epochs were compared."""
        evaluations = [entry for entry in self.log_history if "eval_macro_f1" in entry]
        return max(evaluations, key=lambda entry: entry["epoch"], default=None)

    @property
    def predictions(self) -> np.ndarray:
        """Class indices, `(num_rows,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def rows(self) -> DataFrame:
        """One for each scored row; columns 0, 1, ... are the probabilities of the classes."""
        return DataFrame(self.probabilities).assign(
            system=self.system,
            protocol=self.protocol,
            fold=self.fold,
            seed=self.seed,
            segment_id=self.segment_ids,
            group=self.segment_ids if self.groups is None else self.groups,
            label=self.labels,
            answer=self.predictions,
        )


def stack_rows(runs: list[ScoredRun]) -> DataFrame:
    """The rows of runs that are scored together, one below the other. It is an `InputError` if the runs name different
    columns of groups, or a row has different labels in two of them."""
    columns = {run.group_column for run in runs}
    if len(columns) > 1:
        names = ", ".join(sorted(map(str, columns)))
        raise InputError(f"Runs that are scored together have to name one column of groups, and these name {names}.")
    rows = pandas.concat([run.rows for run in runs], ignore_index=True)
    first = rows.groupby("segment_id").label.transform("first")
    for row in rows[rows.label != first].head(1).itertuples():
        raise InputError(
            f"Row {row.segment_id} has class {row.label} in the run of {row.system}, {row.protocol}, fold {row.fold}, "
            f"seed {row.seed}, and class {first[row.Index]} in another: the runs are of different datasets."
        )
    return rows


def read_runs(cells: list[Cell], folder: Path) -> tuple[dict[str, tuple[ScoredRun, list[str]]], dict[str, str]]:
    """By the names of cells below `folder`: the finished ones and their classes, and why what others have left can't be
    used."""
    runs, damaged = {}, {}
    for cell in cells:
        try:
            if is_finished(folder / cell.name):
                runs[cell.name] = read_run(cell, folder / cell.name)
            elif (folder / cell.name / ARGUMENTS).is_file():
                read_arguments(folder / cell.name)
        except Exception as error:  # what isn't as this program writes it may raise any
            reason = f"{error}" if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            damaged[cell.name] = writable(" ".join(reason.split()))
    return runs, damaged


def read_run(cell: Cell, folder: Path) -> tuple[ScoredRun, list[str]]:
    """A finished cell and the names of its classes, from its folder."""
    record = read_json(folder / RECORD)
    for name, left in record.get("files", {}).items():  # earlier versions listed none
        if mark(folder / name) != left:
            raise InputError(f"{name} isn't as it was left")
    read_arguments(folder)
    rows = pandas.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    rows, prefix = rows.rename(columns=active), "probability_"
    probabilities = rows.filter(regex=f"^{prefix}").astype(float)
    rows = rows.drop(columns=[*probabilities]).map(active)
    label_names = [name.removeprefix(prefix) for name in probabilities]
    group_column = next((name for name in GROUP_COLUMNS if name in rows), None)
    split, logged, results = (read_json(folder / name) for name in ("split.json", FINISHED, "all_results.json"))
    if not np.isfinite(probabilities.to_numpy()).all():
        raise InputError("predictions.csv has probabilities that aren't finite")
    if rows.empty or len(rows) != results.get("eval_rows", len(rows)):
        raise InputError(f"predictions.csv has {len(rows)} rows, and {results.get('eval_rows', 'some')} were scored")
    attributes = [name.removeprefix("prediction_") for name in rows if name.startswith("prediction_")]
    told = rows[[f"{kind}_{name}" for name in attributes for kind in ("label", "prediction")]].replace("", "nan")
    run = ScoredRun(
        system=cell.system,
        protocol=cell.protocol,
        fold=cell.fold,
        seed=cell.seed,
        segment_ids=rows["segment_id"].tolist(),
        groups=None if group_column is None else rows[group_column].tolist(),
        group_column=group_column,
        labels=rows["label"].map(label_names.index).to_numpy(),
        probabilities=probabilities.to_numpy(),
        train_counts=np.array([split["parts"]["train"]["classes"][name] for name in label_names], dtype=int),
        scores=results,
        log_history=logged["log_history"],
        compared_on=split["compare_epochs_on"],
        seconds=float(results["train_runtime"]),
        attributes=dict(zip(attributes, told.astype(float).to_numpy().T.reshape(-1, 2, len(rows)))),
        **{name: int(record[name]) for name in ("peak_memory_bytes", "parameters", "fusion_parameters")},
    )
    return run, list(map(writable, label_names))
