"""Cached features: the same run as without them, made once, found again, and never mistaken for others."""

import csv
import json
import signal

import datasets
import numpy as np
import pytest
import torch
from datasets import DatasetDict, load_from_disk
from safetensors.torch import load_file
from transformers import RobertaModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from corpora.demo import write_corpus
from foundation.errors import InputError
from foundation.files import holds_files
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from prepare_dataset import prepare
from run_classification import main
from training.features import hash_weights
from training.parsing import parse_arguments


FROZEN = ("--freeze_audio_encoder", "--freeze_text_encoder")
UNSCORED = ("--cache_features", "--do_eval", "false", "--do_predict", "false")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder with the features of this test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "rsa_cfn_features"


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    """A dataset of the same size with other recordings."""
    folder = tmp_path_factory.mktemp("other")
    write_corpus(folder / "corpus", num_utterances=60, num_sessions=6, seed=5)
    prepare("kemdy20", folder / "corpus", folder / "dataset")
    return folder / "dataset"


@pytest.fixture
def run(prepared_dir, tmp_path):
    """A function that trains on one second of each clip, and gives the folder of the run and its metrics."""

    def run(name, *arguments, dataset=prepared_dir):
        given = ["--dataset_name", str(dataset), "--output_dir", str(tmp_path / name), "--disable_tqdm", "true"]
        if "--model_name_or_path" not in arguments and "--audio_model" not in arguments:
            given += ["--audio_model", "tiny", "--text_model", "tiny"]
        given += ["--max_audio_seconds", "1", "--audio_crop", "head", "--num_train_epochs", "2", *arguments]
        return tmp_path / name, main(*parse_arguments(given))

    return run


@pytest.fixture
def count_calls(monkeypatch):
    """A counter of the calls of each backbone, but for those before training."""
    calls = {"audio": 0, "text": 0}
    monkeypatch.setattr("run_classification.preflight", lambda *args: None)

    def count(modality, backbone_class):
        forward = backbone_class.forward

        def counted(self, *args, **kwargs):
            calls[modality] += 1
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(backbone_class, "forward", counted)

    count("audio", Wav2Vec2Model)
    count("text", RobertaModel)
    return calls


def probabilities(path):
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name.startswith("probability_")]
    return [row["segment_id"] for row in rows], np.array([[float(row[name]) for name in names] for row in rows])


def assert_same_predictions(first, second):
    (first_ids, first_values), (second_ids, second_values) = probabilities(first), probabilities(second)
    assert first_ids == second_ids
    np.testing.assert_allclose(first_values, second_values, atol=1e-5)


@pytest.mark.parametrize(
    "fusion, arguments",
    [
        ("rsa_cfn", ()),
        pytest.param("early_fusion", ("--pooling_mode", "attentive_statistics"), marks=pytest.mark.slow),
        pytest.param("mlp_mixer", (), marks=pytest.mark.slow),
        pytest.param("cross_attention", (), marks=pytest.mark.slow),
        pytest.param("audio", ("--pooling_mode", "max"), marks=pytest.mark.slow),
        pytest.param("late_fusion", ("--augment", "mixup"), marks=pytest.mark.slow),
        pytest.param("text", ("--label_target", "soft"), marks=pytest.mark.slow),
        (
            "early_fusion",
            ("--use_weighted_layer_sum", "--modality_dropout", "0.5", "--eval_modalities", "both", "audio", "text"),
        ),
    ],
)
def test_a_cached_run_is_the_run_without_a_cache(fusion, arguments, run):
    plain, expected = run("plain", "--fusion", fusion, *FROZEN, *arguments)
    cached, metrics = run("cached", "--fusion", fusion, "--cache_features", *arguments)
    timed = ("_runtime", "_per_second")
    assert metrics.keys() == expected.keys()
    for name in expected:
        if not name.endswith(timed):
            assert metrics[name] == pytest.approx(expected[name], abs=1e-5), name
    logs = [json.loads((folder / "trainer_state.json").read_text())["log_history"] for folder in (plain, cached)]
    for ours, theirs in zip(*logs, strict=True):
        for name in ("loss", "grad_norm", "train_loss", "learning_rate"):
            assert ours.get(name) == pytest.approx(theirs.get(name), abs=1e-5), name
    for path in plain.glob("predictions*.csv"):
        assert_same_predictions(path, cached / path.name)


def test_the_checkpoint_is_complete_and_scores_raw_inputs_alike(run, count_calls):
    cached, metrics = run("cached", "--fusion", "rsa_cfn", "--cache_features")
    raw, again = run("raw", "--model_name_or_path", str(cached), "--do_train", "false")
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-5)
    assert_same_predictions(cached / "predictions.csv", raw / "predictions.csv")
    counted = dict(count_calls)
    # A saved model's backbones are those that it was trained on, so it finds their features.
    found, again = run("found", "--model_name_or_path", str(cached), "--do_train", "false", "--cache_features")
    # But for the look at a model that is loaded.
    assert count_calls == {name: calls + 1 for name, calls in counted.items()}
    assert_same_predictions(cached / "predictions.csv", found / "predictions.csv")


def test_a_recording_that_cannot_be_read_has_no_features_and_is_tried_again(run, prepared_dir, count_calls, tmp_path):
    dataset = load_from_disk(prepared_dir)["train"]
    recordings, names = dataset["audio"][:], dataset["segment_id"][:]
    scored = [
        row for row, session in enumerate(dataset["session"]) if session == 6 and dataset["label"][row] is not None
    ]
    recordings[scored[1]]["bytes"] = recordings[scored[1]]["bytes"][:-2]
    saved = DatasetDict(train=dataset.remove_columns("audio").add_column("audio", recordings))
    saved.save_to_disk(tmp_path / "damaged")
    arguments = ("--fusion", "early_fusion", "--cache_features", "--max_steps", "1")
    for number in (1, 2):
        folder, metrics = run(f"run_{number}", *arguments, dataset=tmp_path / "damaged")
        assert metrics["eval_rows"] == len(scored) - 1
        kept = [names[row] for row in scored if row != scored[1]]
        assert probabilities(folder / "predictions.csv")[0] == kept
        assert count_calls == {"audio": 4 * number, "text": 4}


@pytest.mark.slow
def test_fusions_and_folds_share_what_backbones_made(run, count_calls, cache, make_model, processor, tmp_path):
    model = make_model()
    for backbone, name in ((model.audio_model, "audio"), (model.text_model, "text")):
        backbone.save_pretrained(tmp_path / name)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "audio")
    processor.tokenizer.save_pretrained(tmp_path / "text")
    backbones = ("--audio_model", str(tmp_path / "audio"), "--text_model", str(tmp_path / "text"))
    arguments = (*backbones, "--max_text_tokens", "16", "--max_steps", "1", *UNSCORED)
    run("first", "--fusion", "early_fusion", *arguments)
    assert count_calls == {"audio": 4, "text": 4}  # 60 rows in batches of 16
    for fusion, more in (("late_fusion", ()), ("audio", ()), ("text", ()), ("rsa", ("--fold", "1", "--seed", "7"))):
        run(f"run_{fusion}", "--fusion", fusion, *arguments, *more)
    assert count_calls == {"audio": 4, "text": 4}
    assert len(list(cache.glob("*/features.arrow"))) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {
            (): {"audio": 0, "text": 0},
            ("--audio_crop", "random"): {"audio": 4, "text": 0},
            # A tiny text backbone has as many positions as the limit says, so it draws other weights.
            ("--max_text_tokens", "8"): {"audio": 0, "text": 4},
            ("--fusion", "mlp_mixer"): {"audio": 4, "text": 4},
        },
        pytest.param(
            {
                ("--max_audio_seconds", "0.5"): {"audio": 4, "text": 0},
                ("--pooling_mode", "max"): {"audio": 4, "text": 4},
                ("--seed", "7"): {"audio": 4, "text": 4},
                ("--bf16",): {"audio": 4, "text": 4},
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["quick", "slow"],
)
def test_what_changes_features_makes_new_ones(changes, run, count_calls):
    arguments = ("--fusion", "early_fusion", "--max_steps", "1", *UNSCORED)
    run("first", *arguments)
    for number, (change, made) in enumerate(changes.items()):
        before = dict(count_calls)
        run(f"changed_{number}", *arguments, *change)
        assert {modality: count_calls[modality] - before[modality] for modality in before} == made, change


def test_another_dataset_makes_new_features(run, other_dir, count_calls):
    arguments = ("--fusion", "audio", "--max_steps", "1", *UNSCORED)
    run("first", *arguments)
    run("second", *arguments, dataset=other_dir)
    assert count_calls["audio"] == 8


def test_one_changed_weight_is_another_backbone(make_model):
    augmented = {"mask_time_prob": 0.5}
    model = make_model(audio_config=augmented)
    before = hash_weights(model.audio_model)
    assert hash_weights(make_model(audio_config=augmented).audio_model) == before
    with torch.no_grad():
        # Nothing that evaluation reads, and new with each seed where a checkpoint lacks it.
        model.audio_model.masked_spec_embed += 1
        assert hash_weights(model.audio_model) == before
        model.audio_model.feature_projection.projection.weight[0, 0] += 1e-6
    assert hash_weights(model.audio_model) != before


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_is_taken_for_features(run, cache, processes, prepared_dir, tmp_path):
    arguments = ["--dataset_name", str(prepared_dir), "--output_dir", str(tmp_path / "killed"), "--cache_features"]
    arguments += "--fusion audio --audio_model tiny --text_model tiny --max_audio_seconds 1 --audio_crop head".split()
    killed_in_the_middle = f"""
import datasets, os, signal
from run_classification import main
from training import features
from training.parsing import parse_arguments

compute = features._compute
def interrupted(*args):
    for number, batch in enumerate(compute(*args)):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch
features._compute = interrupted
datasets.config.HF_DATASETS_CACHE = {str(cache.parent)!r}
main(*parse_arguments({arguments!r}))
"""
    killed = processes.run("-c", killed_in_the_middle)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(cache.glob("*.incomplete/features.arrow"))
    assert not holds_files(tmp_path / "killed")  # the same command goes again
    plain, expected = run("plain", "--fusion", "audio", *FROZEN)
    cached, metrics = run("cached", "--fusion", "audio", "--cache_features")
    assert metrics["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-5)
    assert [path.name for path in cache.glob("*/features.arrow")] == ["features.arrow"]
    assert not list(cache.glob("*.incomplete"))


@pytest.mark.slow
def test_features_first_and_fine_tuning_then(run):
    """The saved model has frozen backbones; told to, it trains them."""
    cached, _ = run("cached", "--fusion", "early_fusion", "--cache_features", "--max_steps", "1")
    saved = ["--model_name_or_path", str(cached), "--max_steps", "1", "--max_audio_seconds", "0.5"]
    tuned, _ = run("tuned", *saved, "--freeze_audio_encoder", "false", "--freeze_text_encoder", "false")
    before, after = (load_file(folder / "model.safetensors") for folder in (cached, tuned))
    for backbone in ("audio_model", "text_model"):
        names = {name for name in before if name.startswith(backbone)} - {"audio_model.masked_spec_embed"}
        still = {name for name in names if torch.equal(before[name], after[name])}
        # Nothing attends by the bias of a key; positions and tokens that don't occur have no gradient, but others do.
        assert len(names) > 20 and all(name.endswith("k_proj.bias") or "key.bias" in name for name in still), still
    config = json.loads((tuned / "config.json").read_text())
    assert not config["freeze_audio_encoder"] and not config["freeze_text_encoder"]
    assert json.loads((tuned / "processor_config.json").read_text())["max_audio_seconds"] == 0.5
    assert "clips over 0.5 s are cropped" in (tuned / "README.md").read_text()


def test_no_place_for_features_is_said_in_one_line(run, cache):
    cache.parent.write_text("a file")
    with pytest.raises(InputError, match="--cache_features can't write to .*; make room .* HF_DATASETS_CACHE") as error:
        run("out", "--fusion", "text", "--cache_features")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_half_precision_features_train(run):
    _, metrics = run("out", "--fusion", "mlp_mixer", "--cache_features", "--fp16", "--max_steps", "2")
    assert np.isfinite(metrics["eval_loss"])


def test_saved_models_whose_features_would_change_are_refused(make_model, processor, tmp_path):
    weighted = {"use_weighted_layer_sum": True}
    refused = {mode: {"pooling_mode": mode, **weighted} for mode in ("max", "attentive_statistics")}
    refused |= {"across": {"fusion": "cross_attention", **weighted}, "padded": {"mask_padding": False}}
    for name, fields in refused.items():
        make_model(**fields).save_pretrained(tmp_path / name)
        with pytest.raises(InputError, match="--cache_features (can't go with use_weighted|needs mask_padding)"):
            parse_arguments(["--model_name_or_path", str(tmp_path / name), "--cache_features"])
    assert RsaCfnForSequenceClassification.from_pretrained(tmp_path / "padded").config.mask_padding is False
