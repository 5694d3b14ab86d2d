"""The script: a small plan run to its report; a run failing, wrong input; and in real processes, stopped and killed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from datasets import load_from_disk
from transformers import (
    ElectraForPreTraining,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

import run_experiments
from configuration_rsa_cfn import EMOTIONS, FUSIONS
from experiments.published import WEIGHTED_F1
from foundation.files import owned
from tests import killing
from tests.test_encoders_rsa_cfn import WHISPER
from training.model import train_tokenizer


PAPERS = {*FUSIONS} - {"cross_attention"}
REPOSITORY = Path(__file__).parents[1]
PAPER_PLAN = REPOSITORY / "recipes" / "experiments" / "paper.json"
TINY = {"audio_model": "tiny", "text_model": "tiny"}
SUMMARY = ("macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy")
REPORT = ("results.json", "results.csv", "results.md", "report.html")
# Jobs as on a cluster, two at a time, which submitit runs on this machine.
JOBS = ("--launcher", "slurm", "--slurm", "cluster=local", "--num_processes", "2")
# What another run of the same takes other figures of: time and memory.
COST = {"seconds", "peak_memory_bytes"}


def write_plan(folder, prepared_dir, arguments=(), **fields):
    given = {"dataset_name": str(prepared_dir), "num_train_epochs": 1, "max_audio_seconds": 1}
    plan = {
        "description": "A small one.",
        "arguments": given | dict(arguments),
        "protocols": {"session": {"folds": [2], "seeds": [7]}, "paper": {"seeds": [7]}},
        "tables": {"Fusions": [{"fusions": ["rsa"], "backbones": [TINY]}]},
    }
    file = folder / "small.json"
    file.write_text(json.dumps(plan | fields))
    return str(file)


def run_in(folder, *arguments):
    """Its exit code and what it printed, run in this process, in `folder`."""
    output, errors = StringIO(), StringIO()
    with chdir(folder), redirect_stdout(output), redirect_stderr(errors):
        code = run_experiments.run(list(arguments))
    return code, output.getvalue(), errors.getvalue()


def start(folder, *arguments, **variables):
    """The script as a process of its own, in `folder`."""
    command = [sys.executable, str(REPOSITORY / "run_experiments.py"), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **variables}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **streams)


def finish(process):
    output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def finished(prepared_dir, tmp_path_factory):
    """The folder of a plan that was run without a break, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    code, output, errors = run_in(folder, write_plan(folder, prepared_dir))
    assert code == 0, errors
    return folder, output


def read_results(folder):
    return json.loads((folder / "results" / "small" / "results.json").read_text(encoding="utf-8"))


def test_every_cell_is_run_and_reported(finished):
    folder, output = finished
    results = read_results(folder)
    # A fusion and two baselines; one fold and the random split.
    assert len(results["runs"]) == 3 * 2 and not any(run["error"] for run in results["runs"])
    assert "[6/6]" in output and "6 of 6 runs are finished" in output
    for run in results["runs"]:
        cell = folder / "results" / "small" / "cells" / run["name"]
        written = json.loads((cell / "all_results.json").read_text())
        assert all(run["scores"][name] == written[f"eval_{name}"] for name in SUMMARY)
        assert run["seconds"] > 0 and run["parameters"] > run["fusion_parameters"] > 0
        assert not list(cell.glob("checkpoint-*"))
    for name in REPORT:
        assert (folder / "results" / "small" / name).stat().st_size > 1000
    assert set(results["attention"]) == {"rsa"}
    for scores in results["scores"]:
        if scores["protocol"] == "session" and scores["system"] != "majority":
            cell = folder / "results" / "small" / "cells" / "session" / scores["system"] / "fold2-seed7"
            with (cell / "predictions.csv").open(encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            accuracy = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
            assert scores["num_rows"] == len(rows)
            assert scores["estimates"]["accuracy"]["value"] == pytest.approx(accuracy)
            assert (scores["group_column"], scores["num_groups"]) == ("session", len({row["session"] for row in rows}))


def test_attention_is_drawn_by_the_first_run_so_that_no_report_waits_for_it(finished):
    folder = finished[0] / "results" / "small"
    drawn = {file.parent: file for file in folder.glob("cells/*/*/*/attention.png")}
    assert list(drawn) == [folder / "cells" / "session" / "rsa" / "fold2-seed7"]
    for cell, picture in drawn.items():
        assert picture.read_bytes() == (folder / "pictures" / "attention-rsa.png").read_bytes()
        assert "Attention: 100%" in (cell / "log.txt").read_text(encoding="utf-8")


def test_the_paper_s_protocol_is_told_from_what_it_flatters(finished):
    results = read_results(finished[0])
    runs = {run["system"]: run for run in results["runs"] if run["protocol"] == "paper"}
    assert set(runs) == {"rsa", "audio", "text"}
    assert {(flattery["system"], flattery["score"]) for flattery in results["flattery"]} == {
        (system, score) for system in runs for score in ("weighted_f1", "macro_f1")
    }
    for flattery in results["flattery"]:
        run = runs[flattery["system"]]
        assert flattery["best_epoch"] == pytest.approx(run["scores"][flattery["score"]])
        assert flattery["last_epoch"] == pytest.approx(run["last_epoch"][flattery["score"]])
        assert flattery["num_rows"] > 0


def without_cost(value):
    if isinstance(value, dict):
        # The folder of a run that goes on is the same, so is the command.
        return {name: without_cost(entry) for name, entry in value.items() if name not in COST}
    return [without_cost(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), JOBS], ids=["processes", "jobs"])
def test_stopped_killed_and_started_again_it_ends_with_the_same_report(launcher, finished, prepared_dir, tmp_path):
    plan = write_plan(tmp_path, prepared_dir)
    first = start(tmp_path, plan, *launcher)
    assert any(line.startswith("[1/6]") for line in first.stdout)
    first.send_signal(signal.SIGTERM)
    code, output, errors = finish(first)
    assert code == 128 + signal.SIGTERM and "failed" not in output
    # A process that ends before its training leaves Python's own tracker something to warn of, after this line.
    told = [line for line in errors.splitlines() if line.startswith("run_experiments.py: stopped by SIGTERM; ")]
    assert len(told) == 1
    assert told[0].endswith(" of 6 runs are finished, and the same command goes on with the others")
    second = start(tmp_path, plan, *launcher)
    assert any(line.startswith("[4/6]") for line in second.stdout)
    second.kill()
    second.communicate()
    code, output, errors = finish(start(tmp_path, plan, *launcher))
    assert code == 0, errors
    # Jobs outlive the plan that was killed, and may have ended by themselves meanwhile.
    all_done = bool(launcher) and output.startswith("6 of 6 runs are finished")
    assert not output.startswith("0 of 6") and (all_done or "[6/6]" in output)
    assert comparable(tmp_path) == comparable(finished[0])


def comparable(folder):
    """The results of a plan without what a run at another time or place has otherwise."""
    results = read_results(folder)
    for key in ("command", "plan", "versions"):
        del results[key]
    for run in results["runs"]:
        del run["command"]
    return without_cost(results)


def copy_finished(finished, folder):
    shutil.copytree(finished[0], folder, dirs_exist_ok=True)
    return sorted(file.parent for file in folder.rglob("cell.json"))


def test_a_damaged_run_is_named_and_run_again_and_the_others_are_reported(finished, tmp_path, monkeypatch):
    cells, again = copy_finished(finished, tmp_path), []
    (cells[1] / "predictions.csv").write_text("".join((cells[1] / "predictions.csv").open().readlines()[:4]))
    (cells[2] / "cell.json").write_text("{")
    (cells[4] / "arguments.json").unlink()

    def run_cells(cells, *arguments):
        again.extend(cell.name for cell in cells)
        return {again[0]: "the same as before"}

    monkeypatch.setattr(run_experiments, "run_cells", run_cells)
    monkeypatch.setattr(run_experiments, "write_report", lambda results, folder: reported.extend(results.runs))
    reported = []
    code, output, errors = run_in(tmp_path, "small.json")
    assert code == 1, errors
    names = [cells[place].relative_to(tmp_path / "results/small/cells").as_posix() for place in (1, 2, 4)]
    told = [line.split(": ") for line in output.splitlines() if line.startswith("Damaged: ")]
    assert sorted(again) == sorted(name for _, name, *_ in told) == names
    for (_, _, *reason), file in zip(sorted(told), ("predictions.csv", "cell.json", "arguments.json")):
        assert file in ": ".join(reason) and reason[-1].endswith("; it is run again")
    assert {run.name: run.error for run in reported if run.error} == dict.fromkeys(names, "not run") | {
        again[0]: "the same as before"
    }
    assert all(run.scores for run in reported if not run.error)


@pytest.mark.slow
def test_damaged_runs_are_run_again_to_the_same_report(finished, tmp_path):
    damages = [lambda content: b"", lambda content: content[:-30], lambda content: b"7" + content]
    cells = copy_finished(finished, tmp_path)
    names = ["predictions.csv", "split.json", "trainer_state.json", "all_results.json", "model.safetensors"]
    names += ["config.json", "arguments.json", "cell.json"]
    for place, cell in enumerate(cells):
        file = cell / names[place]
        file.write_bytes(damages[place % 3](file.read_bytes()))
    code, output, errors = run_in(tmp_path, "small.json")
    assert code == 0, errors
    assert output.count("Damaged: ") == len(cells)
    assert comparable(tmp_path) == comparable(finished[0])


def test_a_second_plan_in_the_same_folder_is_refused(finished):
    folder, _ = finished
    with owned(folder / "results" / "small", "it"):
        code, output, errors = run_in(folder, "small.json")
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "run_experiments.py: --output_dir results/small is being written by another process; wait" in errors


@pytest.mark.slow
def test_of_two_at_once_the_first_is_as_if_alone(finished, prepared_dir, processes, tmp_path):
    plan = write_plan(tmp_path, prepared_dir)
    first = processes.start(REPOSITORY / "run_experiments.py", plan, cwd=tmp_path)
    while first.is_alive and not (tmp_path / "results" / "small" / "cells").is_dir():
        pass
    second = processes.run(REPOSITORY / "run_experiments.py", plan, cwd=tmp_path)
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1), second.stderr
    assert first.wait() == 0, first.stderr
    assert comparable(tmp_path) == comparable(finished[0])


# Forks the cells, so that each of them is killed before its own event of a number, and the plan before its.
FORKING = """
import multiprocessing, sys
import experiments.schedule
from run_experiments import run
experiments.schedule._make_context = lambda number: multiprocessing.get_context("fork")
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_plan_killed_at_any_file_event_ends_with_the_same_report(prepared_dir, processes, tmp_path):
    """Every process is killed before its event of a number, until there is none of so high a number."""
    protocols, tables = {"paper": {"seeds": [7]}}, {"T": [{"fusions": ["text"], "backbones": [TINY]}]}
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    step, expected, killed = int(os.environ.get("RSA_CFN_KILLS", 80)), None, 0
    for number in [0, *range(1, 10**6, step)]:
        folder = tmp_path / str(number)
        folder.mkdir()
        plan = write_plan(folder, prepared_dir, protocols=protocols, tables=tables)
        command = [folder / "counted", [folder / "results"], script, plan, "--output_dir", folder / "results" / "small"]
        run = killing.start(processes, number, *command)
        code = run.wait()
        if number and code:
            killed += 1
            again = killing.start(processes, 0, *command)
            assert again.wait() == 0, (number, again.stdout, again.stderr)
        elif number:
            break
        assert number or code == 0, run.stderr
        expected = expected or comparable(folder)
        assert comparable(folder) == expected, number
        leftovers = [path for path in (folder / "results").rglob("*") if path.name.startswith(".tmp.")]
        assert not leftovers, number
        shutil.rmtree(folder)
    assert killed


def test_all_done_it_only_reports(finished, monkeypatch):
    folder, _ = finished
    reported = []
    monkeypatch.setattr(run_experiments, "write_report", lambda results, folder: reported.append(results))
    code, output, errors = run_in(folder, str(folder / "small.json"))
    assert code == 0, errors
    assert "6 of 6 runs are finished; " in output and "[" not in output
    before = read_results(folder)
    assert [scores.system for scores in reported[0].scores] == [scores["system"] for scores in before["scores"]]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), JOBS], ids=["processes", "jobs"])
def test_a_failed_run_is_reported_and_the_rest_go_on(launcher, prepared_dir, tmp_path):
    """And a plan that asks for the scores of single modalities has those of both, which the report is of."""
    # A loss that isn't finite stops a run.
    block = {"fusions": ["text"], "backbones": [TINY], "variants": {"sane": {}, "mad": {"learning_rate": 1e30}}}
    fields = {"protocols": {"paper": {"seeds": [7]}}, "tables": {"Rates": [block]}}
    plan = write_plan(tmp_path, prepared_dir, {"eval_modalities": ["text"]}, **fields)
    code, output, _ = run_in(tmp_path, plan, *launcher)
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("Failed: ")]
    assert "paper/text-mad/seed7: the loss is" in line and line.endswith("log.txt)")
    results = read_results(tmp_path)
    assert {run["system"]: bool(run["error"]) for run in results["runs"]} == {"text · sane": False, "text · mad": True}
    assert {"macro_f1", "text_macro_f1"} <= set(results["runs"][0]["scores"])
    for name in ("results.md", "report.html"):
        assert "the loss is" in (tmp_path / "results" / "small" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--num_train_epochs", "3"],
            r"was run with other arguments (--num_train_epochs 1, now 3); give another --output_dir, or remove",
        ),
        (["--dataset_name", "nowhere"], "nowhere"),
        (["--num_processes", "0"], "--num_processes 0 is too small; give 1 or more"),
        (["--output_dir", str(REPOSITORY)], "is or holds the code of this repository; give a new folder"),
        (["--seed", "3"], "--seed is for the plan to say"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_trained(finished, arguments, message):
    folder, _ = finished
    before = (folder / "results" / "small" / "results.json").stat().st_mtime_ns
    code, output, errors = run_in(folder, "small.json", *arguments)
    assert code == 2 and not output
    assert message in errors.splitlines()[-1] and errors.splitlines()[-1].startswith("run_experiments.py: ")
    assert (folder / "results" / "small" / "results.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def hub_cache(make_model, prepared_dir, tmp_path_factory):
    """A cache of the Hub in which small random models have the names of the plans' backbones."""
    cache = tmp_path_factory.mktemp("hub")
    tokenizer = train_tokenizer(load_from_disk(prepared_dir)["train"]["text"])
    sizes = {"max_position_embeddings": 260, "vocab_size": len(tokenizer)}
    roberta = make_model(text_config=sizes)
    xlm_roberta = make_model(text_config={**sizes, "model_type": "xlm-roberta"})
    wavlm = make_model(audio_config={"model_type": "wavlm"})
    whisper = make_model(audio_config={**WHISPER, "max_source_positions": 1500})
    electra = make_model(text_config={**sizes, "model_type": "electra"})
    for name, parts in {
        "kresnik/wav2vec2-large-xlsr-korean": (Wav2Vec2ForCTC(roberta.audio_model.config), Wav2Vec2FeatureExtractor()),
        "microsoft/wavlm-large": (wavlm.audio_model, Wav2Vec2FeatureExtractor()),
        "openai/whisper-small": (
            WhisperForConditionalGeneration(whisper.audio_model.config),
            WhisperFeatureExtractor(),
        ),
        "klue/roberta-large": (roberta.text_model, tokenizer),
        "monologg/koelectra-base-v3-discriminator": (ElectraForPreTraining(electra.text_model.config), tokenizer),
        "facebook/wav2vec2-large-960h-lv60-self": (roberta.audio_model, Wav2Vec2FeatureExtractor()),
        "klue/roberta-base": (roberta.text_model, tokenizer),
        "xlm-roberta-base": (xlm_roberta.text_model, tokenizer),
    }.items():
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        for part in parts:
            part.save_pretrained(repository / "snapshots" / ("0" * 40))
    return cache


@pytest.mark.slow
def test_the_paper_s_plan_gives_every_row_and_column_of_its_tables(hub_cache, prepared_dir, tmp_path):
    plan = json.loads(PAPER_PLAN.read_text())
    # One fold of five, for time.
    plan["protocols"]["session"]["folds"] = [5]
    (tmp_path / "paper.json").write_text(json.dumps(plan))
    arguments = ["--dataset_name", str(prepared_dir), "--max_steps", "1", "--max_audio_seconds", "1", "--fp16", "false"]
    # The head of rsa_cfn has 300 million parameters whatever the backbones, unless it is held to a rank.
    arguments += ["--cross_fusion_rank", "2", "--num_processes", "2"]
    code, _, errors = finish(start(tmp_path, "paper.json", *arguments, HF_HUB_CACHE=str(hub_cache)))
    assert code == 0, errors
    results = json.loads((tmp_path / "results" / "paper" / "results.json").read_text())
    fusions, backbones = results["tables"]
    published = {row["published"] for table in (fusions, backbones) for row in table["rows"]}
    assert published == set(WEIGHTED_F1.values()) and len(fusions["rows"]) == 11 and len(backbones["rows"]) == 2
    fusion_of = {system["name"]: system["fusion"] for system in results["systems"]}
    assert {fusion_of[row["system"]] for row in fusions["rows"]} == PAPERS
    scored = {(scores["system"], scores["protocol"]) for scores in results["scores"]}
    for row in fusions["rows"] + backbones["rows"]:
        assert {(row["system"], "paper"), (row["system"], "session")} <= scored
    report = (tmp_path / "results" / "paper" / "results.md").read_text(encoding="utf-8")
    for value in published:
        assert f"{value:.5f}".removeprefix("0") in report
    assert all(name in report for name in (*PAPERS, *EMOTIONS, "xlm-roberta-base", "label transform"))


@pytest.mark.slow
def test_the_plan_of_larger_encoders_runs_to_its_report(hub_cache, prepared_dir, tmp_path):
    """One fold and one seed of fifteen, for one epoch, on a small corpus in the folder that the plan names."""
    plan = json.loads((PAPER_PLAN.parent / "kemdy20_2026.json").read_text())
    plan["protocols"]["session"] = {"folds": [1], "seeds": [1]}
    (tmp_path / "kemdy20_2026.json").write_text(json.dumps(plan))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kemdy20").symlink_to(prepared_dir)
    arguments = "--num_train_epochs 1 --per_device_train_batch_size 8 --max_audio_seconds 1 --num_processes 2".split()
    arguments += ["--cross_fusion_rank", "2"]  # as above
    variables = {"HF_HUB_CACHE": str(hub_cache), "HF_DATASETS_CACHE": str(tmp_path / "features")}
    code, output, errors = finish(start(tmp_path, "kemdy20_2026.json", *arguments, **variables))
    assert code == 0, output + errors
    results = json.loads((tmp_path / "results" / "kemdy20_2026" / "results.json").read_text())
    (table,) = results["tables"]
    estimates = {scores["system"]: scores["estimates"] for scores in results["scores"]}
    assert len(table["rows"]) == 18 and len(estimates) == 18 + 3 + 2 + 1  # with each modality alone, and majority
    for row in table["rows"]:
        assert {"macro_f1", "weighted_f1", "ccc_valence", "ccc_arousal"} <= {*estimates[row["system"]]}
