"""Attention over a dataset: weights that add up, medians that are numpy's, and rows that can't be read named."""

import logging
import shutil

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, load_from_disk

from explain import AttentionWeights, collect_attention, draw_attention
from foundation.errors import InputError


@pytest.mark.parametrize("fusion, sizes", [("rsa", (16, 12)), ("rsa_cfn", (6, 6)), ("hybrid_fusion", (6, 6))])
def test_weights_over_a_dataset(fusion, sizes, make_model, processor, prepared_dir):
    weights = collect_attention(make_model(fusion=fusion), processor, str(prepared_dir))
    rows = load_from_disk(prepared_dir)["train"]
    labelled = [row for row, label in enumerate(rows["label"]) if label is not None]
    assert weights.segment_id.tolist() == [rows["segment_id"][row] for row in labelled]
    assert weights.is_neutral.tolist() == [rows["label"][row] == 0 for row in labelled]
    assert (weights.audio.shape, weights.text.shape) == tuple((len(labelled), size) for size in sizes)
    halves = np.stack([weights.audio.sum(axis=1), weights.text.sum(axis=1)])
    np.testing.assert_allclose(halves.sum(axis=0) if fusion == "rsa" else halves, 1, atol=1e-5)


def test_a_row_has_its_own_weights_whatever_its_batch(make_model, processor, prepared_dir):
    model = make_model(fusion="rsa")
    weights = collect_attention(model, processor, str(prepared_dir))
    rows = load_from_disk(prepared_dir)["train"].with_format(None).cast_column("audio", Audio(16000, decode=False))
    row = list(rows["segment_id"]).index(weights.segment_id[-1])
    inputs = processor(audio=[rows[row]["audio"]], text=rows[row]["text"], return_tensors="pt")
    (attention,) = model(**inputs, output_attentions=True).attentions
    expected = attention[0].mean(dim=0).detach().numpy()
    np.testing.assert_allclose(np.concatenate([weights.audio[-1], weights.text[-1]]), expected, atol=1e-6)


def test_medians_and_what_is_saved(tmp_path):
    generator = np.random.default_rng(0)
    audio, text = generator.random((9, 4)), generator.random((9, 3))
    is_neutral = np.array([True] * 5 + [False] * 4)
    weights = AttentionWeights(audio, text, is_neutral, np.array([f"row{row}" for row in range(9)]))
    weights.save(tmp_path / "attention.npz")
    saved = np.load(tmp_path / "attention.npz")
    np.testing.assert_array_equal(saved["audio"], audio)
    np.testing.assert_array_equal(saved["audio_median_of_neutral"], np.median(audio[:5], axis=0))
    np.testing.assert_array_equal(saved["text_median_of_rest"], np.median(text[5:], axis=0))
    assert saved["segment_id"].tolist()[0] == "row0"
    top, bottom = draw_attention(weights).axes
    neutral, rest = bottom.get_lines()
    np.testing.assert_array_equal(neutral.get_ydata(), np.median(text[:5], axis=0))
    np.testing.assert_array_equal(rest.get_ydata(), np.median(text[5:], axis=0))
    assert [axes.get_title() for axes in (top, bottom)] == ["audio features", "text features"]


def _write(folder, labels, **columns):
    audio = [{"array": [0.1, -0.1] * 600, "sampling_rate": 16000}] * (len(labels) - 1)
    rows = {"audio": [*audio, {"array": [], "sampling_rate": 16000}], "text": ["정말"] * len(labels), "label": labels}
    Dataset.from_dict({**rows, **columns}).save_to_disk(folder)
    return str(folder)


def test_rows_without_sound_are_named(make_model, processor, tmp_path, caplog):
    name = _write(tmp_path / "rows", ["neutral", "sad", "sad"], segment_id=["one", "two", "three"])
    with caplog.at_level(logging.WARNING):
        weights = collect_attention(make_model(), processor, name)
    assert weights.segment_id.tolist() == ["one", "two"]
    assert "1 of 3 rows lack readable audio or text and are left out: three" in caplog.text


def test_what_is_refused(make_model, processor, tmp_path):
    with pytest.raises(InputError, match="fusion='early_fusion' has no attention .* give a model of rsa, rsa_cfn"):
        collect_attention(make_model(fusion="early_fusion"), processor, "nowhere")
    name = _write(tmp_path / "no_neutral", ["happy", "sad", "sad"])
    with pytest.raises(InputError, match="no class 'neutral' to set against the rest, only happy, sad"):
        collect_attention(make_model(), processor, name)
    name = _write(tmp_path / "one_side", ["neutral", "neutral", "sad"])
    with pytest.raises(InputError, match="has 2 neutral and 0 other rows"):
        collect_attention(make_model(), processor, name)
    Dataset.from_dict({"text": ["정말"], "label": ["sad"]}).save_to_disk(tmp_path / "silent")
    with pytest.raises(InputError, match="has no column 'audio', only text, label"):
        collect_attention(make_model(), processor, str(tmp_path / "silent"))


def test_a_damaged_dataset_and_a_model_that_is_not_finite_are_refused(make_model, processor, prepared_dir, tmp_path):
    model = make_model(fusion="rsa")
    shutil.copytree(prepared_dir, tmp_path / "damaged")
    text = load_from_disk(prepared_dir)["train"]["text"][0].encode()
    for file in (tmp_path / "damaged").rglob("*.arrow"):
        file.write_bytes(file.read_bytes().replace(text, b"\xff" * len(text)))
    with pytest.raises(InputError, match="damaged is damaged .*; make or download it again$"):
        collect_attention(model, processor, str(tmp_path / "damaged"))
    with torch.no_grad():
        model.fusion.attention.query.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="attention isn't finite"):
        collect_attention(model, processor, str(prepared_dir))
