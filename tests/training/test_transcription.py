"""Speech recognisers: what they are told, and what they write beside the transcripts of a dataset."""

import csv
import json

import numpy as np
import pytest
import soundfile
from datasets import load_from_disk

from foundation.errors import InputError
from metrics.transcripts import error_rate
from prepare_dataset import main, prepare
from run_classification import main as train
from tests.recognizers import make_recognizers
from training.parsing import parse_arguments
from training.transcription import Transcriber


@pytest.fixture(scope="module")
def recognizers(make_config, half_stem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognizers")
    return make_recognizers(folder, make_config(audio_config=half_stem).audio_config)


def test_a_language_is_told_to_the_recogniser_that_would_guess_it(recognizers):
    for name in ("ctc", "whisper"):  # of one language each
        with pytest.raises(InputError, match="--asr_language ko is unknown to .*; give one of none: it knows one"):
            Transcriber(str(recognizers / name), "cpu", "ko")
    transcriber = Transcriber(str(recognizers / "whisper"), "cpu")
    transcriber.options, given = {"language": "ko"}, []

    def listen(inputs, **options):
        given.append(options)
        return [{"text": " two  words "} for _ in inputs]

    listen.feature_extractor = transcriber.recognizer.feature_extractor
    transcriber.recognizer = listen
    assert transcriber({"array": np.ones(8000), "sampling_rate": 16000}) == ["two words"]
    assert transcriber({"array": np.ones(16000 * 40), "sampling_rate": 16000}) == ["two words"]
    clips = [{"array": np.ones(length), "sampling_rate": 16000} for length in (8000, 16000)]
    assert transcriber(*clips) == ["two words", "two words"]
    short, long, both = given
    assert short == {"batch_size": 1, "generate_kwargs": {"max_new_tokens": 24, "language": "ko"}}
    assert long == {"batch_size": 1, "chunk_length_s": 30, "generate_kwargs": {"max_new_tokens": 440, "language": "ko"}}
    assert both == {"batch_size": 2, "generate_kwargs": {"max_new_tokens": 32, "language": "ko"}}


@pytest.fixture
def metadata(tmp_path):
    """A csv of five clips, one of which is too short for a recogniser."""
    rng, rows = np.random.default_rng(0), []
    for number, (length, text) in enumerate(
        [(8000, "정말"), (9000, ""), (100, "반가워요"), (8500, "정말 반가워"), (9500, "요")]
    ):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(length), 16000)
        rows.append((f"{number}.wav", text, ("sad", "happy")[number % 2], f"speaker{number}"))
    with open(tmp_path / "rows.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "text", "label", "speaker"), *rows])
    return tmp_path / "rows.csv"


def test_a_dataset_gets_what_was_heard_beside_what_was_said(metadata, recognizers, tmp_path, monkeypatch, capsys):
    told = ["--corpus", "csv", "--metadata", str(metadata), "--output_dir", str(tmp_path / "out"), "--num_proc", "1"]
    assert main(told) == 0
    plain = load_from_disk(tmp_path / "out")["train"]
    monkeypatch.setattr("training.transcription.BATCH_SIZE", 3)
    ctc = str(recognizers / "ctc")
    capsys.readouterr()
    assert main([*told, "--asr_model", ctc]) == 0  # made anew, though the corpus is the same
    closing = capsys.readouterr().out
    rows, transcriber = load_from_disk(tmp_path / "out")["train"], Transcriber(ctc, "cpu")
    assert rows.column_names == [*plain.column_names, "asr_text"] and rows["text"][:] == plain["text"][:]
    assert rows["audio"][:] == plain["audio"][:] and rows.features["audio"] == plain.features["audio"]
    for row in rows:
        if row["duration"] > 0.1:
            assert row["asr_text"] == transcriber(row["audio"])[0] != ""
    pairs = [(row["text"], row["asr_text"]) for row in rows if row["text"]]
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text(encoding="utf-8"))["asr_text"]
    rates = [error_rate(pairs), error_rate(pairs, of_characters=True)]
    assert [*report.values()] == [len(pairs), *rates]
    assert f"asr_text: word error rate {rates[0]:.4g}" in closing
    prepare("csv", None, tmp_path / "out", metadata_file=metadata, asr_model=ctc)
    assert "Nothing has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, message",
    [
        (["--asr_language", "ko"], "--asr_language has no use without --asr_model; give it, or leave it out"),
        (["--asr_model", "no/such"], "--asr_model no/such is no folder here and can't be reached"),
    ],
)
def test_a_recogniser_that_is_none_is_refused_before_anything_is_read(given, message, metadata, tmp_path, capsys):
    told = ["--corpus", "csv", "--metadata", str(metadata), "--output_dir", str(tmp_path / "out")]
    assert main([*told, *given]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_model_trains_on_what_was_said_and_is_scored_on_what_was_heard(demo_corpus_dir, recognizers, tmp_path):
    data, model = str(tmp_path / "data"), str(tmp_path / "model")
    prepare("kemdy20", demo_corpus_dir, data, asr_model=str(recognizers / "whisper"))
    given = f"--audio_model tiny --text_model tiny --fusion text --dataset_name {data} --use_cpu --disable_tqdm true"
    given += " --num_train_epochs 2 --per_device_train_batch_size 4"
    said = train(*parse_arguments([*given.split(), "--output_dir", model]))
    scored = f"--model_name_or_path {model} --dataset_name {data} --do_eval --use_cpu --text_column_name"
    again, heard = (
        train(*parse_arguments([*scored.split(), column, "--output_dir", str(tmp_path / column)]))
        for column in ("text", "asr_text")
    )
    assert again["eval_loss"] == pytest.approx(said["eval_loss"], abs=1e-5) != heard["eval_loss"]
    assert heard["eval_rows"] == said["eval_rows"]
    train(
        *parse_arguments(
            [*given.split(), "--max_steps", "1", "--text_column_name", "asr_text", "--output_dir", model + "2"]
        )
    )
