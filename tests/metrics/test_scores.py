"""The metric: averages, scores per class, the majority class beside them, and agreement with the raters."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from metrics.emotion_metric import EmotionMetric
from metrics.raters import kl_to_raters, rater_scores


NAMES = ["neutral", "happy", "sad"]


def test_scores_of_a_small_example():
    scores = EmotionMetric(NAMES).compute(predictions=[0, 0, 1, 1, 0], references=[0, 0, 1, 0, 2])
    assert scores["accuracy"] == pytest.approx(3 / 5)
    # neutral: precision 2/3, recall 2/3; happy: 1/2, 1; sad: never predicted
    assert scores["f1_neutral"] == pytest.approx(2 / 3)
    assert scores["f1_happy"] == pytest.approx(2 / 3)
    assert (scores["f1_sad"], scores["recall_sad"], scores["predicted_count_sad"], scores["count_sad"]) == (0, 0, 0, 1)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert scores["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 / 3 + 0) / 5)
    assert scores["unweighted_average_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_a_model_that_knows_one_class_is_shown_up():
    """Weighted F1 flatters it; macro F1, recall and the majority's own scores don't."""
    references = [0] * 9 + [1]
    scores = EmotionMetric(NAMES).compute(predictions=[0] * 10, references=references)
    assert scores["weighted_f1"] > 0.85
    assert scores["macro_f1"] == pytest.approx((18 / 19) / 2)
    assert scores["unweighted_average_recall"] == 0.5
    for name in ("macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy"):
        assert scores[name] == scores[f"majority_{name}"]


def test_batches_add_up():
    metric = EmotionMetric(NAMES)
    for predictions, references in (([0, 2], [0, 1]), ([1], [1])):
        metric.add_batch(predictions=predictions, references=references)
    whole = EmotionMetric(NAMES).compute(predictions=[0, 2, 1], references=[0, 1, 1])
    assert metric.compute() == whole


def test_nothing_is_kept_on_the_disk():
    scores = EmotionMetric(NAMES, cache_dir="/proc/nowhere").compute(predictions=[0, 1], references=[0, 1])
    assert scores["accuracy"] == 1


def test_kl_to_raters_is_scipys_relative_entropy():
    rng = np.random.default_rng(0)
    votes, logits = rng.multinomial(10, [0.7, 0.2, 0.1], size=50), rng.normal(size=(50, 3)).astype(np.float32)
    shares = votes / 10
    expected = entropy(shares, softmax(logits.astype(np.float64), axis=1), axis=1).mean()
    assert kl_to_raters(shares, logits) == pytest.approx(expected)
    assert kl_to_raters(shares, np.log(np.maximum(shares, 1e-300))) == pytest.approx(0, abs=1e-12)


def test_rows_without_votes_have_no_part_in_the_agreement():
    logits = np.log([[0.5, 0.25, 0.25], [1 / 3] * 3])
    scores = rater_scores([[10, 0, 0], None], logits, [[1, 1, 0], [1, 1, 0]])
    assert scores == {"kl_to_raters": pytest.approx(np.log(2)), "prior_kl_to_raters": pytest.approx(np.log(2))}
    assert rater_scores([None, [0, 0, 0]], logits, [[1, 1, 0]]) == {}
    # Nobody voted for the third class in training, so the mean of its votes can't be compared with.
    assert rater_scores([[0, 0, 10], None], logits, [[1, 1, 0]]).keys() == {"kl_to_raters"}
