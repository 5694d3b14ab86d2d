"""The scores as an `evaluate.Metric`."""

import datasets
import evaluate
import numpy as np

from metrics.scores import SCORES, confusion_matrix, matrix_scores


class EmotionMetric(evaluate.Metric):
    """The scores of [`SCORES`](metrics/scores.py); F1, recall and counts per class; and the scores of always answering
    the most frequent class, which is what the others have to be read against."""

    def __init__(self, label_names: list[str], **kwargs):
        self.label_names = list(label_names)
        super().__init__(keep_in_memory=True, **kwargs)

    def _build_data_dir(self) -> str:
        # It would be made, though nothing is kept in it: a home that can't be written is no reason to lose the scores.
        return self._data_dir_root

    def _info(self):
        return evaluate.MetricInfo(
            description="Scores of single-label classification under imbalance.",
            citation="",
            inputs_description="predictions and references: class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions, references) -> dict[str, float | int]:
        matrix = confusion_matrix(np.asarray(references), np.asarray(predictions), len(self.label_names))  # (C, C)
        majority = np.zeros_like(matrix)
        majority[:, matrix.sum(axis=1).argmax()] = matrix.sum(axis=1)
        by_name, majority_by_name = matrix_scores(matrix, self.label_names), matrix_scores(majority)
        scores = {name: float(by_name[name]) for name in SCORES}
        scores |= {f"majority_{name}": float(majority_by_name[name]) for name in SCORES}
        for index, name in enumerate(self.label_names):
            scores[f"f1_{name}"] = float(by_name[f"f1_{name}"])
            scores[f"recall_{name}"] = float(by_name[f"recall_{name}"])
            scores[f"count_{name}"] = int(matrix[index].sum())
            scores[f"predicted_count_{name}"] = int(matrix[:, index].sum())
        return scores
