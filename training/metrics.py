"""Scores of emotion recognition under imbalance, as an `evaluate.Metric`: macro F1 and unweighted recall lead."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score


class EmotionMetric(evaluate.Metric):
    """
    Macro F1, unweighted average recall, weighted F1 and accuracy; F1, recall and counts per class; and the scores of
    always answering the most frequent class, which is what the others have to be read against.

    Args:
        label_names (`list[str]`): Names of the classes, in the order of their indices.
    """

    def __init__(self, label_names: list[str], **kwargs):
        self.label_names = list(label_names)
        super().__init__(**kwargs)

    def _info(self):
        return evaluate.MetricInfo(
            description="Scores of single-label classification under imbalance.",
            citation="",
            inputs_description="predictions and references: class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions, references) -> dict[str, float | int]:
        """
        Averages run over the classes that occur in the references, or for F1 also in the predictions, as in
        scikit-learn; a class that occurs in neither has F1 and recall 0 of its own.
        """
        references, predictions = np.asarray(references), np.asarray(predictions)
        labels = range(len(self.label_names))
        matrix = confusion_matrix(references, predictions, labels=labels)  # (C, C), references in rows
        scores = _averages(references, predictions)
        majority = np.full_like(references, matrix.sum(axis=1).argmax())
        scores |= {f"majority_{name}": score for name, score in _averages(references, majority).items()}
        f1 = f1_score(references, predictions, labels=labels, average=None, zero_division=0)
        recall = recall_score(references, predictions, labels=labels, average=None, zero_division=0)
        for index, name in enumerate(self.label_names):
            scores[f"f1_{name}"] = float(f1[index])
            scores[f"recall_{name}"] = float(recall[index])
            scores[f"count_{name}"] = int(matrix[index].sum())
            scores[f"predicted_count_{name}"] = int(matrix[:, index].sum())
        return scores


def _averages(references: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    occurring = np.unique(references)
    return {
        "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        "unweighted_average_recall": float(
            recall_score(references, predictions, labels=occurring, average="macro", zero_division=0)
        ),
        "weighted_f1": float(f1_score(references, predictions, average="weighted", zero_division=0)),
        "accuracy": float(accuracy_score(references, predictions)),
    }
