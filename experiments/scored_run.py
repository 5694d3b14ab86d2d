"""A finished run as its folder holds it: the rows it was scored on, what it answered, and what training logged."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas

from corpora.folds import GROUP_COLUMNS
from experiments.cells import RECORD
from experiments.plan import Cell
from training.checkpoints import FINISHED
from training.parsing import read_json


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
    log_history: list[dict] = field(default_factory=list)  # of trainer_state.json
    compared_on: str = "validation"  # or "test", where the reported rows chose the epoch
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    parameters: int = 0
    fusion_parameters: int = 0

    @property
    def last_evaluation(self) -> dict | None:
        """What was logged of the rows that epochs are compared on after the last of them, if they were."""
        evaluations = [entry for entry in self.log_history if "eval_macro_f1" in entry]
        return max(evaluations, key=lambda entry: entry["epoch"], default=None)

    @property
    def predictions(self) -> np.ndarray:
        """Class indices, `(num_rows,)`."""
        return self.probabilities.argmax(axis=1)


def read_run(cell: Cell, folder: Path) -> tuple[ScoredRun, list[str]]:
    """A finished cell and the names of its classes, from its folder."""
    rows = pandas.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    prefix = "probability_"
    probabilities = rows.filter(regex=f"^{prefix}").astype(float)
    label_names = [name.removeprefix(prefix) for name in probabilities]
    group_column = next((name for name in GROUP_COLUMNS if name in rows), None)
    split = read_json(folder / "split.json")
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
        train_counts=np.array([split["parts"]["train"]["classes"][name] for name in label_names]),
        log_history=read_json(folder / FINISHED)["log_history"],
        compared_on=split["compare_epochs_on"],
        seconds=read_json(folder / "all_results.json")["train_runtime"],
        **read_json(folder / RECORD),
    )
    return run, label_names
