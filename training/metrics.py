"""Scores of emotion recognition under imbalance, as an `evaluate.Metric`: macro F1 and unweighted recall lead.
And how far a model's probabilities are from the shares of the raters' votes."""

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from training.labels import vote_shares


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


def kl_to_raters(shares: np.ndarray, logits: np.ndarray) -> float | None:
    """
    Mean Kullback-Leibler divergence of a model's probabilities from the raters' shares, KL(raters || model), in nats.

    Args:
        shares (`np.ndarray` of shape `(num_rows, num_labels)`): Share of the votes of each class; a row of zeros has no
            votes and no part.
        logits (`np.ndarray` of shape `(num_rows, num_labels)`): The model's; logarithms of probabilities do as well.

    Returns:
        0 or more, infinite where a share meets the probability 0; `None` if no row has votes.
    """
    rated = shares.sum(axis=1) > 0
    if not rated.any():
        return None
    shares, log_probabilities = shares[rated], log_softmax(logits[rated].astype(np.float64), axis=1)
    voted = shares > 0
    return float((shares[voted] * (np.log(shares[voted]) - log_probabilities[voted])).sum() / len(shares))


def rater_scores(votes: list, logits: np.ndarray, train_votes: list | None) -> dict[str, float]:
    """
    Agreement with the raters, where there are votes to compare with, beside that of always answering the mean shares of
    the training rows' votes.

    Args:
        votes (`list`): Counts for each class of the scored rows, or `None`.
        logits (`np.ndarray` of shape `(num_rows, num_labels)`): The model's, of the same rows.
        train_votes (`list`, *optional*): Counts of the training rows.

    Returns:
        `kl_to_raters` and `prior_kl_to_raters`, or neither.
    """
    shares, train_shares = (vote_shares(column, logits.shape[1]) for column in (votes, train_votes))
    score = None if shares is None else kl_to_raters(shares, logits)
    if score is None:
        return {}
    scores = {"kl_to_raters": score}
    if train_shares is not None and train_shares.any():
        with np.errstate(divide="ignore"):
            prior = np.log(train_shares.sum(axis=0) / train_shares.sum())
        reference = kl_to_raters(shares, np.broadcast_to(prior, logits.shape))
        if np.isfinite(reference):  # JSON knows no infinity
            scores["prior_kl_to_raters"] = reference
    return scores
