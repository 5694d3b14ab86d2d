"""What a run says before it trains: its rows, classes, model, training, device and folder."""

from types import SimpleNamespace

import pytest
import torch

from training.opening import describe_run
from training.parsing import parse_arguments


@pytest.mark.parametrize(
    ("arguments", "training"),
    [
        (
            "--learning_rate 2e-5 --audio_learning_rate 1e-6 --per_device_train_batch_size 4 "
            "--gradient_accumulation_steps 2",
            "learning rate 2e-05, audio learning rate 1e-06, 8 epochs, 4 × 2 accumulated rows a step",
        ),
        ("--max_steps 30", "learning rate 0.001, 30 steps, 16 rows a step"),
    ],
)
def test_a_run_opens_with_what_it_does(arguments, training, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    parts = {"train": [0] * 6, "test": [0] * 4}
    splits = SimpleNamespace(tables=parts, label_names=["neutral", "기쁨"], description="fold 5 of 5")
    told = describe_run(splits, *parse_arguments(["--use_cpu", *arguments.split()]))
    assert told.splitlines() == [
        "Dataset:    data/demo: 6 rows train, 4 are scored: fold 5 of 5",
        "Classes:    2: neutral, 기쁨",
        "Model:      rsa_cfn of tiny and tiny",
        f"Training:   {training}",
        f"Device:     {torch.device('cpu')}, float32",
        "Written to: models/rsa_cfn",
    ]
