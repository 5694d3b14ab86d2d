"""A recipe: the arguments of a run, read again, are those of the run; and none of it is of one machine or person."""

import json

import pytest

from training.parsing import parse_arguments
from training.recipe import make_recipe


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        "--audio_model tiny --text_model tiny --weight_decay 0 --max_grad_norm 1 --lr_scheduler_type linear",
        "--fusion text --seed 9 --label_transform --class_weights effective --split session --num_folds 4 --fold 2",
        "--fusion audio --freeze_feature_encoder false --max_audio_seconds 3 --eval_modalities both audio",
        "--eval_strategy epoch --save_strategy epoch --load_best_model_at_end --early_stopping_patience 2",
    ],
)
def test_a_recipe_read_again_is_the_run(arguments, tmp_path):
    recipe = make_recipe(*parse_arguments(arguments.split()))
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    assert make_recipe(*parse_arguments(["recipe.json"])) == recipe


def test_a_value_that_is_transformers_default_and_not_ours_is_kept():
    recipe = make_recipe(*parse_arguments(["--audio_model", "tiny", "--text_model", "tiny", "--weight_decay", "0"]))
    assert recipe["weight_decay"] == 0


def test_nothing_of_one_machine_or_person(tmp_path):
    (tmp_path / "speech").mkdir()
    arguments = ["--output_dir", str(tmp_path / "out"), "--dataset_name", str(tmp_path / "speech")]
    arguments += "--push_to_hub --hub_model_id me/speech --hub_private_repo true --use_cpu".split()
    recipe = make_recipe(*parse_arguments([*arguments, "--resume_from_checkpoint", "last"]))
    assert (recipe["output_dir"], recipe["dataset_name"]) == ("out", "speech")
    assert not any(name.startswith(("hub", "push", "resume", "use_cpu")) for name in recipe)
    assert str(tmp_path) not in json.dumps(recipe)
