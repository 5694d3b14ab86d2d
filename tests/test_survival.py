"""Runs that are killed, told to stop or can't write: real processes, and what the next one makes of what they left."""

import io
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pandas
import psutil
import pytest
from transformers import AutoTokenizer, RobertaConfig, TrainingArguments, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from foundation.errors import InputError
from run_classification import find_start, main
from tests import killing
from tests.processes import Run
from training.checkpoints import FILE_LIST, find_damage, list_checkpoints, remove_half_written, seal
from training.parsing import parse_arguments


# A limit on the size of files fails as a full disk does: in the middle of a write.
DISK_IS_FULL = """
import logging, resource, signal, sys
import run_classification
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
logging.basicConfig(format="%(message)s")
sys.exit(run_classification.run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def start(processes, prepared_dir):
    """A function that starts a run on the demo corpus, of 28 training rows, in a process of its own."""

    def start(output_dir, *arguments, script=("run_classification.py",)):
        return processes.start(*script, *on_demo_corpus(prepared_dir, output_dir), *arguments)

    return start


def on_demo_corpus(dataset, output_dir):
    given = ["--dataset_name", str(dataset), "--output_dir", str(output_dir), "--disable_tqdm", "true"]
    return [*given, "--audio_model", "tiny", "--text_model", "tiny", "--max_audio_seconds", "1"]


def without_times(values: dict) -> dict:
    return {
        name: value for name, value in values.items() if not re.search("_runtime|_per_second|_preparation_time", name)
    }


def left_by(folder: Path) -> dict:
    """All that a finished run says of itself, but for how long it took."""
    state = json.loads((folder / "trainer_state.json").read_text())
    state["log_history"] = [without_times(entry) for entry in state["log_history"]]
    state["best_model_checkpoint"] = state["best_model_checkpoint"] and Path(state["best_model_checkpoint"]).name
    return {
        "state": state,
        "results": without_times(json.loads((folder / "all_results.json").read_text())),
        "weights": (folder / "model.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_text(),
        "checkpoints": [path.name for path in list_checkpoints(folder)],
    }


# Logs, evaluations and saves fall together at some steps and apart at others; an epoch has 7 steps.
SCHEDULE = (
    "--fusion rsa_cfn --modality_dropout 0.3 --per_device_train_batch_size 4 --num_train_epochs 2 --logging_strategy "
    "steps --logging_steps 3 --save_strategy steps --save_steps 2 --eval_strategy steps --eval_steps 2 "
    "--load_best_model_at_end --early_stopping_patience 8 --save_total_limit 2"
).split()
FILES = ("config.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", FILE_LIST)


@pytest.fixture(scope="module")
def unbroken(start, tmp_path_factory):
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    run = start(folder, *SCHEDULE)
    assert run.wait() == 0, run.stderr
    return folder


def stop(run: Run, after: Path, number: int) -> int:
    """Send a signal as soon as a file of a checkpoint is there, or a later checkpoint; gives the exit code."""
    while run.is_alive and not (after.exists() or after.parent in list_checkpoints(after.parents[1])[:-1]):
        time.sleep(0.001)
    if run.is_alive:
        os.kill(run.pid, number)
    return run.wait()


@pytest.fixture(scope="module")
def interrupted(start, tmp_path_factory):
    """The folder of a run that was killed, of which a checkpoint is left."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    run = start(folder, *SCHEDULE)
    assert stop(run, folder / "checkpoint-2" / FILE_LIST, signal.SIGKILL) == -signal.SIGKILL, run.stderr
    return folder


def contents(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("num_kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_the_unbroken_one(num_kills, start, unbroken, tmp_path):
    folder = tmp_path / "killed"
    draw = random.Random(5)
    # Each process is killed while, or just after, it writes another file of another checkpoint.
    steps = sorted(draw.sample(range(2, 14, 2), num_kills))
    for step in steps:
        run = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last")
        file = folder / f"checkpoint-{step}" / draw.choice(FILES)
        assert stop(run, file, signal.SIGKILL) == -signal.SIGKILL, run.stderr
        whole = [path for path in list_checkpoints(folder) if find_damage(path) is None]
        assert whole or step == steps[0]
    last = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last")
    assert last.wait() == 0, last.stderr
    assert left_by(folder) == left_by(unbroken)


@pytest.mark.parametrize(
    "number, exit_code", [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_run_told_to_stop_saves_first_and_can_be_gone_on_with(number, exit_code, start, unbroken, tmp_path):
    folder = tmp_path / "stopped"
    run = start(folder, *SCHEDULE)
    assert stop(run, folder / "checkpoint-2" / FILE_LIST, number) == exit_code, run.stderr
    (told,) = re.findall("run_classification.py: .*", run.stderr)
    pattern = (
        rf"run_classification.py: stopped by {number.name} after step (\d+) of 14, which is saved in {folder}; go "
    )
    step = re.match(pattern + "on by the same command with --resume_from_checkpoint last", told)[1]
    assert list_checkpoints(folder)[-1] == folder / f"checkpoint-{step}"
    assert find_damage(folder / f"checkpoint-{step}") is None
    again = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last")
    assert again.wait() == 0 and f"Going on from {folder}/checkpoint-{step}." in again.stderr
    assert left_by(folder) == left_by(unbroken)


@pytest.mark.slow
def test_a_run_whose_launcher_is_told_to_stop_saves_and_can_be_gone_on_with(start, unbroken, tmp_path):
    """`accelerate launch` itself passes no signal on to one process, and ends before it."""
    folder, launch = tmp_path / "launched", ("-m", "accelerate.commands.launch", "run_classification.py")
    run = start(folder, *SCHEDULE, script=launch)
    while run.is_alive and not (folder / "checkpoint-2" / FILE_LIST).exists():
        time.sleep(0.001)
    launched = psutil.Process(run.pid).children()
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait() == -signal.SIGTERM
    assert launched and not psutil.wait_procs(launched, timeout=300)[1]
    assert "run_classification.py: stopped by SIGTERM after step" in run.stderr and "Traceback" not in run.stderr
    again = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last", script=launch)
    assert again.wait() == 0, again.stderr
    assert left_by(folder) == left_by(unbroken)


def test_a_finished_run_is_not_trained_again(start, unbroken, tmp_path):
    folder = shutil.copytree(unbroken, tmp_path / "finished")
    refused = start(folder, *SCHEDULE)
    assert refused.wait() == 2
    assert refused.stderr.startswith(f"run_classification.py: --output_dir {folder} already holds a finished run;")
    assert refused.stderr.count("\n") == 1
    (folder / "predictions.csv").unlink()
    scored = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last")
    assert scored.wait() == 0, scored.stderr
    assert f"The run in {folder} is finished: nothing is left to train, and its model is scored." in scored.stderr
    left, expected = left_by(folder), left_by(unbroken)
    # Weights that are read from a file lie elsewhere in memory, where a sum may be rounded otherwise.
    assert left.pop("results") == pytest.approx(expected.pop("results"), rel=1e-6)
    assert left == expected


def test_a_full_disk_leaves_the_earlier_checkpoints(start, interrupted, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "full")
    left = {path.name for path in list_checkpoints(folder) if find_damage(path) is None}
    before = contents(folder / "checkpoint-2")
    # Enough for the model, not for the optimizer.
    run = start(folder, *SCHEDULE, "--resume_from_checkpoint", "last", script=("-c", DISK_IS_FULL))
    assert run.wait() == 1
    assert "Traceback" not in run.stderr
    told = run.stderr.splitlines()[-1]
    assert re.match(
        rf"run_classification.py: {folder}/checkpoint-\d+ can't be written \(.+\); earlier checkpoints", told
    )
    assert {path.name for path in list_checkpoints(folder)} == left
    assert contents(folder / "checkpoint-2") == before


def wrong_fusion(folder):
    return ["--fusion", "text"], r"is of another run \(fusion rsa_cfn, now text\)"


def wrong_classes(folder):
    return ["--label_column_name", "gender"], r"classes \['neutral', .*\], now \['F', 'M'\]"


def wrong_rows(folder):
    return ["--fold", "4"], r"is of another run \(fold 5, now 4"


def wrong_limit(folder):
    return ["--max_audio_seconds", "2"], r"is of another run \(max_audio_seconds 1.0, now 2.0\)"


def no_average(folder):
    return ["--ema_decay", "0.9"], r"is of another run \(averaging False, now True\)"


def wrong_backbone(folder):
    Wav2Vec2Config(hidden_size=32, num_attention_heads=2).save_pretrained(folder / "audio")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "audio")
    RobertaConfig(hidden_size=32, num_attention_heads=2).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(folder / "checkpoint-2").save_pretrained(folder / "text")
    for name in ("audio", "text"):
        (folder / name / "model.safetensors").touch()
    backbones = ["--audio_model", str(folder / "audio"), "--text_model", str(folder / "text")]
    return backbones, r"audio_model's hidden_size 96, now 32"


def truncated_weights(folder):
    os.truncate(folder / "checkpoint-2" / "model.safetensors", 1000)
    return [], r"no whole checkpoint in .* \(checkpoint-2: model.safetensors has 1000 bytes instead of \d+\)"


def no_optimizer(folder):
    (folder / "checkpoint-2" / "optimizer.pt").unlink()
    path = str(folder / "checkpoint-2")
    return [
        "--resume_from_checkpoint",
        path,
    ], r"can't be gone on from: optimizer.pt is missing; give a whole checkpoint"


def no_checkpoint(folder):
    return ["--resume_from_checkpoint", str(folder)], "it was not written to its end, or by another program"


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_fusion,
        wrong_classes,
        wrong_rows,
        wrong_limit,
        no_average,
        wrong_backbone,
        truncated_weights,
        no_optimizer,
        no_checkpoint,
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(spoil, interrupted, prepared_dir, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-4"))
    given, message = spoil(folder)
    before = contents(folder / "checkpoint-2")
    resume = "--resume_from_checkpoint last".split()
    arguments = parse_arguments([*on_demo_corpus(prepared_dir, folder), *SCHEDULE, *resume, *given])
    with pytest.raises(InputError, match=message) as error:
        main(*arguments)
    assert "\n" not in str(error.value)
    assert contents(folder / "checkpoint-2") == before


def test_another_number_of_processes_is_said(interrupted, caplog, tmp_path):
    folder = shutil.copytree(interrupted, tmp_path / "run")
    remove_half_written(folder)
    caplog.clear()
    arguments = TrainingArguments(str(folder), use_cpu=True, do_train=True, resume_from_checkpoint="last")
    caplog.set_level("WARNING", "training")
    checkpoint = find_start(arguments)
    assert caplog.messages == []
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    seal(checkpoint)
    assert find_start(arguments) == checkpoint
    assert caplog.messages == [
        f"{checkpoint} is of 2 processes, this run has 1: it goes on with other batches and random numbers than it "
        "would have."
    ]


@pytest.mark.slow
@pytest.mark.parametrize("given", [(), ("--cache_features", "--audio_crop", "head")], ids=["training", "features"])
def test_a_run_killed_at_any_file_event_ends_as_the_unbroken_one(given, processes, prepared_dir, tmp_path):
    folder, cache, counted = tmp_path / "run", tmp_path / "cache", tmp_path / "count"
    options = {"HF_DATASETS_CACHE": str(cache)}
    short = [*SCHEDULE, "--max_steps", "4", *given, "--resume_from_checkpoint", "last"]

    def started(number):
        arguments = [*on_demo_corpus(prepared_dir, folder), *short]
        watched = [cache / "rsa_cfn_features" if given else folder]
        return killing.start(processes, number, counted, watched, "run_classification.py", *arguments, **options)

    whole = started(0)
    assert whole.wait() == 0, whole.stderr
    expected, number = left_by(folder), int(counted.read_text())
    for event in range(1, number + 1, int(os.environ.get("RSA_CFN_KILLS", 8 if given else 25))):
        for left in (folder, cache):
            shutil.rmtree(left, ignore_errors=True)
        assert started(event).wait() == -signal.SIGKILL
        again = started(0)
        assert again.wait() == 0, again.stderr
        left = left_by(folder)
        assert left.pop("results") == pytest.approx(expected["results"], rel=1e-6)
        # A model that was loaded to be scored again may round a number otherwise in the last of six places.
        tables = [pandas.read_csv(io.StringIO(text)) for text in (left.pop("predictions"), expected["predictions"])]
        pandas.testing.assert_frame_equal(*tables, rtol=0, atol=2e-6)
        assert left == {name: value for name, value in expected.items() if name in left}, event
        assert not list(tmp_path.rglob(".tmp.*")) and not list(cache.rglob("*.incomplete"))
