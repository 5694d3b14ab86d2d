"""A run read back from its folder is what was scored."""

import json

import numpy as np
import pytest
from datasets import load_from_disk

from configuration_rsa_cfn import EMOTIONS
from experiments.plan import Cell
from experiments.scored_run import read_run
from run_classification import main
from training.parsing import parse_arguments


@pytest.fixture(scope="module")
def folder(prepared_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "text"
    arguments = "--fusion text --audio_model tiny --text_model tiny --num_train_epochs 2 --eval_strategy epoch".split()
    arguments += ["--dataset_name", str(prepared_dir), "--output_dir", str(folder), "--disable_tqdm", "true"]
    main(*parse_arguments([*arguments, "--fold", "2"]))
    record = {"peak_memory_bytes": 3, "parameters": 2, "fusion_parameters": 1}
    (folder / "cell.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_read_from_its_folder(folder, prepared_dir):
    run, label_names = read_run(Cell("session/text/fold2-seed42", "text", "session", 2, 42, []), folder)
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
    assert run.compared_on == "validation" and run.seconds == results["train_runtime"]
    assert len([entry for entry in run.log_history if "eval_macro_f1" in entry]) == 2
    assert (run.peak_memory_bytes, run.parameters, run.fusion_parameters) == (3, 2, 1)
