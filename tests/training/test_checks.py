"""Checks before a model is loaded: enough rows, of the classes that are named."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import TrainingArguments

from foundation.errors import InputError
from training.checks import check_rows


def check(num_rows, batch_size, metric="loss", label_names=("neutral", "happy", "angry")):
    train = Dataset.from_dict({"duration": [2.0] * num_rows})
    splits = SimpleNamespace(tables={"train": train}, label_names=list(label_names))
    arguments = {"per_device_train_batch_size": batch_size, "metric_for_best_model": metric}
    check_rows(splits, TrainingArguments("out", use_cpu=True, **arguments))


def test_rows_have_to_be_as_many_as_classes_and_as_a_batch():
    check(3, 3)
    with pytest.raises(InputError, match="2 training rows for 3 classes are too few; give a dataset or a split"):
        check(2, 1)
    with pytest.raises(InputError, match="all rows are of the class happy; give a dataset with at least two classes"):
        check(4, 2, label_names=["happy"])
    with pytest.raises(InputError, match="--per_device_train_batch_size 5 is more than the 4 training rows; give at"):
        check(4, 5)


def test_the_score_of_a_class_needs_the_class():
    check(3, 3, metric="f1_happy")
    with pytest.raises(InputError, match="--metric_for_best_model recall_hapy is of no class; give one of neutral, ha"):
        check(3, 3, metric="recall_hapy")
