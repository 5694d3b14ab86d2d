"""Several processes: the configurations are read by accelerate as meant, and two processes do what one does."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from datasets import load_from_disk
from safetensors.torch import load_file

from run_classification import main
from training.data import load_splits
from training.model import load_model
from training.parsing import parse_arguments


REPOSITORY = Path(__file__).parents[1]
CONFIGURATIONS = REPOSITORY / "recipes" / "accelerate"
# Of all processes together. It divides the training rows: where it doesn't, DDP fills up the last batch of an epoch.
BATCH_SIZE = 4


@pytest.fixture
def launched(monkeypatch):
    """A function that gives what `accelerate launch` makes of a configuration."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def launched(name, *arguments):
        given = ["--config_file", str(CONFIGURATIONS / f"{name}.yaml"), *arguments, "run_classification.py"]
        args, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
        return args

    return launched


def test_each_configuration_starts_two_processes(launched):
    names = {file.stem for file in CONFIGURATIONS.glob("*.yaml")}
    assert names == {"ddp_cpu_2", "ddp_cuda", "fsdp", "deepspeed_zero2"}
    for name in names:
        args = launched(name)
        assert (args.num_processes, args.num_machines, args.main_process_port) == (2, 1, 0)
        assert [args.multi_gpu, args.use_fsdp, args.use_deepspeed].count(True) == 1
        assert args.use_cpu == (name == "ddp_cpu_2")
        # What the script is told decides.
        assert args.mixed_precision == "no" and launched(name, "--mixed_precision", "bf16").mixed_precision == "bf16"
        assert launched(name, "--num_processes", "4").num_processes == 4


def test_fsdp_wraps_the_layers_of_both_backbones(launched, prepared_dir, tmp_path):
    args = launched("fsdp")
    assert args.use_fsdp
    with patch_environment(**prepare_multi_gpu_env(args)):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    # Otherwise no model.safetensors would be saved.
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    # The tiny backbones have the layers of the default ones.
    given = ["--dataset_name", str(prepared_dir), "--audio_model", "tiny", "--text_model", "tiny"]
    model_args, data_args, _ = parse_arguments([*given, "--output_dir", str(tmp_path / "out")])
    model, _ = load_model(model_args, data_args, ["neutral", "happy"], ["정말", "고마워요"])
    is_wrapped = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [name for name, module in model.named_modules() if is_wrapped(module)]
    assert wrapped == [
        "audio_model.encoder.layers.0",
        "audio_model.encoder.layers.1",
        "text_model.encoder.layer.0",
        "text_model.encoder.layer.1",
    ]


def test_deepspeed_takes_batches_and_clipping_from_the_run(launched):
    args = launched("deepspeed_zero2")
    args.deepspeed_fields_from_accelerate_config = "zero_stage"
    _, environment = prepare_deepspeed_cmd_env(args)
    with patch_environment(**environment):
        plugin = DeepSpeedPlugin()
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == 2
    for name in ("train_batch_size", "gradient_accumulation_steps", "gradient_clipping"):
        assert plugin.deepspeed_config[name] == "auto", name


@pytest.fixture(scope="module")
def model_dir(prepared_dir, tmp_path_factory):
    """A tiny model in whose training nothing is random but the order: no dropout, no clip cropped anywhere."""
    folder = tmp_path_factory.mktemp("model")
    given = ["--dataset_name", str(prepared_dir), "--output_dir", str(folder / "unused"), "--audio_crop", "head"]
    given += "--fusion early_fusion --audio_model tiny --text_model tiny".split()
    model_args, data_args, _ = parse_arguments(given)
    splits = load_splits(data_args, with_validation=True)
    model, processor = load_model(model_args, data_args, splits.label_names, splits.train["text"][:])
    for config in (model.config.audio_config, model.config.text_config):
        for name in vars(config):
            if name.endswith("dropout") or name.endswith("dropout_prob"):
                setattr(config, name, 0.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(prepared_dir, model_dir, tmp_path_factory):
    """
    The folder of a run in one process and of one in two, of the same rows a step, and what the two processes printed.

    The held-out rows are no multiple of those that are scored at once, so the last batch has to be filled up.
    """
    folder = tmp_path_factory.mktemp("models")
    given = ["--dataset_name", str(prepared_dir), "--model_name_or_path", str(model_dir)]
    given += "--train_sampling_strategy random --num_train_epochs 2 --eval_strategy epoch --learning_rate 1e-3".split()
    given += "--logging_strategy steps --logging_steps 1 --disable_tqdm true --use_cpu".split()

    def batches(num_rows):
        return ["--per_device_train_batch_size", str(num_rows), "--per_device_eval_batch_size", str(num_rows)]

    main(*parse_arguments([*given, *batches(BATCH_SIZE), "--output_dir", str(folder / "one")]))
    command = ["accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / "ddp_cpu_2.yaml")]
    command += [str(REPOSITORY / "run_classification.py"), *given, *batches(BATCH_SIZE // 2)]
    finished = subprocess.run(
        [sys.executable, "-m", *command, "--output_dir", str(folder / "two")],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return folder / "one", folder / "two", finished.stdout, finished.stderr


def read_predictions(folder):
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_two_processes_score_the_rows_once_each_in_order(runs, prepared_dir):
    one, two = map(read_predictions, runs[:2])
    dataset = load_from_disk(prepared_dir)["train"]
    rows = zip(dataset["segment_id"], dataset["session"], dataset["label"])
    held_out = [name for name, session, label in rows if session == 6 and label is not None]
    assert len(held_out) % BATCH_SIZE
    assert [row["segment_id"] for row in one] == [row["segment_id"] for row in two] == held_out
    names = [name for name in one[0] if name.startswith("probability_")]
    for ours, theirs in zip(one, two):
        assert [float(ours[name]) for name in names] == pytest.approx([float(theirs[name]) for name in names], abs=1e-4)


@pytest.mark.slow
def test_two_processes_have_the_scores_of_one(runs):
    one, two = (json.loads((folder / "all_results.json").read_text()) for folder in runs[:2])
    assert one.keys() == two.keys()
    scores = [name for name in one if not re.search("runtime|per_second|flos", name)]
    assert {"eval_macro_f1", "eval_loss", "eval_kl_to_raters", "validation_loss", "train_loss"} <= set(scores)
    for name in scores:
        assert two[name] == pytest.approx(one[name], abs=1e-4), name


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(runs):
    histories = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in runs[:2]]
    for name in ("loss", "grad_norm", "eval_loss", "eval_macro_f1"):
        one, two = ([entry[name] for entry in history if name in entry] for history in histories)
        assert len(one) == (2 if name.startswith("eval") else 14)
        assert two == pytest.approx(one, rel=1e-5), name
    one, two = (load_file(folder / "model.safetensors") for folder in runs[:2])
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_write_and_say_everything_once(runs):
    one, two, printed, logged = runs
    assert {file.name for file in two.iterdir()} == {file.name for file in one.iterdir()}
    for name in ("split.json", "splits.csv", "confusion_matrix.png"):
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    for said in ("Scored on audio and text:", "Written to ", "Done in "):
        assert printed.count(said) == 1, said
    assert logged.count("rows train, ") == logged.count("First training step after") == 1
