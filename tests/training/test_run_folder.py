"""The report: a line per row, a picture, and a table."""

import csv
import json

import numpy as np
import pandas
import pytest
from datasets import Dataset
from matplotlib import image
from matplotlib.figure import Figure
from transformers import TrainingArguments

from foundation.errors import InputError
from foundation.files import holds_files, owned
from metrics.scores import SCORES
from training.run_folder import (
    draw_confusion_matrix,
    format_closing,
    format_line,
    format_summary,
    owned_by_run,
    write_predictions,
    write_split,
)


NAMES = ["neutral", "happy"]
LOGITS = np.log(np.array([[0.75, 0.25], [0.2, 0.8], [0.9, 0.1]], dtype=np.float32))


@pytest.mark.parametrize("ids", [["a", "b", "c"], None])
def test_predictions_file(ids, tmp_path):
    test = Dataset.from_dict({"label": [0, 0, 1], **({"segment_id": ids} if ids else {})})
    write_predictions(tmp_path / "predictions.csv", test, LOGITS, NAMES)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["segment_id"] for row in rows] == (ids or ["0", "1", "2"])
    assert [row["label"] for row in rows] == ["neutral", "neutral", "happy"]
    assert [row["prediction"] for row in rows] == ["neutral", "happy", "neutral"]
    assert [float(row["probability_happy"]) for row in rows] == pytest.approx([0.25, 0.8, 0.1], abs=1e-5)


def test_predictions_say_whose_the_rows_are(tmp_path):
    columns = {"label": [0, 0, 1], "segment_id": ["a", "b", "c"], "session": [1, 1, 2], "speaker": ["x", None, "y"]}
    write_predictions(tmp_path / "predictions.csv", Dataset.from_dict(columns), LOGITS, NAMES)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["session"] for row in rows] == ["1", "1", "2"]
    # Not every row has a speaker.
    assert list(rows[0]) == ["segment_id", "session", "label", "prediction", "probability_neutral", "probability_happy"]


def test_predictions_of_attributes_stand_beside_their_values(tmp_path):
    attributes = {"valence": np.array([[-1.5, np.nan, 2.0], [-1.25, 0.123456789, 3.0]])}
    write_predictions(tmp_path / "predictions.csv", Dataset.from_dict({"label": [0, 0, 1]}), LOGITS, NAMES, attributes)
    rows = pandas.read_csv(tmp_path / "predictions.csv")
    assert list(rows)[-2:] == ["label_valence", "prediction_valence"]
    np.testing.assert_array_equal(rows.label_valence, [-1.5, np.nan, 2])
    np.testing.assert_array_equal(rows.prediction_valence, [-1.25, 0.123457, 3])


def test_confusion_matrix_is_a_picture_with_ink(tmp_path):
    draw_confusion_matrix(tmp_path / "matrix.png", np.array([0, 0, 1]), np.array([0, 1, 1]), NAMES)
    picture = image.imread(tmp_path / "matrix.png")
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20


@pytest.mark.parametrize(
    "names",
    [
        ["neutral", "happy", "angry", "surprise", "sad", "fear", "disgust"],
        ["긴 " * 30, "短"],
        [r"$\frac$", "\x1b[31mred", "two\nlines", "x" * 100_000],
    ],
)
def test_nothing_of_a_confusion_matrix_is_cut_off(names, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: (figures.append(figure), file.touch()))
    draw_confusion_matrix(tmp_path / "matrix.png", np.arange(len(names)), np.arange(len(names)), names)
    (figure,) = figures
    figure.draw_without_rendering()
    (axes, _) = figure.axes
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert text.get_text() and figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
    assert axes.bbox.width > figure.bbox.width / 2


def test_summary_has_the_majority_beside_the_model():
    scores = ("macro_f1", "unweighted_average_recall", "weighted_f1", "accuracy")
    metrics = {f"eval_{name}": 0.5 for name in scores} | {f"eval_majority_{name}": 0.125 for name in scores}
    for name in NAMES:
        metrics |= {f"eval_f1_{name}": 0.25, f"eval_recall_{name}": 0.75}
        metrics |= {f"eval_count_{name}": 7, f"eval_predicted_count_{name}": 3}
    lines = format_summary(metrics, NAMES).splitlines()
    assert lines[1].split() == ["macro_f1", "0.500", "0.125"]
    assert lines[-1].split() == ["happy", "0.250", "0.750", "7", "3"]
    rated = metrics | {"eval_kl_to_raters": 0.75, "eval_prior_kl_to_raters": 1.5}
    assert [line.split()[-1] for line in format_summary(rated, NAMES).splitlines()[5:7]] == ["0.750", "1.500"]
    assert format_line(rated, "eval").endswith("accuracy 0.500, kl_to_raters 0.750")
    line = "macro_f1 0.500, unweighted_average_recall 0.500, weighted_f1 0.500, accuracy 0.500"
    assert format_line(metrics, "eval") == line


@pytest.mark.parametrize(
    "seconds, took", [(0.4, "0 s"), (59.7, "1 min 0 s"), (151, "2 min 31 s"), (3600 * 25 + 62, "25 h 1 min")]
)
def test_the_last_line_tells_time_score_and_place(seconds, took):
    metrics = {"eval_macro_f1": 0.8549, "eval_rows": 190, "validation_macro_f1": 0.9, "eval_majority_macro_f1": 0.95}
    line = f"Done in {took}: macro F1 .855 on 190 rows; everything is in models/rsa_cfn."
    assert format_closing(metrics, "models/rsa_cfn", seconds) == line


def test_the_last_line_of_a_run_that_scores_others_or_none():
    metrics = {"eval_text_macro_f1": 1.0, "eval_text_rows": 3, "eval_audio_macro_f1": 0.5, "eval_audio_rows": 3}
    line = "Done in 1 s: macro F1 1.000 on 3 rows with text alone; everything is in out."
    assert format_closing(metrics, "out", 1) == line
    # What the model is for, if it was scored, and not the best.
    both = {"eval_macro_f1": 0.25, "eval_rows": 3}
    assert format_closing(metrics | both, "out", 1) == "Done in 1 s: macro F1 .250 on 3 rows; everything is in out."
    assert format_closing({"validation_macro_f1": 0.5}, "out", 1) == "Done in 1 s: everything is in out."


def test_names_that_a_terminal_would_act_on_are_shown():
    names = ["\x1b[31mred", "two\nlines"]
    metrics = {f"eval_{majority}{name}": 0.5 for name in SCORES for majority in ("", "majority_")}
    metrics |= {f"eval_{kind}_{name}": 1 for kind in ("f1", "recall", "count", "predicted_count") for name in names}
    lines = format_summary(metrics, names).split("\n")
    assert [line.split()[0] for line in lines[-2:]] == [r"\x1b[31mred", r"two\nlines"]


def test_a_folder_has_one_run_at_a_time(tmp_path):
    arguments = TrainingArguments(str(tmp_path / "run"), seed=7, use_cpu=True)
    with owned(tmp_path / "run", "--output_dir"), pytest.raises(InputError) as error, owned_by_run(arguments):
        pass
    told = f"--output_dir {tmp_path}/run is being written by another process; wait for it, or give another folder"
    assert str(error.value) == f"{told}, such as --output_dir {tmp_path}/run_seed7"
    with owned_by_run(arguments):
        assert not holds_files(tmp_path / "run")


def test_the_split_is_written_for_people_and_programs(tmp_path):
    record = {"split": "session", "parts": {"test": {"groups": ["말", 2]}}}
    write_split(tmp_path, record, [("a", "train"), ("나", ""), ("c", "test")])
    assert json.loads((tmp_path / "split.json").read_text(encoding="utf-8")) == record
    written = (tmp_path / "splits.csv").read_text(encoding="utf-8").splitlines()
    assert written == ["segment_id,part", "a,train", "나,", "c,test"]
