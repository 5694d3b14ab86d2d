"""A finished run as its folder holds it: the rows it was scored on, what it answered, and what training logged."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corpora.folds import GROUP_COLUMNS
from experiments.cells import RECORD
from experiments.plan import Cell
from training.checkpoints import FINISHED
from training.parsing import read_json


@dataclass
class ScoredRun:
    """
    Args:
        system, protocol (`str`), fold (`int`, *optional*), seed (`int`): The cell of the plan.
        segment_ids (`list[str]`): The rows, in the order of the dataset.
        groups (`list[str]`, *optional*): The session or speaker of each row, the widest that all rows have.
        group_column (`str`, *optional*): Which of them it is.
        labels (`np.ndarray` of shape `(num_rows,)`): Class indices.
        probabilities (`np.ndarray` of shape `(num_rows, num_labels)`): The model's.
        train_counts (`np.ndarray` of shape `(num_labels,)`): Rows of each class that it was trained on.
        log_history (`list[dict]`): Of `trainer_state.json`.
        compared_on (`str`): `"test"` where the reported rows chose the epoch, otherwise `"validation"`.
        seconds (`float`), peak_memory_bytes (`int`), parameters (`int`), fusion_parameters (`int`): What it took.
    """

    system: str
    protocol: str
    fold: int | None
    seed: int
    segment_ids: list[str]
    groups: list[str] | None
    group_column: str | None
    labels: np.ndarray
    probabilities: np.ndarray
    train_counts: np.ndarray
    log_history: list[dict] = field(default_factory=list)
    compared_on: str = "validation"
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
    """
    Read a finished cell.

    Args:
        cell ([`Cell`]): What it is.
        folder (`Path`): Its folder.

    Returns:
        The run, and the names of the classes.
    """
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    prefix = "probability_"
    label_names = [name.removeprefix(prefix) for name in rows[0] if name.startswith(prefix)]
    index = {name: position for position, name in enumerate(label_names)}
    group_column = next((name for name in GROUP_COLUMNS if name in rows[0]), None)
    record = read_json(folder / RECORD)
    split = read_json(folder / "split.json")
    run = ScoredRun(
        system=cell.system,
        protocol=cell.protocol,
        fold=cell.fold,
        seed=cell.seed,
        segment_ids=[row["segment_id"] for row in rows],
        groups=None if group_column is None else [row[group_column] for row in rows],
        group_column=group_column,
        labels=np.array([index[row["label"]] for row in rows]),
        probabilities=np.array([[float(row[prefix + name]) for name in label_names] for row in rows]),
        train_counts=np.array([split["parts"]["train"]["classes"][name] for name in label_names]),
        log_history=read_json(folder / FINISHED)["log_history"],
        compared_on=split["compare_epochs_on"],
        seconds=read_json(folder / "all_results.json")["train_runtime"],
        peak_memory_bytes=record["peak_memory_bytes"],
        parameters=record["parameters"],
        fusion_parameters=record["fusion_parameters"],
    )
    return run, label_names
