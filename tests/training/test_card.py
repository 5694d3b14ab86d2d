"""The card of a model: every section against the run's own files, valid metadata, and no folders of a machine."""

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset, load_from_disk
from huggingface_hub import ModelCard, ModelCardData
from matplotlib import image
from safetensors.numpy import load_file

from configuration_rsa_cfn import EMOTIONS
from foundation import versions
from metrics.intervals import bootstrap_intervals
from run_classification import main
from tests.markdown import table
from training.card import TrainedModel, model_card
from training.data import Splits
from training.parsing import parse_arguments
from training.scoring import ScoredPart


REPOSITORY = Path(__file__).parents[2]
TITLES = {
    "Macro F1": "macro_f1",
    "Unweighted average recall": "unweighted_average_recall",
    "Weighted F1": "weighted_f1",
    "Accuracy": "accuracy",
}


def section(card, heading):
    (text,) = re.findall(rf"^## {heading}\n\n(.*?)(?=^## |\Z)", card.text, flags=re.DOTALL | re.MULTILINE)
    return text


@pytest.fixture(scope="module")
def run(prepared_dir, tmp_path_factory):
    """A run of two epochs: its folder, and its card."""
    folder = tmp_path_factory.mktemp("models") / "rsa"
    arguments = ["--dataset_name", str(prepared_dir), "--output_dir", str(folder), "--disable_tqdm", "true"]
    arguments += "--fusion rsa --audio_model tiny --text_model tiny --num_train_epochs 2 --seed 5".split()
    arguments += "--eval_strategy epoch --eval_modalities both text".split()
    main(*parse_arguments(arguments), command=arguments)
    return folder, ModelCard.load(folder / "README.md")


@pytest.fixture(scope="module")
def results(run):
    return json.loads((run[0] / "all_results.json").read_text())


def test_metadata_comes_back_as_written(run, results):
    _, card = run
    metadata = card.data.to_dict()
    assert ModelCardData(**metadata).to_dict() == metadata
    assert metadata["pipeline_tag"] == "audio-classification" and metadata["library_name"] == "transformers"
    assert metadata["language"] == ["ko"]
    assert "datasets" not in metadata  # a folder is no dataset of the Hub
    assert metadata["metrics"] == ["f1", "recall", "accuracy"]
    # Neither the corpus nor the backbones are ours to license.
    assert "license" not in metadata
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert scores == {title: round(results[f"eval_{name}"], 4) for title, name in TITLES.items()}
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_what_it_is(run):
    folder, card = run
    text = section(card, "Model")
    weights = load_file(folder / "model.safetensors")
    assert f"Fusion `rsa`, {sum(weight.size for weight in weights.values()):,} parameters" in text
    rows = table(text, "", "backbone")
    assert [row[:3] for row in rows] == [["audio", "`tiny`", "wav2vec2"], ["text", "`tiny`", "roberta"]]
    assert f"one of {', '.join(EMOTIONS)}." in card.text


def test_data_and_split(run):
    folder, card = run
    text = section(card, "Data")
    record = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    assert f"Split `session`: {record['description']}." in text
    rows = {row[0]: row[1:] for row in table(text, "class")}
    for position, part in enumerate(("train", "validation", "test")):
        counts = record["parts"][part]["classes"]
        assert {name: int(rows[name][position].split()[0]) for name in EMOTIONS} == counts
        assert int(rows["rows"][position]) == record["parts"][part]["rows"]
    assert "may not be redistributed" in text
    for warning in record["warnings"]:
        assert warning[1:] in text


def test_results_are_the_run_s(run, results):
    folder, card = run
    text = section(card, "Results")
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert text.startswith(f"On {len(rows)} held-out rows, with audio and text.")
    scores = {row[0]: row[1:] for row in table(text, "", "this model")}
    for title, name in TITLES.items():
        expected = [f"{results[f'eval_{name}']:.3f}", f"{results[f'eval_majority_{name}']:.3f}"]
        assert scores[title] == expected
    for name, *cells in table(text, "class", "F1"):
        values = [results[f"eval_{kind}_{name}"] for kind in ("f1", "recall", "count", "predicted_count")]
        assert cells == [f"{values[0]:.3f}", f"{values[1]:.3f}", str(values[2]), str(values[3])]
    # The test fold is one session of two speakers.
    assert "There are no intervals: 2 speakers are too few to draw from, which takes 4." in text
    alone = {row[0]: row[1] for row in table(text, "given")}
    assert alone["text alone"] == f"{results['eval_text_macro_f1']:.3f}"
    assert f"{results['validation_rows']} rows that settings may be chosen by, macro F1 is" in text
    assert "![Confusion matrix: true classes in rows, predicted ones in columns](confusion_matrix.png)" in text
    assert (folder / "confusion_matrix.png").exists()


def test_training_log_and_curve(run):
    folder, card = run
    text = section(card, "Training")
    state = json.loads((folder / "trainer_state.json").read_text())
    assert text.startswith(f"{state['global_step']} optimizer steps in 2 epochs, 16 rows a step")
    assert "in float32, on CPU. Seed 5." in text
    losses = [f"{entry['loss']:.4g}" for entry in state["log_history"] if "loss" in entry]
    scores = [f"{entry['eval_macro_f1']:.4g}" for entry in state["log_history"] if "eval_macro_f1" in entry]
    rows = table(text, "step", "epoch", "training loss")
    assert [row[2] for row in rows] == losses and [row[4] for row in rows] == scores
    assert "](training_curve.png)" in text
    picture = image.imread(folder / "training_curve.png")
    assert min(picture.shape[:2]) > 300 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20
    for package in ("Python 3", "torch 2", "transformers 5", "datasets "):
        assert package in text


def test_the_recipe_is_the_run(run, prepared_dir, tmp_path, monkeypatch):
    folder, card = run
    text = section(card, "The same again")
    assert "accelerate launch run_classification.py --dataset_name dataset --output_dir rsa" in text
    assert "--fusion rsa --audio_model tiny --text_model tiny --num_train_epochs 2 --seed 5" in text
    (recipe,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "recipe.json").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    model_args, data_args, training_args = parse_arguments(["recipe.json"])
    assert (model_args.fusion, model_args.audio_model, training_args.seed) == ("rsa", "tiny", 5)
    assert data_args.eval_modalities == ["both", "text"]
    # What the demo's defaults and nobody's command say.
    assert (training_args.learning_rate, training_args.weight_decay) == (1e-3, 0.01)
    assert training_args.eval_strategy == "epoch"
    for kept in (str(folder.parent), str(prepared_dir.parent)):
        assert kept not in card.content


def test_limits(run, prepared_dir):
    folder, card = run
    text = section(card, "Limits")
    dataset = load_from_disk(prepared_dir)["train"]
    speakers = {name for name, session in zip(dataset["speaker"], dataset["session"]) if session in (3, 4, 5)}
    assert f"trained on {len(speakers)} speakers in 3 sessions" in text
    counts = json.loads((folder / "split.json").read_text())["parts"]["train"]["classes"]
    frequent = max(counts, key=counts.get)
    assert f"{counts[frequent] / sum(counts.values()):.1%} of the training rows are {frequent}" in text
    for limit in ("Korean only", "spontaneous dialogue", "clinical use", "surveillance"):
        assert limit in text
    citation = section(card, "Citation")
    assert "Residual Self-Attention Cross Fusion Network" in citation and "K. J. Noh" in citation


def test_how_to_load_it(run):
    _, card = run
    text = section(card, "Load it")
    pipe, example = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert 'model="rsa", trust_remote_code=True)\nprint(recognizer("speech.wav"))' in pipe
    assert example.count("\n") == 7 and 'from_pretrained("rsa", trust_remote_code=True)' in example
    # All that the model's modules import, and the oldest transformers that they take.
    sources = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("*_rsa_cfn.py"))
    imported = set(re.findall(r"(?m)^(?:from|import) (\w+)", sources)) - sys.stdlib_module_names
    oldest = re.search(r"needs transformers ([\d.]+)", sources).group(1)
    assert f'pip install torch "transformers>={oldest}" soundfile soxr\n' in text
    brought = {"numpy", "huggingface_hub"} | {path.stem for path in REPOSITORY.glob("*_rsa_cfn.py")}
    assert imported - brought == {"torch", "transformers", "soundfile", "soxr"}


def test_the_examples_run(run, tmp_path, monkeypatch, capsys):
    folder, card = run
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    (tmp_path / "rsa").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"```python\n(.*?)```", section(card, "Load it"), flags=re.DOTALL):
        exec(example, {})
    *answers, label = capsys.readouterr().out.splitlines()
    assert len(answers) == 2 and all("'score'" in answer for answer in answers) and label in EMOTIONS


def test_the_repository_is_linked_where_it_was_cloned_from(trained, monkeypatch):
    def again(remote):
        monkeypatch.setattr(versions, "_git", lambda *arguments: remote if "config" in arguments else "0a1b2c")
        return section(model_card(trained, []), "The same again")

    for remote in (
        "https://me:secret@git.example.org/me/code.git",
        "git@git.example.org:me/code",
        "ssh://git@git.example.org:22/me/code",
    ):
        assert again(remote).startswith(
            "In the [RSA-CFN repository](https://git.example.org/me/code), at commit `0a1b2c`:"
        )
    for remote in ("", "/home/me/code", "../code.git", "file:///home/me.too/code"):
        assert again(remote).startswith("In the RSA-CFN repository, at commit `0a1b2c`:")


@pytest.fixture
def trained(make_model, processor, tmp_path):
    """A model of two classes that wasn't trained in the run, of a dataset that nothing is known of."""
    arguments = "--fusion text --audio_model me/audio --text_model klue/roberta-base --dataset_name me/speech".split()
    model_args, _, training_args = parse_arguments([*arguments, "--output_dir", str(tmp_path / "out")])
    names = ["no|yes", "yes"]
    table = Dataset.from_dict({"text": ["a", "b"]})
    classes = {"no|yes": 0, "yes": 2}
    record = {
        "dataset": {"name": "me/speech"},
        "split": "predefined",
        "description": "the dataset's own splits, test is scored",
        "parts": {part: {"rows": 2, "classes": classes} for part in ("train", "test")},
        "overlaps": [{"parts": ["train", "test"], "kind": "transcripts", "count": 1, "rows_of_test": 2}],
        "warnings": ["no row of train is no|yes"],
    }
    splits = Splits(None, None, None, {"train": table, "test": table}, names, "", record, [], None)
    return TrainedModel(
        model=make_model(fusion="text", id2label=dict(enumerate(names))),
        processor=processor,
        splits=splits,
        scores=[],
        validation={},
        model_args=model_args,
        training_args=training_args,
        recipe={},
    )


def test_only_what_is_known(trained):
    card = model_card(trained, [])
    metadata = card.data.to_dict()
    assert metadata["datasets"] == ["me/speech"] and "language" not in metadata and "model-index" not in metadata
    assert metadata["base_model"] == ["klue/roberta-base"]
    ((modality, name, _, licence, source),) = table(section(card, "Model"), "", "backbone")
    assert (modality, licence) == ("text", "cc-by-sa-4.0") and "klue/roberta-base" in name
    assert "the Hub was not reached" in source
    assert section(card, "Results").startswith("This run was not scored.")
    assert "Not trained in this run" in section(card, "Training")
    assert "train and test share 1 transcript, in 2 rows of test." in section(card, "Data")
    assert r"- No row of train is no\|yes." in section(card, "Data")
    assert [row[0] for row in table(section(card, "Data"), "class")] == ["no|yes", "yes", "rows"]
    assert 'processor(text="정말 고마워요", return_tensors' in section(card, "Load it")
    assert r"It has never seen no\|yes." in section(card, "Limits")
    assert "Korean only" not in card.text


def test_a_pushed_model_is_loaded_by_its_name_and_revision(trained):
    training_args = trained.training_args
    training_args.push_to_hub, training_args.hub_model_id = True, "me/emotions"
    card = model_card(replace(trained, training_args=training_args), [], "0a1b2c")
    assert 'from_pretrained("me/emotions", revision="0a1b2c", trust_remote_code=True)' in section(card, "Load it")
    assert card.text.lstrip().startswith("# emotions\n")


def test_the_demo_says_that_it_means_nothing(trained):
    trained.corpus = "demo"
    assert "means nothing about emotion" in model_card(trained, []).text.split("## ")[0]


def test_a_model_that_was_only_scored_says_nothing_of_training_rows(trained):
    """As `--split all` scores it, which has no training part."""
    splits = trained.splits
    record = {**splits.record, "parts": {"test": splits.record["parts"]["test"]}, "overlaps": []}
    splits = replace(splits, tables={"test": splits.tables["test"]}, record=record)
    scored = replace(trained, splits=splits)
    scored.corpus = "demo"
    card = model_card(scored, [])
    assert "this run, which didn't train the model, doesn't know" in section(card, "Limits")
    assert table(section(card, "Data"), "class") == [["no|yes", "0 (0.0%)"], ["yes", "2 (100.0%)"], ["rows", "2"]]
    assert "**Scored on synthetic sounds" in card.text and "Trained on" not in card.text


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"session": [1, 2, 3, 4]},
            "resamples of the 4 held-out sessions, drawn whole, since utterances of one session",
        ),
        ({"session": [1, 1, 2, 2]}, "There are no intervals: 2 sessions are too few to draw from, which takes 4."),
        (
            {"speaker": ["a", "a", "a", "a"]},
            "There are no intervals: 1 speaker is too few to draw from, which takes 4.",
        ),
        ({}, "If several are of one speaker, the true ones are wider."),
    ],
)
def test_few_groups_and_single_rows_are_said(trained, columns, told):
    rows = Dataset.from_dict({**columns, "label": [0, 1, 1, 1]})
    labels, logits = np.array([0, 1, 1, 1]), np.array([[0.0, 1.0]] * 3 + [[1.0, 0.0]])
    metrics = {f"eval_{kind}{name}": 0.5 for kind in ("", "majority_") for name in TITLES.values()} | {"eval_rows": 4}
    for label in trained.splits.label_names:
        metrics |= {f"eval_{kind}_{label}": 0 for kind in ("f1", "recall", "count", "predicted_count")}
    text = section(
        model_card(replace(trained, scores=[ScoredPart(rows, logits, labels, metrics, "eval")]), []), "Results"
    )
    intervals = bootstrap_intervals(labels, logits.argmax(axis=1), trained.splits.label_names, *columns.values())
    assert told in text and bool(intervals) == ("There are no intervals" not in text) == ("95 % interval" in text)
    assert ("With so few sessions the true intervals are wider." in text) == ("drawn whole" in told)

    def shown(name):
        low, high = intervals[name]
        return f"{low:.3f} to {high:.3f}" if low < high else ""

    for title, *cells in table(text, "", "this model"):
        assert cells == ["0.500", *([shown(TITLES[title])] if intervals else []), "0.500"]
    for name, _, *cells in table(text, "class", "F1"):
        assert cells == [*([shown("f1_" + name.replace("\\", ""))] if intervals else []), "0.000", "0", "0"]


def test_names_of_the_data_do_nothing_in_a_card(trained):
    for name in ("`code`", "<b>", "$x$", "[a](b)", "\x1b[31m", "a\n---\nb: c"):
        trained.splits.label_names[:] = [name, "yes"]
        for part in trained.splits.record["parts"].values():
            part["classes"] = {name: 1, "yes": 1}
        trained.splits.record["dataset"]["name"] = f"/data/{name}"
        trained.training_args.output_dir = name
        card = model_card(trained, [])
        assert card.data.to_dict() and card.content.count("\n---\n") == 1
        shown = card.content.split("## Load it")[0].split("# ", 1)[1]
        assert not re.search(r"(?<!\\)(?:\\\\)*(\$|`|\[|<|\x1b)", shown), shown
