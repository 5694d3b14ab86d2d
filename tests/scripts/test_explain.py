"""The explanation from the command line: files for a clip and for a dataset, and one line for what can't be used."""

import json

import numpy as np
import pytest
import soundfile

from foundation.files import holds_files, owned
from scripts.explain import main


@pytest.fixture(scope="module")
def saved(make_model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_model(fusion="rsa_cfn").save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def test_a_clip(saved, tmp_path, capsys):
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 19200), 16000)
    folder = tmp_path / "new" / "explained"
    argv = [saved, "--audio", str(tmp_path / "speech.wav"), "--text", "정말 반가워요", "--output_dir", str(folder)]
    assert main(argv) == 0
    assert "Written to" in capsys.readouterr().out
    record = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    assert [word["word"] for word in record["words"]] == ["정말", "반가워요"]
    assert [segment["end"] for segment in record["segments"]] == [0.5, 1.0, 1.2]
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    target = record["target"]
    assert record["contributions"]["text"] == pytest.approx(
        record["probabilities"][target] - record["withheld"]["text"][target]
    )
    assert (folder / "explanation.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(folder / "explanation.npz")["audio"].shape == (6, 6)


def test_a_dataset(saved, prepared_dir, tmp_path):
    assert main([saved, "--dataset_name", str(prepared_dir), "--output_dir", str(tmp_path)]) == 0
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(tmp_path / "attention.npz")["text"].shape[1] == 6


def test_what_is_refused_says_so_in_one_line(saved, tmp_path, capsys):
    def refused(*argv):
        try:
            assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 2
        except SystemExit as stop:
            assert stop.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line and "Loading weights" not in line]
        assert not holds_files(tmp_path / "out")
        return line

    # Port 9 answers nobody.
    secret = refused(str(saved), "--audio", "http://me:word@127.0.0.1:9/x.wav?token=abc")
    assert "http://...@127.0.0.1:9/x.wav" in secret and "word" not in secret and "abc" not in secret
    assert "give either --audio, --text or both, or --dataset_name" in refused(saved)
    assert "give either" in refused(saved, "--text", "정말", "--dataset_name", "data/demo")
    assert "models/no is no folder here" in refused("models/no", "--text", "정말")
    with owned(tmp_path / "out", "x"):
        assert "is being written by another process" in refused(saved, "--text", "정말")
    (tmp_path / "text.wav").write_text("정말")
    assert "audio can't be read" in refused(saved, "--audio", str(tmp_path / "text.wav"))
    assert "dataset nowhere/at_all can't be loaded" in refused(saved, "--dataset_name", "nowhere/at_all")
