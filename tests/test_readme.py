"""The README: its Python runs as printed, its arguments and its links exist, and .ci/run finds its test line."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import soundfile
from transformers import TrainingArguments

from configuration_rsa_cfn import EMOTIONS
from prepare_dataset import parse_arguments as parse_prepare_arguments
from training.arguments import DataArguments, ModelArguments


REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_python_runs_as_printed(make_model, processor, tmp_path):
    make_model().save_pretrained(tmp_path / "models" / "rsa_cfn")
    processor.save_pretrained(tmp_path / "models" / "rsa_cfn")
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    assert blocks("python")
    for code in blocks("python"):
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.strip() in EMOTIONS


def test_every_argument_of_a_command_exists():
    known = {field.name for cls in (ModelArguments, DataArguments, TrainingArguments) for field in fields(cls)}
    commands = [line for block in blocks("bash") for line in block.splitlines() if "run_classification.py" in line]
    assert commands
    for command in commands:
        given = re.findall(r"--(\w+)", command.split("run_classification.py")[1])
        assert set(given) <= known, command


def test_the_conversion_commands_parse():
    commands = [line for block in blocks("bash") for line in block.splitlines() if "prepare_dataset.py" in line]
    assert commands
    for command in commands:
        parse_prepare_arguments(command.split("prepare_dataset.py")[1].split())


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_the_two_first_commands_set_everything_up():
    first, second = (block.strip() for block in blocks("bash")[:2])
    for command in (first, second):
        assert "\n" not in command
        assert command.startswith(
            "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
        )
    assert first.endswith("accelerate launch run_classification.py --fusion rsa_cfn")
    pattern = re.search(r"grep -m 1 -E '(.*)' README.md", (REPOSITORY / ".ci" / "run").read_text()).group(1)
    assert re.fullmatch(pattern.replace("\\.", "[.]"), second)
