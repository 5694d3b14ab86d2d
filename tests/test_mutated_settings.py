"""Arguments and saved configurations that chance has changed: a run uses them, or one line says why not."""

import json
import os
import random

import pytest

import run_classification
from tests.test_mutated_inputs import mutate


pytestmark = pytest.mark.slow

NUMBER = int(os.environ.get("RSA_CFN_MUTATIONS", 100))
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
SETTINGS = ("config.json", "config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")


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


@pytest.fixture
def outcomes(prepared_dir, tmp_path, monkeypatch, capfd):
    """A function that counts the exit codes of runs that load and score, and looks at what they say."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_classification, "train", lambda trainer, *_: trainer.save_state())
    given = ["--audio_model", "tiny", "--text_model", "tiny", "--disable_tqdm", "true"]

    def outcomes(number, *arguments):
        capfd.readouterr()
        code = run_classification.run(list(arguments))
        said = capfd.readouterr().err.splitlines()
        if code:
            assert said[-1].startswith("run_classification.py: "), (number, said)
        return code

    return outcomes
