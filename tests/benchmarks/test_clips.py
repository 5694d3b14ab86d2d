"""What the benchmarks train on is as long as KEMDy20, and a few of its batches stand for all."""

import numpy as np
import pytest

from benchmarks.clips import benchmark_config, draw_durations, epoch_batches, make_processor, make_rows, representatives


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
