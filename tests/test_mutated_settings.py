"""Arguments and saved configurations that chance has changed: a run uses them, or one line says why not."""

import json
import os
import random
import shutil
from collections import Counter

import pytest

import run_classification
from configuration_rsa_cfn import EMOTIONS
from foundation.files import read_json
from tests.test_mutated_inputs import mutate
from training.arguments import DataArguments, ModelArguments
from training.model import load_model


pytestmark = pytest.mark.slow

NUMBER = int(os.environ.get("RSA_CFN_MUTATIONS", 40))
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2.5,
    7,
    1e-30,
    1e308,
    -(10**30),
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0",
]
VALUES += ["\x1b[31m", "a\nb", "\udcff", "\0", "~", "none", "true", [], [[]], {}, {"a": 1}, [1, "a"], [None], ["x"] * 9]
# Not tokenizer.json: of some such files tokenizers panics in a destructor, which ends the process whoever loads them.
SETTINGS = ("config.json", "config.json", "processor_config.json", "tokenizer_config.json")


def change(chance: random.Random, content) -> None:
    """Another value, no value, or another name somewhere in an object, in place."""
    inner = [value for value in (content.values() if isinstance(content, dict) else content) if value]
    inner = [value for value in inner if isinstance(value, (dict, list))]
    if inner and chance.random() < 0.5:
        return change(chance, chance.choice(inner))
    place = chance.choice(list(content) if isinstance(content, dict) else range(len(content)))
    kind = chance.choice(("value", "value", "value", "value", "lose", "rename"))
    value = content.pop(place)
    if kind == "value" and isinstance(content, dict):
        content[place] = chance.choice(VALUES)
    elif kind == "value":
        content.insert(place, chance.choice(VALUES))
    elif kind == "rename" and isinstance(content, dict):
        content[f"{place}x"] = value


def mutated(chance: random.Random, content: dict) -> bytes:
    if chance.random() < 0.2:
        return mutate(chance, json.dumps(content).encode(), [b'"', b"{", b"}", b",", b"[" * 5000, b"1e999"])
    content = json.loads(json.dumps(content))
    for _ in range(chance.choice((1, 1, 2))):
        change(chance, content)
    return json.dumps(content).encode()


RECIPE = {
    "fusion": "rsa_cfn",
    "audio_model": "tiny",
    "text_model": "tiny",
    "pooling_mode": "mean",
    "modality_dropout": 0.1,
    "split": "session",
    "num_folds": 3,
    "fold": 2,
    "label_target": "soft",
    "class_weights": "balanced",
    "eval_modalities": ["both", "audio"],
    "max_audio_seconds": 1.0,
    "max_text_tokens": 64,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
    "save_total_limit": 2,
    "lr_scheduler_kwargs": {},
    "accelerator_config": {"even_batches": True},
    "do_train": True,
    "do_eval": True,
    "disable_tqdm": True,
    "output_dir": "out",
}


@pytest.fixture
def run(prepared_dir, tmp_path, monkeypatch, capfd):
    """A function that runs all but the training, and gives the exit code; whatever ends it early is one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_classification, "train", lambda trainer, *_: trainer.save_state())
    (tmp_path / "dataset").symlink_to(prepared_dir)

    def run(*arguments):
        shutil.rmtree("out", ignore_errors=True)
        capfd.readouterr()
        code = run_classification.run([*arguments])
        said = capfd.readouterr().err.splitlines()
        assert not code or said[-1].startswith("run_classification.py: "), said
        return code

    return run


def test_arguments_are_used_or_refused(run, tmp_path):
    chance, codes = random.Random(0), Counter()
    for _ in range(NUMBER):
        (tmp_path / "arguments.json").write_bytes(mutated(chance, RECIPE | {"dataset_name": "dataset"}))
        codes[run("arguments.json")] += 1
    assert codes.keys() <= {0, 2} and codes[2] >= NUMBER // 10


def test_saved_settings_are_used_or_refused(run, tmp_path):
    (tmp_path / "arguments.json").write_text(json.dumps(RECIPE | {"dataset_name": "dataset"}))
    assert run("arguments.json") == 0
    chance, codes = random.Random(1), Counter()
    model, processor = tiny_model()
    for _ in range(NUMBER):
        for saved in (model, processor):
            saved.save_pretrained("saved")
        file = tmp_path / "saved" / chance.choice(SETTINGS)
        file.write_bytes(mutated(chance, read_json(file)))
        given = "--dataset_name dataset --model_name_or_path saved --do_eval --output_dir out --disable_tqdm true"
        codes[run(*given.split())] += 1
    assert codes.keys() <= {0, 2} and codes[2] >= NUMBER // 10


def tiny_model():
    data_args = DataArguments(max_audio_seconds=1.0, max_text_tokens=64)
    return load_model(
        ModelArguments(audio_model="tiny", text_model="tiny"), data_args, list(EMOTIONS), ["정말 고마워요"]
    )
