"""Agreement of a model's probabilities with the shares of the raters' votes."""

import numpy as np


def vote_shares(votes: list | None, num_labels: int) -> np.ndarray | None:
    """The share of its votes that each class has, float64 of shape `(num_rows, num_labels)`; all 0 in a row without
    votes. `None` for no column."""
    if votes is None:
        return None
    counts = np.array([row or [0] * num_labels for row in votes], dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)


def kl_to_raters(shares: np.ndarray, logits: np.ndarray) -> float | None:
    """Mean Kullback-Leibler divergence of a model's probabilities from the raters' shares, KL(raters || model), in
    nats; infinite where a share meets the probability 0, `None` if no row has votes. Both are of shape `(num_rows,
    num_labels)`; a row of zero shares has no part, and logarithms of probabilities do for logits."""
    rated = shares.sum(axis=1) > 0
    if not rated.any():
        return None
    from scipy.special import log_softmax  # late: it would delay --help

    shares, log_probabilities = shares[rated], log_softmax(logits[rated].astype(np.float64), axis=1)
    voted = shares > 0
    return float((shares[voted] * (np.log(shares[voted]) - log_probabilities[voted])).sum() / len(shares))


def rater_scores(votes: list, logits: np.ndarray, train_votes: list | None) -> dict[str, float]:
    """`kl_to_raters` of logits `(num_rows, num_labels)`, where the scored rows have votes, the counts of each class;
    and `prior_kl_to_raters`, of always answering the mean shares of the training rows' votes, where these have some."""
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
