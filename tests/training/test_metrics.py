"""The metric: averages, scores per class, and the majority class beside them."""

import pytest

from training.metrics import EmotionMetric


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
