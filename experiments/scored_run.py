"""A finished run as its folder holds it: the rows it was scored on, what it answered, and what training logged."""

from dataclasses import dataclass, field

import numpy as np


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
    def predictions(self) -> np.ndarray:
        """Class indices, `(num_rows,)`."""
        return self.probabilities.argmax(axis=1)
