"""Checks before a model is loaded: enough rows, enough shared memory."""

import os
from types import SimpleNamespace

import pytest
from datasets import Dataset
from transformers import TrainingArguments

from foundation.errors import InputError
from training.arguments import DataArguments
from training.checks import check_rows, check_shared_memory


def check(num_rows, batch_size, num_workers=0, metric="loss", label_names=("neutral", "happy", "angry")):
    train = Dataset.from_dict({"duration": [2.0] * num_rows})
    splits = SimpleNamespace(tables={"train": train}, label_names=list(label_names))
    arguments = {"per_device_train_batch_size": batch_size, "dataloader_num_workers": num_workers}
    arguments |= {"metric_for_best_model": metric}
    check_rows(splits, DataArguments(), TrainingArguments("out", use_cpu=True, **arguments))


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


def test_workers_need_shared_memory_for_their_batches(tmp_path, monkeypatch):
    check_shared_memory(2, 1e6, str(tmp_path))
    check_shared_memory(0, 1e6, str(tmp_path / "none"))
    with pytest.raises(InputError, match="--dataloader_num_workers 2 needs shared memory, and there is no .*none"):
        check_shared_memory(2, 1e6, str(tmp_path / "none"))
    # What docker gives a container unless told otherwise.
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=16384, f_frsize=4096))
    check(40, 16, num_workers=1)
    with pytest.raises(InputError, match="workers 8 needs 98 MB of shared memory, and /dev/shm has 67 MB; give --data"):
        check(40, 16, num_workers=8)
