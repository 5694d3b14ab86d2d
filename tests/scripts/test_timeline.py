"""The timeline from the command line: its windows and words in three files, and memory that doesn't grow with hours."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from processing_rsa_cfn import RsaCfnPipeline
from scripts.timeline import main
from tests.recognizers import make_recognizers
from training.model import load_saved


@pytest.fixture(scope="module")
def saved(make_model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    fields = {"attributes": ["valence"], "attribute_ranges": [[1, 5]]}
    make_model(fusion="early_fusion", **fields).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def write_speech(file, seconds):
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(file, "w", 16000, 1, "PCM_16") as sound:
        for _ in range(seconds):
            sound.write(rng.uniform(-0.1, 0.1, 16000) * np.repeat([0, 1], 8000))


def read(folder):
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "timeline.csv").open(encoding="utf-8", newline="") as file:
        return json.loads((folder / "timeline.json").read_text(encoding="utf-8")), list(csv.DictReader(file))


def test_the_files_have_what_the_pipeline_answers(saved, tmp_path, capsys):
    audio, folder = str(tmp_path / "call.wav"), tmp_path / "out"
    write_speech(audio, 20)
    assert main([audio, "--model_name_or_path", saved, "--output_dir", str(folder)]) == 0
    record, rows = read(folder)
    pipe = RsaCfnPipeline(*load_saved(saved), device="cpu")
    expected = pipe(audio, return_windows=True, return_attributes=True)
    assert record["audio"] == audio and "words" not in record and "text" not in rows[0]
    assert [window["start"] for window in record["windows"]] == [0, 3, 6, 9, 12, 14]
    for window, row, other in zip(record["windows"], rows, expected["windows"], strict=True):
        scores, others = ({entry["label"]: entry["score"] for entry in of["scores"]} for of in (window, other))
        assert scores == pytest.approx(others, abs=1e-5)
        assert row["prediction"] == other["scores"][0]["label"] and float(row["end"]) == window["end"]
        assert {name: float(row[f"probability_{name}"]) for name in others} == pytest.approx(others, abs=1e-5)
        assert float(row["prediction_valence"]) == pytest.approx(other["attributes"]["valence"], abs=1e-5)
    assert capsys.readouterr().out.endswith("timeline.csv, timeline.json and timeline.png, of 6 windows\n")


@pytest.mark.slow
def test_each_window_is_read_with_the_words_of_the_recogniser(saved, make_config, half_stem, tmp_path):
    recognizers = make_recognizers(tmp_path, make_config(audio_config=half_stem).audio_config)
    audio, folder = str(tmp_path / "call.wav"), tmp_path / "out"
    write_speech(audio, 70)
    argv = [audio, "--model_name_or_path", saved, "--asr_model", str(recognizers / "ctc"), "--bf16"]
    assert main([*argv, "--output_dir", str(folder)]) == 0
    record, rows = read(folder)
    assert record["words"] and any(row["text"] for row in rows)
    for window, row in zip(record["windows"], rows, strict=True):
        middles = [(sum(word["timestamp"]) / 2, word["text"]) for word in record["words"]]
        said = " ".join(text for middle, text in middles if window["start"] <= middle <= window["end"])
        assert window["text"] == (said or None) and row["text"] == said


def test_what_is_refused_says_so_in_one_line(saved, make_model, processor, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("정말")
    make_model(fusion="text").save_pretrained(tmp_path / "text")
    processor.save_pretrained(tmp_path / "text")
    for model, message in ((saved, "text.wav: audio can't be read"), (tmp_path / "text", "reads nothing but text")):
        argv = [str(tmp_path / "text.wav"), "--model_name_or_path", str(model), "--output_dir", str(tmp_path / "out")]
        assert main(argv) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "out").exists()


# Not getrusage, which counts the memory of the process that started this one.
PEAK = """
import re, sys
from pathlib import Path
from scripts.timeline import main
assert main(sys.argv[1:]) == 0
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_ten_minutes(saved, tmp_path):
    peaks = []
    for minutes in (10, 60):
        audio = tmp_path / f"{minutes}.wav"
        write_speech(audio, 60 * minutes)
        argv = [str(audio), "--model_name_or_path", saved, "--output_dir", str(tmp_path / str(minutes))]
        finished = subprocess.run([sys.executable, "-c", PEAK, *argv], capture_output=True, text=True, check=True)
        peaks.append(int(finished.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks  # MiB; the whole hour: 220
