"""The model of the benchmarks is of the paper's size, and that of the pages; what it trains on is as long as KEMDy20,
and a few of its batches stand for all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.clips import (
    AUDIO_CONFIG,
    TEXT_CONFIG,
    benchmark_config,
    draw_durations,
    epoch_batches,
    make_processor,
    make_rows,
    representatives,
)
from configuration_rsa_cfn import FUSIONS, RsaCfnConfig
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from tests.markdown import table


# Parameters of the heads of the original code.
HEAD_PARAMETERS = {
    "early_fusion": 16_135,
    "late_fusion": 12_572,
    "mlp_mixer": 1_344_207,
    "stack": 16_135,
    "residual": 5_064_711,
    "rsa": 5_065_737,
    "rsa_cfn": 328_300_813,
    "hybrid_fusion": 333_394_245,
}
BACKBONE_PARAMETERS = 315_438_720 + 110_618_112 - 590_592  # the text encoder's pooler is left out


def test_sizes_are_the_papers_and_those_of_the_pages():
    rows = []
    for fusion in FUSIONS:
        config = RsaCfnConfig(audio_config=dict(AUDIO_CONFIG), text_config=dict(TEXT_CONFIG), fusion=fusion)
        with torch.device("meta"):  # counted without allocating them
            model = RsaCfnForSequenceClassification(config)
        head = sum(parameter.numel() for parameter in model.fusion.parameters())
        rows.append([f"`{fusion}`", f"{head:,}", f"{model.num_parameters():,}"])
        if fusion in HEAD_PARAMETERS:
            assert head == HEAD_PARAMETERS[fusion] and model.num_parameters() == BACKBONE_PARAMETERS + head
    for page, first, num_columns in (("README.md", "`--fusion`", 2), ("docs/fusions.md", "fusion", 3)):
        text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
        assert [row[:num_columns] for row in table(text, first)] == [row[:num_columns] for row in rows], page


def test_durations_are_those_of_the_corpus():
    durations = draw_durations(20_000, seed=0)
    assert durations.mean() == pytest.approx(5.9, abs=0.2)
    assert durations.min() > 0.6 and durations.max() < 35
    for seconds, share in ((4.1, 0.45), (7.6, 0.74), (14.5, 0.945)):
        assert (durations < seconds).mean() == pytest.approx(share, abs=0.01)


def test_transcripts_have_25_tokens_on_average():
    config = benchmark_config("small")
    durations = np.quantile(draw_durations(20_000, seed=0), (np.arange(200) + 0.5) / 200)
    rows = make_rows(durations, np.arange(200), config)
    processor = make_processor(config.text_config.vocab_size)
    mask = processor(text=[row["text"] for row in rows], return_tensors="np")["attention_mask"]
    assert mask.sum(axis=1).mean() == pytest.approx(25, abs=2)


def test_grouped_batches_pad_less_and_hold_every_row_once():
    lengths = draw_durations(512, seed=0).clip(max=6)
    padded = {}
    for grouped in (False, True):
        batches = epoch_batches(lengths, 4, grouped, seed=0)
        assert sorted(np.concatenate(batches)) == list(range(512))
        padded[grouped] = np.mean([lengths[batch].max() for batch in batches])
    assert padded[True] < lengths.mean() * 1.1 < padded[False]
    few = representatives(batches, lengths, 4)
    assert np.mean([lengths[batch].max() for batch in few]) == pytest.approx(padded[True], rel=0.05)
