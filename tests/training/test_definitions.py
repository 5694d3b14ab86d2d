"""What is read from source is what the modules define, and what only answers doesn't import them."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import configuration_rsa_cfn
import training.arguments
from training import definitions
from training.arguments import RsaCfnTrainingArguments
from training.parsing import OneLineArgumentParser


ROOT = Path(__file__).parents[2]
SLOW = {"torch", "datasets", "pandas", "sklearn", "scipy", "matplotlib", "peft", "accelerate"}


def as_parsed(cls) -> list[dict]:
    actions = [dict(vars(action)) for action in OneLineArgumentParser(cls, add_help=False)._actions]
    for action in actions:
        action["type"] = getattr(action["type"], "__qualname__", action["type"])
        del action["container"]
        if action["choices"] is not None:
            action["choices"] = list(action["choices"])
    return actions


def test_fields_are_those_of_the_training_arguments():
    cls = definitions.training_fields()
    assert cls is not RsaCfnTrainingArguments
    assert as_parsed(cls) == as_parsed(RsaCfnTrainingArguments)


def test_names_are_those_of_the_configuration():
    for name in definitions.OF_THE_MODEL.split():
        assert getattr(definitions, name) == getattr(configuration_rsa_cfn, name)


def test_other_definitions_are_imported(monkeypatch):
    monkeypatch.setattr(definitions, "OF_THE_TRAINING", "TrainingArguments")
    assert definitions.training_fields() is RsaCfnTrainingArguments


def test_saved_arguments_are_found_where_they_were():
    assert RsaCfnTrainingArguments.__module__ == "training.arguments"
    assert pickle.loads(pickle.dumps(RsaCfnTrainingArguments)) is training.arguments.RsaCfnTrainingArguments


def imported(*command: str) -> tuple[int, set[str]]:
    """The exit code of a script, and the packages that it imported, in training until the first step."""
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [
        line
        for line in finished.stderr.partition("First training step")[0].splitlines()
        if line.startswith("import time:")
    ]
    return finished.returncode, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    "command, exit_code",
    [
        ("run_classification.py --help", 0),
        ("run_experiments.py recipes/experiments/demo.json --sede 3", 2),
        ("prepare_dataset.py --help", 0),
    ],
)
def test_answers_need_no_torch(command, exit_code):
    code, packages = imported(*command.split())
    assert code == exit_code
    assert not packages & SLOW


@pytest.mark.slow
def test_first_step_waits_for_no_more_than_it_needs(prepared_dir, tmp_path):
    arguments = ["--dataset_name", str(prepared_dir), "--audio_model", "tiny", "--text_model", "tiny"]
    arguments += ["--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--do_eval", "false"]
    code, packages = imported("run_classification.py", *arguments, "--do_predict", "false", "--report_to", "none")
    assert code == 0
    assert "torch" in packages and not packages & {"sklearn", "matplotlib", "gradio", "onnxruntime"}
