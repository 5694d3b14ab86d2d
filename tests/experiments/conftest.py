"""Runs as the experiments read them, with answers that a test decides."""

import numpy as np
import pytest

from experiments.scored_run import ScoredRun


@pytest.fixture
def make_run():
    """
    A run on rows `row0`, `row1`, ... or those named, ten to a session; its answers given as classes, or as
    probabilities.
    """

    def make(labels, answers, system="rsa", fold=None, seed=1, rows=None, num_labels=3, **fields):
        labels, answers = np.asarray(labels), np.asarray(answers)
        rows = range(len(labels)) if rows is None else rows
        values = {
            "protocol": "session",
            "segment_ids": [f"row{row}" for row in rows],
            "groups": [f"Sess{row // 10:02d}" for row in rows],
            "group_column": "session",
            "train_counts": np.array([9, 3, 3][:num_labels]),
        }
        probabilities = answers if answers.ndim == 2 else np.eye(num_labels)[answers]
        return ScoredRun(
            system=system, fold=fold, seed=seed, labels=labels, probabilities=probabilities, **(values | fields)
        )

    return make
