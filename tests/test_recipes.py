"""The recipes: each gives the values of its published run and nothing else, and options after it win."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from foundation.errors import InputError
from run_classification import main
from training.parsing import parse_arguments


RECIPES = Path(__file__).parents[1] / "recipes"
PAPER = {
    "audio_model": "facebook/wav2vec2-large-960h-lv60-self",
    "text_model": "klue/roberta-base",
    "pooling_mode": "mean",
    "freeze_feature_encoder": True,
    "dataset_name": "data/kemdy20",
    "split": "paper",
    "ties": "transform",
    "label_target": "majority",
    "class_weights": None,
    "batch_weighted_sampler": False,
    "label_smoothing": 0.0,
    "modality_dropout": 0.0,
    "max_audio_seconds": 6.0,
    "audio_crop": "head",
    "max_text_tokens": 256,
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "num_train_epochs": 10,
    "max_steps": -1,
    "per_device_train_batch_size": 6,
    "per_device_eval_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "train_sampling_strategy": "random",
    "load_best_model_at_end": False,
    "fp16": True,
    "bf16": False,
    "seed": 2023,
}
# Where a published run differs from those values.
PUBLISHED = {
    "audio": {"fusion": "audio", "learning_rate": 1e-4, "per_device_train_batch_size": 16},
    "text": {"fusion": "text", "per_device_train_batch_size": 16},
    "late_fusion": {"fusion": "late_fusion"},
    "early_fusion": {"fusion": "early_fusion"},
    "mlp_mixer": {"fusion": "mlp_mixer"},
    "stack": {"fusion": "stack"},
    "residual": {"fusion": "residual"},
    "rsa": {"fusion": "rsa"},
    "rsa_cfn": {"fusion": "rsa_cfn", "per_device_train_batch_size": 4},
    "rsa_cfn_no_label_transform": {"fusion": "rsa_cfn", "per_device_train_batch_size": 4, "ties": "drop"},
    "rsa_cfn_xlm_roberta": {
        "fusion": "rsa_cfn",
        "per_device_train_batch_size": 4,
        "text_model": "xlm-roberta-base",
    },
    "hybrid_fusion": {"fusion": "hybrid_fusion", "per_device_train_batch_size": 4},
}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parse(*arguments):
    """All arguments of a run in one dict."""
    model_args, data_args, training_args = parse_arguments(list(arguments))
    return asdict(model_args) | asdict(data_args) | training_args.to_dict()


def recipe(name):
    return str(RECIPES / f"{name}.json")


def test_there_is_one_for_each_published_number():
    assert {file.stem for file in RECIPES.glob("*.json")} == {*PUBLISHED, "demo"}


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_gives_the_values_of_the_paper(name, is_prepared):
    if is_prepared:
        Path("data/kemdy20").mkdir(parents=True)
    given = parse(recipe(name))
    expected = PAPER | PUBLISHED[name] | {"output_dir": f"models/recipes/{name}"}
    assert {key: given[key] for key in expected} == expected
    assert given["optim"].startswith("adamw") and given["adam_beta1"] == 0.9 and given["adam_beta2"] == 0.999


def test_recipes_differ_from_each_other_in_nothing_else():
    runs = {name: parse(recipe(name)) for name in PUBLISHED}
    for name, run in runs.items():
        # The file names the transform; the run goes by what it means for ties.
        differing = {key for key in run if run[key] != runs["rsa"][key]} - {"label_transform"}
        expected = {*PUBLISHED[name], "output_dir"} if name != "rsa" else set()
        assert differing == expected, name


@pytest.mark.parametrize("is_prepared", [False, True])
def test_the_demo_is_the_run_without_arguments(is_prepared):
    plain = parse()
    if is_prepared:
        Path("data/kemdy20").mkdir(parents=True)
    spelled_out = parse(recipe("demo"))
    for key, value in json.loads(Path(recipe("demo")).read_text()).items():
        assert spelled_out[key] == value
    # What isn't said in the run without arguments follows from the dataset.
    follows = {"dataset_name", "split", "num_folds", "fold", "output_dir"}
    assert {key for key in plain if plain[key] != spelled_out[key]} == follows


def test_what_follows_the_file_wins():
    given = parse(recipe("rsa_cfn"), "--seed", "7", "--label_transform", "false", "--fp16", "false", "--bf16")
    plain = parse(recipe("rsa_cfn"))
    assert (given["seed"], given["ties"], given["fp16"], given["bf16"]) == (7, "drop", False, True)
    same = set(plain) - {"seed", "ties", "label_transform", "fp16", "bf16", "data_seed", "mixed_precision"}
    assert {key: given[key] for key in same} == {key: plain[key] for key in same}


def test_a_wrong_option_after_the_file_is_told_as_without_it():
    with pytest.raises(InputError, match="^unknown arguments: --sed 7"):
        parse(recipe("rsa_cfn"), "--sed", "7")


def test_the_demo_trains_beside_kemdy20(prepared_dir, monkeypatch):
    Path("data/kemdy20").mkdir(parents=True)
    # A small corpus for the one that is made here, which takes longer.
    monkeypatch.setattr("training.data.prepare", lambda corpus, _, folder: shutil.copytree(prepared_dir, folder))
    metrics = main(*parse_arguments([recipe("demo"), "--max_steps", "2", "--disable_tqdm", "true"]))
    results = json.loads(Path("models/recipes/demo/all_results.json").read_text())
    assert metrics["eval_rows"] == results["eval_rows"] > 0 and results["train_loss"] > 0
    record = json.loads(Path("models/recipes/demo/split.json").read_text())
    assert (record["dataset"]["name"], record["split"], record["fold"]) == ("data/demo", "session", 5)


def test_the_page_lists_each_with_its_command():
    rows = re.findall(r"^\| `(\w+)\.json` \| (\.\d{5}|) ?\| `(.*)` \|$", (RECIPES / "README.md").read_text(), re.M)
    assert {name for name, *_ in rows} == {file.stem for file in RECIPES.glob("*.json")}
    for name, _, command in rows:
        assert command == f"accelerate launch run_classification.py recipes/{name}.json"
