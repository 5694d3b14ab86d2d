"""What a run shows while it goes on: the loss beside the bar, and event files that hold every score."""

import json
import re
import sqlite3

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from run_classification import main
from training.parsing import parse_arguments


EXPLAINED_SKIPS = {"could not import '(mlflow|trackio)'": "whoever has one tries it"}


def run(dataset, output_dir, *arguments):
    given = ["--dataset_name", str(dataset), "--output_dir", str(output_dir), "--fusion", "text"]
    if "--model_name_or_path" in arguments:
        given = given[:-2]
    else:
        given += ["--audio_model", "tiny", "--text_model", "tiny"]
    return main(*parse_arguments([*given, "--max_steps", "4", *arguments]))


def read_events(folder):
    """The last value of each curve, and the steps of all of its values."""
    events = EventAccumulator(str(folder))
    events.Reload()
    curves = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: curve[-1].value for tag, curve in curves.items()}, {
        tag: [point.step for point in curve] for tag, curve in curves.items()
    }


@pytest.fixture(scope="module")
def reported(prepared_dir, tmp_path_factory):
    """The folder of a run that reports to TensorBoard."""
    folder = tmp_path_factory.mktemp("models") / "text"
    arguments = "--logging_strategy steps --logging_steps 1 --eval_strategy steps --eval_steps 2 --max_grad_norm 0"
    run(prepared_dir, folder, *arguments.split(), "--report_to", "tensorboard", "--disable_tqdm", "true")
    return folder


def test_tensorboard_has_the_curves_and_all_scores(reported):
    values, steps = read_events(reported / "runs")
    for name in ("loss", "learning_rate", "grad_norm"):
        assert steps[f"train/{name}"] == [1, 2, 3, 4], name
    assert values["train/train_samples_per_second"] > 0
    results = json.loads((reported / "all_results.json").read_text())
    for prefix, shown in (("validation", "eval"), ("eval", "test")):
        scores = {name: value for name, value in results.items() if name.startswith(f"{prefix}_")}
        assert {f"{prefix}_macro_f1", f"{prefix}_f1_angry", f"{prefix}_kl_to_raters", f"{prefix}_rows"} <= set(scores)
        for name, value in scores.items():
            assert values[f"{shown}/{name.removeprefix(f'{prefix}_')}"] == pytest.approx(value, rel=1e-5), name
    assert len(list((reported / "runs").iterdir())) == 1
    # During training on the validation part alone: the test part has one value, at the end.
    assert steps["eval/macro_f1"] == [2, 4, 4]
    assert steps["test/macro_f1"] == [4]


class Tracker(TrainerCallback):
    """Notes what a tracker is told, in its order."""

    told = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.told.append({name: value for name, value in logs.items() if name in ("eval_macro_f1", "test_macro_f1")})

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.told.append("end")

    def on_predict(self, args, state, control, **kwargs):
        self.told.append("on_predict")


def test_a_tracker_has_one_run_of_a_command_and_the_test_part_under_its_name(prepared_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Tracker)
    monkeypatch.setattr(Tracker, "told", [])
    results = run(prepared_dir, tmp_path / "out", "--report_to", "tensorboard", "--eval_strategy", "epoch")
    told = [what for what in Tracker.told if what]
    scores = {"eval_macro_f1": results["validation_macro_f1"]}, {"test_macro_f1": results["eval_macro_f1"]}
    assert told[-3:] == [pytest.approx(scores[0]), pytest.approx(scores[1]), "end"]
    assert told.count("end") == 1 and "on_predict" not in told
    assert all(list(what) == ["eval_macro_f1"] for what in told[:-2])


def tracked_by_mlflow(folder):
    import mlflow

    (tracked,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return tracked.data.metrics | {"status": tracked.info.status}


def tracked_by_trackio(folder):
    (database,) = folder.glob("**/huggingface.db")
    with sqlite3.connect(database) as connection:
        logged = connection.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    assert len({name for name, _ in logged}) == 1
    return {name.replace("/", "_"): value for _, values in logged for name, value in json.loads(values).items()}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", [tracked_by_mlflow, tracked_by_trackio])
def test_the_database_of_a_tracker(tracker, prepared_dir, tmp_path, monkeypatch):
    package = tracker.__name__.removeprefix("tracked_by_")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(package)
    results = run(prepared_dir, tmp_path / "out", "--report_to", package, "--eval_strategy", "epoch")
    tracked = tracker(tmp_path)
    assert not [name for name in tracked if name.startswith(("validation", "train_validation"))]
    for name, shown in (("validation", "eval"), ("eval", "test")):
        assert tracked[f"{shown}_macro_f1"] == pytest.approx(results[f"{name}_macro_f1"], rel=1e-5)
    assert tracked.get("status", "FINISHED") == "FINISHED"


def test_a_run_that_only_scores_reports_into_its_folder(reported, prepared_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--model_name_or_path", str(reported), "--do_train", "false", "--eval_modalities", "both", "text"]
    run(prepared_dir, tmp_path / "scored", *arguments, "--report_to", "tensorboard")
    values, _ = read_events(tmp_path / "scored" / "runs")
    results = json.loads((tmp_path / "scored" / "all_results.json").read_text())
    for name in ("macro_f1", "text_macro_f1"):
        assert values[f"test/{name}"] == pytest.approx(results[f"eval_{name}"], rel=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"scored"}


def test_without_it_nothing_is_reported(prepared_dir, tmp_path, capsys):
    run(prepared_dir, tmp_path / "out", "--disable_tqdm", "true", "--eval_strategy", "epoch")
    printed = capsys.readouterr().out
    # A line each, of the main scores.
    assert re.search(r"^Epoch [\d.]+: loss [\d.]+, grad_norm [\d.]+, learning_rate \S+$", printed, re.M)
    assert re.search(r"^Epoch [\d.]+: eval_loss [\d.]+, eval_macro_f1 [\d.]+, .*eval_accuracy [\d.]+$", printed, re.M)
    assert re.search(r"^Epoch [\d.]+: train_loss [\d.]+, train_runtime", printed, re.M) and "{" not in printed
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_bar_shows_the_loss_of_the_last_step(accumulation, prepared_dir, tmp_path, capsys):
    arguments = "--logging_strategy steps --logging_steps 1 --gradient_accumulation_steps".split()
    run(prepared_dir, tmp_path / "out", *arguments, str(accumulation))
    printed = capsys.readouterr()
    shown = re.findall(r"4/4 .*?loss=([\d.]+)", printed.err)
    assert printed.out.count(": loss ") == 4 and "{" not in printed.out
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    (last,) = (entry["loss"] for entry in state["log_history"] if "loss" in entry and entry["step"] == 4)
    assert shown and float(shown[-1]) == pytest.approx(last, abs=1e-4)
