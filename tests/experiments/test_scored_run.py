"""A run read back from its folder is what was scored, or one line says why it isn't."""

import json
import re
import shutil

import numpy as np
import pandas
import pytest
from datasets import load_from_disk

from configuration_rsa_cfn import EMOTIONS
from experiments.cells import finish
from experiments.plan import Cell
from experiments.scored_run import read_run, read_runs
from foundation.files import write_csv
from metrics.concordance import estimate_concordance
from run_classification import main
from training.parsing import parse_arguments


@pytest.fixture(scope="module")
def folder(prepared_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "text"
    arguments = "--fusion text --audio_model tiny --text_model tiny --num_train_epochs 2 --eval_strategy epoch".split()
    arguments += ["--dataset_name", str(prepared_dir), "--output_dir", str(folder), "--disable_tqdm", "true"]
    arguments += ["--attributes", "valence", "arousal"]
    main(*parse_arguments([*arguments, "--fold", "2"]))
    (folder / "arguments.json").write_text(json.dumps(arguments))
    record = {"peak_memory_bytes": 3, "parameters": 2, "fusion_parameters": 1}
    (folder / "cell.json").write_text(json.dumps(record))
    return folder


CELL = Cell("session/text/fold2-seed42", "text", "session", 2, 42, [])


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / CELL.name)


def find_damage(folder):
    runs, damaged = read_runs([CELL], folder)
    assert len(runs) + len(damaged) == 1
    return damaged.get(CELL.name)


def test_a_run_is_read_from_its_folder(folder, prepared_dir):
    run, label_names = read_run(CELL, folder)
    results = json.loads((folder / "all_results.json").read_text())
    assert label_names == list(EMOTIONS)
    assert (run.system, run.protocol, run.fold, run.seed) == ("text", "session", 2, 42)
    assert (run.predictions == run.labels).mean() == pytest.approx(results["eval_accuracy"])
    assert run.probabilities.sum(axis=1) == pytest.approx(np.ones(len(run.labels)), abs=1e-5)
    dataset = load_from_disk(prepared_dir)["train"]
    session_of = dict(zip(dataset["segment_id"], dataset["session"]))
    assert run.group_column == "session" and run.groups == [str(session_of[name]) for name in run.segment_ids]
    training = json.loads((folder / "split.json").read_text())["parts"]["train"]
    assert run.train_counts.sum() == training["rows"]
    assert list(run.attributes) == ["valence", "arousal"]
    for name, pair in run.attributes.items():
        assert estimate_concordance(pair)[0] == pytest.approx(results[f"eval_ccc_{name}"], abs=1e-4)
        values = dict(zip(dataset["segment_id"], dataset[name]))
        assert pair[0] == pytest.approx([values[segment_id] for segment_id in run.segment_ids])
    assert run.compared_on == "validation" and run.seconds == results["train_runtime"]
    assert len([entry for entry in run.log_history if "eval_macro_f1" in entry]) == 2
    assert (run.peak_memory_bytes, run.parameters, run.fusion_parameters) == (3, 2, 1)


def emptied(content):
    return b""


def cut(content):
    return content[: len(content) // 2]


def cut_at_a_line(content):
    return b"".join(content.splitlines(keepends=True)[:5])


def turned(content):
    place = 4 * len(content) // 5
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def other_type(content):
    return b"[1, 2]"


DAMAGES = (emptied, cut, cut_at_a_line, turned, other_type, None)
FILES = ("predictions.csv", "split.json", "trainer_state.json", "all_results.json", "model.safetensors", "config.json")
FILES += ("arguments.json", "cell.json")


@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_named(name, copy, tmp_path):
    """A missing record is that of a cell which isn't finished."""
    finish(copy)
    assert find_damage(tmp_path) is None
    content = (copy / name).read_bytes()
    for damage in DAMAGES if name != "cell.json" else DAMAGES[:-1]:
        (copy / name).unlink()
        if damage is not None:
            (copy / name).write_bytes(damage(content))
        # One bit of the record may be in a number that says nothing about the scores.
        if (copy / name).is_file() and (copy / name).read_bytes() == content or (name, damage) == ("cell.json", turned):
            continue
        assert name in find_damage(tmp_path) and "\n" not in find_damage(tmp_path)
        (copy / name).write_bytes(content)
    assert find_damage(tmp_path) is None


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            lambda text: re.sub(r",0\.\d{6},", ",nan,", text, count=1),
            "predictions.csv has probabilities that aren't finite",
        ),
        (lambda text: text.replace("segment_id", "id"), "KeyError: 'segment_id'"),
        (lambda text: "\n".join(text.splitlines()[:-3]), "predictions.csv has 7 rows, and 10 were scored"),
        (lambda text: text.replace(",angry,", ",cross,").replace(",neutral,", ",cross,"), "cross"),
    ],
)
def test_what_an_earlier_version_left_counts_if_it_can_be_read(change, reason, copy, tmp_path):
    assert find_damage(tmp_path) is None
    file = copy / "predictions.csv"
    file.write_text(change(file.read_text()))
    assert reason in find_damage(tmp_path)


def test_labels_are_what_they_were_in_one_line_each(copy, tmp_path):
    """Also where a spreadsheet would calculate them, or a terminal act on them."""
    label = "=1+1\n\x1b[31mred"
    rows = pandas.read_csv(copy / "predictions.csv", dtype=str).replace("neutral", label)
    write_csv(copy / "predictions.csv", rows.rename(columns={"probability_neutral": f"probability_{label}"}))
    split = (copy / "split.json").read_text().replace('"neutral"', json.dumps(label))
    (copy / "split.json").write_text(split)
    run, label_names = read_run(CELL, copy)
    assert label_names == [r"=1+1\n\x1b[31mred", *EMOTIONS[1:]]
    assert (run.labels == 0).sum() == (rows.label == label).sum() > 0
