"""The whole run: real training on a small demo corpus, through main and through the command line."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from datasets import ClassLabel, load_from_disk
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from configuration_rsa_cfn import EMOTIONS, FUSIONS
from corpora.conversion import REPORT_FILE
from corpora.demo import write_corpus
from foundation.errors import InputError
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from prepare_dataset import prepare
from processing_rsa_cfn import RsaCfnProcessor
from run_classification import main, make_trainer
from tests.slow import mostly_slow
from training.data import load_splits
from training.parsing import parse_arguments


SCRIPT = Path(__file__).parents[1] / "run_classification.py"


def run(dataset, output_dir, *arguments):
    given = ["--dataset_name", str(dataset), "--output_dir", str(output_dir)]
    if "--model_name_or_path" not in arguments:
        given += ["--audio_model", "tiny", "--text_model", "tiny"]
    given += ["--num_train_epochs", "1", "--disable_tqdm", "true", *arguments]
    return main(*parse_arguments(given))


@pytest.fixture(scope="module")
def finished(prepared_dir, tmp_path_factory):
    """The folder and the metrics of a run of rsa_cfn, which learns valence and arousal too."""
    folder = tmp_path_factory.mktemp("models") / "rsa_cfn"
    arguments = "--fusion rsa_cfn --max_audio_seconds 1 --attributes valence arousal"
    return folder, run(prepared_dir, folder, *arguments.split())


@pytest.mark.parametrize("given, training", [((), "random"), (("--audio_crop", "head"), "head")])
def test_only_training_batches_are_cropped_at_random(given, training, prepared_dir, tmp_path):
    arguments = ["--dataset_name", str(prepared_dir), "--output_dir", str(tmp_path / "out"), *given]
    model_args, data_args, training_args = parse_arguments(
        [*arguments, "--audio_model", "tiny", "--text_model", "tiny"]
    )
    splits = load_splits(data_args, with_validation=True)
    trainer, _ = make_trainer(splits, None, model_args, data_args, training_args)
    assert trainer.get_train_dataloader().collate_fn.collator.audio_crop == training
    for loader in (trainer.get_eval_dataloader(), trainer.get_test_dataloader(splits.test)):
        assert loader.collate_fn.audio_crop is None


def test_a_run_leaves_checkpoint_scores_predictions_and_picture(finished, prepared_dir):
    folder, metrics = finished
    results = json.loads((folder / "all_results.json").read_text())
    for name in ("macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy"):
        assert results[f"eval_{name}"] == metrics[f"eval_{name}"]
        assert f"eval_majority_{name}" in results
    for emotion in EMOTIONS:
        assert {f"eval_{kind}_{emotion}" for kind in ("f1", "recall", "count", "predicted_count")} <= results.keys()
    assert results["train_loss"] > 0
    assert (folder / "confusion_matrix.png").stat().st_size > 10_000
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    held_out = load_from_disk(prepared_dir)["train"].filter(
        lambda session, label: session == 6 and label is not None, input_columns=["session", "label"]
    )
    assert [row["segment_id"] for row in rows] == held_out["segment_id"][:]
    assert [EMOTIONS.index(row["label"]) for row in rows] == held_out["label"][:]
    accuracy = np.mean([row["label"] == row["prediction"] for row in rows])
    assert accuracy == pytest.approx(results["eval_accuracy"])


def test_a_run_records_its_split_and_scores_its_validation_part(finished, prepared_dir):
    folder, metrics = finished
    dataset = load_from_disk(prepared_dir)["train"]
    record = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    assert (record["split"], record["num_folds"], record["fold"]) == ("session", 5, 5)
    assert {part: facts["groups"] for part, facts in record["parts"].items()} == {
        "train": [3, 4, 5],
        "validation": [1, 2],
        "test": [6],
    }
    assert record["dataset"]["fingerprints"] == {"train": dataset._fingerprint}
    with (folder / "splits.csv").open(encoding="utf-8") as stream:
        part_of = {row["segment_id"]: row["part"] for row in csv.DictReader(stream)}
    assert list(part_of) == dataset["segment_id"][:]
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        scored = [row["segment_id"] for row in csv.DictReader(stream)]
    assert scored == [name for name, part in part_of.items() if part == "test"]
    results = json.loads((folder / "all_results.json").read_text())
    assert results["validation_macro_f1"] == metrics["validation_macro_f1"]
    assert results["validation_rows"] == sum(part == "validation" for part in part_of.values())
    assert results["validation_rows"] == sum(results[f"validation_count_{emotion}"] for emotion in EMOTIONS)


def test_the_checkpoint_predicts_what_the_run_wrote(finished, prepared_dir):
    folder, _ = finished
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = RsaCfnProcessor.from_pretrained(folder)
    assert processor.max_audio_seconds == 1
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    row = next(r for r in load_from_disk(prepared_dir)["train"] if r["segment_id"] == first["segment_id"])
    with torch.no_grad():
        batch = processor(audio=row["audio"], text=row["text"], return_tensors="pt")
        probabilities = model(**batch).logits.softmax(dim=-1)[0]
    written = [float(first[f"probability_{emotion}"]) for emotion in EMOTIONS]
    np.testing.assert_allclose(probabilities, written, atol=1e-5)


def test_a_saved_model_scores_the_same_without_training(finished, prepared_dir, tmp_path):
    folder, metrics = finished
    again = run(prepared_dir, tmp_path / "again", "--model_name_or_path", str(folder), "--do_train", "false")
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-5)
    expected, predictions = (pandas.read_csv(place / "predictions.csv") for place in (folder, tmp_path / "again"))
    pandas.testing.assert_frame_equal(predictions, expected, rtol=0, atol=2e-6)  # one more in the last place of six


def check_attributes(folder, prepared_dir, names=("valence", "arousal")):
    """Ranges, scores, predictions and card of a run against the rows of its dataset."""
    results = json.loads((folder / "all_results.json").read_text())
    rows, dataset = pandas.read_csv(folder / "predictions.csv"), load_from_disk(prepared_dir)["train"].to_pandas()
    dataset = dataset.set_index("segment_id")
    trained = pandas.read_csv(folder / "splits.csv", index_col="segment_id").query("part == 'train'").index
    config = json.loads((folder / "config.json").read_text())
    assert config["attributes"] == list(names) and "attribute_weight" not in config
    for name, ends in zip(names, config["attribute_ranges"], strict=True):
        assert ends == pytest.approx([dataset[name][trained].min(), dataset[name][trained].max()])
        values, told = rows[f"label_{name}"], rows[f"prediction_{name}"]
        assert values.tolist() == pytest.approx(dataset[name][rows.segment_id].tolist(), abs=1e-5)
        concordance = 2 * np.cov(values, told, ddof=0)[0, 1]
        concordance /= values.var(ddof=0) + told.var(ddof=0) + (values.mean() - told.mean()) ** 2
        assert results[f"eval_ccc_{name}"] == pytest.approx(concordance, abs=1e-4)
        assert f"eval_ccc_{name}_low" not in results  # of fewer than four sessions
        assert f"| CCC of {name} | {results[f'eval_ccc_{name}']:.3f} | " in (folder / "README.md").read_text()


def test_attributes_are_learnt_scored_and_kept(finished, prepared_dir):
    check_attributes(finished[0], prepared_dir)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["--cache_features", "--lora_rank 2"])
def test_attributes_go_with_every_way_to_train(given, prepared_dir, tmp_path):
    folder = tmp_path / "out"
    metrics = run(prepared_dir, folder, *"--fusion hybrid_fusion --attributes valence arousal".split(), *given.split())
    check_attributes(folder, prepared_dir)
    again = run(prepared_dir, tmp_path / "again", "--model_name_or_path", str(folder), "--do_train", "false")
    assert again["eval_ccc_valence"] == pytest.approx(metrics["eval_ccc_valence"], abs=1e-4)
    (tmp_path / "words.csv").write_text('text\n정말\n""\n', encoding="utf-8")
    predict = ["--do_predict", "--model_name_or_path", str(folder), "--predict_file", str(tmp_path / "words.csv")]
    main(*parse_arguments([*predict, "--output_dir", str(tmp_path / "predicted"), "--disable_tqdm", "true"]))
    predicted = pandas.read_csv(tmp_path / "predicted" / "predictions.csv")
    assert list(predicted)[-3:] == ["prediction_valence", "prediction_arousal", "error"]
    assert predicted.prediction_valence.notna().tolist() == predicted.error.isna().tolist()


@pytest.mark.slow
def test_what_the_words_of_the_demo_say_of_valence_is_learnt(tmp_path):
    write_corpus(tmp_path / "corpus")
    prepare("kemdy20", tmp_path / "corpus", tmp_path / "dataset")
    for loss in ("ccc", "mse"):
        arguments = f"--fusion text --attributes valence --attribute_loss {loss} --num_train_epochs 6".split()
        assert run(tmp_path / "dataset", tmp_path / loss, *arguments)["eval_ccc_valence_low"] > 0.2


def test_all_rows_of_another_dataset_are_scored_by_the_names_of_their_classes(finished, prepared_dir, tmp_path):
    """Classes in another order, and not all of them; a row without a label is left out."""
    folder, _ = finished
    dataset = load_from_disk(prepared_dir)["train"]
    names = ["sad", "neutral", "happy"]
    rows = [row for row in dataset if row["label"] is None or EMOTIONS[row["label"]] in names]
    kept = dataset.select_columns(["audio", "text", "segment_id"]).filter(
        lambda name: name in {row["segment_id"] for row in rows}, input_columns="segment_id"
    )
    labels = [None if row["label"] is None else names.index(EMOTIONS[row["label"]]) for row in rows]
    kept.add_column("label", labels, feature=ClassLabel(names=names)).save_to_disk(tmp_path / "others")
    options = ["--model_name_or_path", str(folder), "--do_eval", "--split", "all"]
    metrics = run(tmp_path / "others", tmp_path / "scored", *options)
    assert metrics["eval_rows"] == sum(label is not None for label in labels)
    assert metrics["eval_count_sad"] == labels.count(0) and metrics["eval_count_fear"] == 0
    with (tmp_path / "scored" / "predictions.csv").open(encoding="utf-8") as stream:
        scored = {row["segment_id"]: row for row in csv.DictReader(stream)}
    assert {name: row["label"] for name, row in scored.items()} == {
        row["segment_id"]: EMOTIONS[row["label"]] for row in rows if row["label"] is not None
    }
    # Those that the training run scored, it scored alike.
    with (folder / "predictions.csv").open(encoding="utf-8") as stream:
        before = [row for row in csv.DictReader(stream) if row["segment_id"] in scored]
    assert before
    for row in before:
        assert float(scored[row["segment_id"]]["probability_happy"]) == pytest.approx(
            float(row["probability_happy"]), abs=1e-5
        )
    assert not list((tmp_path / "scored").glob("*.safetensors"))


@pytest.mark.parametrize("fusion", mostly_slow(FUSIONS, "rsa_cfn", "mlp_mixer", "audio"))
def test_every_fusion_trains_and_comes_back(fusion, prepared_dir, tmp_path):
    metrics = run(prepared_dir, tmp_path / "out", "--fusion", fusion, "--max_steps", "1")
    again = run(prepared_dir, tmp_path / "again", "--model_name_or_path", str(tmp_path / "out"), "--do_train", "false")
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-5)


def test_scores_with_a_modality_missing_stand_beside_those_with_both(prepared_dir, tmp_path):
    arguments = "--fusion early_fusion --modality_dropout 0.5 --eval_modalities both audio text".split()
    run(prepared_dir, tmp_path / "out", *arguments)
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    losses = {results["eval_loss"], results["eval_audio_loss"], results["eval_text_loss"]}
    assert len(losses) == 3
    for name in ("predictions", "predictions_audio", "predictions_text"):
        assert (tmp_path / "out" / f"{name}.csv").read_text().count("\n") == results["eval_rows"] + 1


@pytest.mark.parametrize("cached", [(), ("--cache_features",)])
def test_epochs_compared_on_the_reported_rows_are_marked(cached, prepared_dir, tmp_path):
    arguments = "--fusion text --num_train_epochs 3 --learning_rate 0.02 --compare_epochs_on test".split()
    arguments += "--eval_strategy epoch --save_strategy epoch --load_best_model_at_end".split()
    metrics = run(prepared_dir, tmp_path / "out", *arguments, "--split", "paper", *cached)
    assert not [name for name in metrics if name.startswith("validation")]
    # Nothing is kept from training to compare epochs on: the paper's 80 % train.
    record = json.loads((tmp_path / "out" / "split.json").read_text())
    assert set(record["parts"]) == {"train", "test"}
    assert "epochs are compared on the reported rows" in " ".join(record["warnings"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Epochs are compared on the reported rows" in card and "the best on the reported rows" in card
    history = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    by_epoch = [entry["eval_macro_f1"] for entry in history if "eval_macro_f1" in entry]
    assert len(by_epoch) == 3 and metrics["eval_macro_f1"] == max(by_epoch)


def test_soft_targets_weights_and_smoothing_train(prepared_dir, tmp_path):
    arguments = "--fusion text --label_target soft --class_weights balanced --label_smoothing 0.1".split()
    metrics = run(prepared_dir, tmp_path / "out", *arguments, "--gradient_accumulation_steps", "2")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label_smoothing"] == 0.1 and len(config["class_weights"]) == 7
    assert np.isfinite(metrics["eval_loss"])
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    for prefix in ("eval", "validation"):
        assert results[f"{prefix}_kl_to_raters"] == metrics[f"{prefix}_kl_to_raters"] > 0
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    # A mean over rows, whatever the accumulation: near log 7 at the start.
    assert 1 < state["log_history"][0]["loss"] < 3


@pytest.mark.slow
def test_activation_checkpointing_changes_nothing(prepared_dir, tmp_path):
    arguments = ["--fusion", "early_fusion", "--max_steps", "2"]
    plain = run(prepared_dir, tmp_path / "plain", *arguments)
    checkpointed = run(prepared_dir, tmp_path / "checkpointed", *arguments, "--activation_checkpointing")
    assert checkpointed["eval_loss"] == pytest.approx(plain["eval_loss"], abs=1e-5)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(prepared_dir, tmp_path):
    arguments = ["--fusion", "early_fusion", "--save_strategy", "epoch", "--num_train_epochs", "2"]
    whole = run(prepared_dir, tmp_path / "whole", *arguments)
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (tmp_path / "resumed").mkdir()
    (checkpoints[0]).rename(tmp_path / "resumed" / checkpoints[0].name)
    resumed = run(prepared_dir, tmp_path / "resumed", *arguments, "--resume_from_checkpoint", "true")
    assert resumed["eval_loss"] == pytest.approx(whole["eval_loss"], abs=1e-5)


def test_epochs_are_compared_on_a_part_that_is_not_reported(prepared_dir, tmp_path):
    arguments = "--fusion text --eval_strategy epoch --save_strategy epoch --load_best_model_at_end".split()
    metrics = run(prepared_dir, tmp_path / "best", *arguments, "--num_train_epochs", "2")
    state = json.loads((tmp_path / "best" / "trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if "eval_macro_f1" in entry]
    assert len(evaluations) == 2
    dataset = load_from_disk(prepared_dir)["train"]
    held_out = sum(s == 6 and lab is not None for s, lab in zip(dataset["session"], dataset["label"]))
    assert metrics["eval_rows"] == held_out
    counts = [sum(entry[f"eval_count_{emotion}"] for emotion in EMOTIONS) for entry in evaluations]
    validating = sum(s in (1, 2) and lab is not None for s, lab in zip(dataset["session"], dataset["label"]))
    assert counts == [validating] * 2
    assert state["best_metric"] == max(entry["eval_macro_f1"] for entry in evaluations)


@pytest.fixture
def command(processes, tmp_path):
    """A function that runs the script as a user does, elsewhere, and gives the finished process."""

    def command(*arguments, **options):
        return processes.run(SCRIPT, *arguments, cwd=tmp_path, **options)

    return command


def test_wrong_input_is_one_line_and_status_2(command):
    finished = command("--fusion", "sum")
    assert finished.returncode == 2
    assert finished.stderr.startswith("run_classification.py: --fusion sum is unknown; give one of audio, text,")
    assert finished.stderr.count("\n") == 1


def test_a_run_says_when_it_took_its_first_step(command, prepared_dir):
    arguments = "--fusion text --audio_model tiny --text_model tiny --max_steps 3 --do_eval false --do_predict false"
    finished = command("--dataset_name", str(prepared_dir), *arguments.split(), "--output_dir", "out")
    assert finished.returncode == 0, finished.stderr
    lines = re.findall(r"First training step after ([\d.]+) s, ([\d.]+) s of it for the model\.\n", finished.stderr)
    ((total, model),) = lines
    assert 0 <= float(model) < float(total)  # a tiny model takes less than the tenth of a second that is shown
    assert re.fullmatch(r"Done in \d+ s: everything is in out\.", finished.stdout.splitlines()[-1])


def test_two_processes_score_every_row_once(command, prepared_dir, tmp_path):
    arguments = "--fusion text --audio_model tiny --text_model tiny --output_dir out --max_steps 2".split()
    finished = command("--dataset_name", str(prepared_dir), *arguments, num_processes=2)
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as stream:
        ids = [row["segment_id"] for row in csv.DictReader(stream)]
    dataset = load_from_disk(prepared_dir)["train"]
    rows = zip(dataset["segment_id"], dataset["session"], dataset["label"])
    assert ids == [name for name, session, label in rows if session == 6 and label is not None]
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert sum(results[f"eval_count_{emotion}"] for emotion in EMOTIONS) == len(ids) == results["eval_rows"]


@pytest.mark.parametrize("given", mostly_slow(["", "--cache_features"], ""))
def test_words_alone_need_no_recordings_and_a_voice_no_words(given, prepared_dir, tmp_path):
    dataset = load_from_disk(prepared_dir)
    for fusion, column in (("text", "audio"), ("audio", "text")):
        dataset.remove_columns(column).save_to_disk(tmp_path / fusion)
        metrics = run(tmp_path / fusion, tmp_path / f"{fusion}_model", "--fusion", fusion, *given.split())
        with (tmp_path / f"{fusion}_model" / "predictions.csv").open(encoding="utf-8") as stream:
            assert len(list(csv.DictReader(stream))) == metrics["eval_rows"] > 0


def test_recordings_that_have_all_turned_bad_are_one_line(finished, prepared_dir, tmp_path):
    dataset = load_from_disk(prepared_dir)
    dataset.map(lambda row: {"audio": {"bytes": b"RIFF", "path": "a.wav"}}).save_to_disk(tmp_path / "bad")
    shutil.copy(prepared_dir / REPORT_FILE, tmp_path / "bad")
    with pytest.raises(InputError, match="not one row that would be scored can be read"):
        run(tmp_path / "bad", tmp_path / "out", "--model_name_or_path", str(finished[0]), "--do_eval")


def test_what_is_not_finite_is_no_answer(finished, prepared_dir, tmp_path, caplog, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "saved")
    given = ["--model_name_or_path", str(folder), "--do_eval"]
    forward, rows = RsaCfnForSequenceClassification.forward, []

    def forward_of_one_infinite_row(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        if "labels" in kwargs and not self.training and len(output.logits) > 1:
            output.logits[1] = torch.inf
            rows.append(1)
        return output

    with monkeypatch.context() as patch:
        patch.setattr(RsaCfnForSequenceClassification, "forward", forward_of_one_infinite_row)
        metrics = run(prepared_dir, tmp_path / "out", *given)
    assert metrics["eval_rows"] == finished[1]["eval_rows"] - len(rows) and np.isfinite(metrics["eval_loss"])
    assert f"{len(rows)} of {finished[1]['eval_rows']} rows of test have outputs that aren't finite" in caplog.text
    weights = load_file(folder / "model.safetensors")
    next(weight for name, weight in weights.items() if "fusion" in name and weight.dim() == 2)[0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="outputs are NaN or infinite for all"):
        run(prepared_dir, tmp_path / "none", *given)


@pytest.mark.slow
def test_a_recording_that_turned_bad_is_the_only_one_that_is_not_scored(finished, prepared_dir, tmp_path, caplog):
    folder, metrics = finished
    dataset = load_from_disk(prepared_dir)["train"]
    scored = [row["segment_id"] for row in dataset if row["session"] == 6 and row["label"] is not None]
    recordings = dataset["audio"][:]
    broken = recordings[dataset["segment_id"][:].index(scored[3])]
    broken["bytes"] = broken["bytes"][:40]
    dataset.remove_columns("audio").add_column("audio", recordings).save_to_disk(tmp_path / "bad")
    shutil.copy(prepared_dir / REPORT_FILE, tmp_path / "bad")
    saved = ["--model_name_or_path", str(folder), "--do_train", "false"]
    again = run(tmp_path / "bad", tmp_path / "again", *saved)
    assert again["eval_rows"] == metrics["eval_rows"] - 1
    assert sum(again[f"eval_count_{emotion}"] for emotion in EMOTIONS) == again["eval_rows"]
    assert f"1 of {len(scored)} rows of test can't be read and are not scored: {scored[3]}" in caplog.text
    predictions = []
    for run_folder in (folder, tmp_path / "again"):
        with (run_folder / "predictions.csv").open(encoding="utf-8") as stream:
            predictions.append({row.pop("segment_id"): row for row in csv.DictReader(stream)})
    assert list(predictions[1]) == [name for name in predictions[0] if name != scored[3]]
    for name, row in predictions[1].items():
        for emotion in EMOTIONS:
            expected = float(predictions[0][name][f"probability_{emotion}"])
            assert float(row[f"probability_{emotion}"]) == pytest.approx(expected, abs=1e-5)
