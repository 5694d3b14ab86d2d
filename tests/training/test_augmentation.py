"""Ways to change a clip: what they keep, what they change, and that seed, epoch and rows decide all that is drawn."""

import numpy as np
import pytest
import torch

from training.arguments import AUGMENTATIONS, CONDITIONS
from training.augmentation import CHANGES, Augmentation, add_noise, under


@pytest.fixture
def voice():
    """Two seconds of harmonics of 150 Hz, up to 6 kHz."""
    time = np.arange(32000) / 16000
    return sum(np.sin(2 * np.pi * 150 * n * time) / n for n in range(1, 41)).astype(np.float32) * 0.1


def power(waveform, low, high):
    hertz = np.fft.rfftfreq(len(waveform), 1 / 16000)
    return (np.abs(np.fft.rfft(waveform)) ** 2)[(hertz >= low) & (hertz < high)].sum()


def test_noise_has_the_ratio_that_is_asked_for(voice):
    for decibels in (20, 10, 0):
        noisy = under(f"noise{decibels}", voice)
        ratio = 10 * np.log10(np.mean(voice**2) / np.mean((noisy - voice) ** 2))
        assert ratio == pytest.approx(decibels, abs=0.01)
        assert np.array_equal(noisy, under(f"noise{decibels}", voice))
    assert not np.array_equal(under("noise0", voice) - voice, under("noise0", voice[:-1]) - voice[:-1])
    rng = np.random.default_rng(0)
    drawn = [add_noise(voice, rng) - voice for _ in range(50)]
    ratios = [10 * np.log10(np.mean(voice**2) / np.mean(noise**2)) for noise in drawn]
    assert 5 <= min(ratios) < 10 and 25 < max(ratios) <= 30


def test_a_telephone_keeps_its_band_only(voice):
    narrow = under("telephone", voice)
    assert power(narrow, 300, 3400) == pytest.approx(power(voice, 300, 3400), rel=0.02)
    assert power(narrow, 4000, 8000) < 0.02 * power(voice, 4000, 8000)
    assert power(narrow, 0, 200) < 0.02 * power(voice, 0, 200)
    assert len(np.unique(narrow)) <= 255


def test_speed_changes_length_and_pitch_and_an_echo_outlasts_the_voice(voice):
    lengths = {len(CHANGES["speed"](voice, np.random.default_rng(seed))) for seed in range(30)}
    assert 32000 / 1.1 <= min(lengths) < 30000 and 34000 < max(lengths) <= 32000 / 0.9 + 1
    stopped = np.concatenate([voice[:16000], np.zeros(16000, np.float32)])
    echo = CHANGES["reverberation"](stopped, np.random.default_rng(1))
    assert len(echo) == len(stopped) and np.mean(echo[16000:17000] ** 2) > 100 * np.mean(echo[28000:] ** 2) > 0


def batch(voice):
    return [{"audio": voice * scale, "votes": [8, 2, 0]} for scale in (1, 0.5, 0.25, 0.1)]


def test_all_that_is_drawn_depends_on_torch_alone(voice):
    def draw(seed):
        torch.manual_seed(seed)
        rows = batch(voice)
        drawn = Augmentation(list(AUGMENTATIONS), 0.5, 3)(rows, torch.tensor([0, 1, 2, 0]))
        return [row["audio"] for row in rows], drawn

    (first, drawn), (again, same), (other, _) = draw(1), draw(1), draw(2)
    assert list(drawn) == list(same) == ["labels", "mixing"] and all(map(torch.equal, drawn.values(), same.values()))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))
    assert all(clip.dtype == np.float32 and np.isfinite(clip).all() for clip in first)


def test_nothing_is_changed_with_probability_0(voice):
    rows = batch(voice)
    drawn = Augmentation(list(AUGMENTATIONS), 0.0, 3)(rows, torch.tensor([0, 1, 2, 0]))
    labels = drawn["labels"]
    assert torch.equal(drawn["mixing"], torch.eye(4))
    assert all(np.array_equal(row["audio"], own["audio"]) for row, own in zip(rows, batch(voice)))
    assert torch.equal(labels.argmax(dim=1), torch.tensor([0, 1, 2, 0])) and labels.max(dim=1).values.eq(1).all()


def test_mixed_clips_have_mixed_labels(voice):
    torch.manual_seed(0)
    time = np.arange(32000) / 16000
    tones = [np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (200, 400, 600)]
    rows = [{"audio": tone * scale} for tone, scale in zip(tones, (1, 0.1, 0.5))]
    labels = Augmentation(["mix"], 1.0, 3)(rows, torch.arange(3))["labels"]
    assert torch.allclose(labels.sum(dim=1), torch.ones(3)) and (labels.diagonal() >= 0.5).all()
    for row, shares in zip(rows, labels):
        amplitudes = torch.tensor([power(row["audio"], hertz - 50, hertz + 50) ** 0.5 for hertz in (200, 400, 600)])
        assert torch.allclose((amplitudes / amplitudes.sum()).float(), shares, atol=1e-3)


def test_mixed_features_have_mixed_labels_and_the_clips_stay(voice):
    torch.manual_seed(0)
    rows, shares = batch(voice), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.5, 0.5]])
    drawn = Augmentation(["mixup"], 1.0, 3)(rows, shares)
    assert all(np.array_equal(row["audio"], own["audio"]) for row, own in zip(rows, batch(voice)))
    mixing = drawn["mixing"]
    assert torch.allclose(mixing.sum(dim=1), torch.ones(4)) and (mixing > 0).sum(dim=1).eq(2).all()
    assert (mixing.diagonal() >= 0.5).all() and torch.equal(drawn["labels"], mixing @ shares)


def test_raters_are_left_out_of_soft_targets_only(voice):
    torch.manual_seed(0)
    shares = torch.tensor([[0.8, 0.2, 0.0]] * 4)
    drawn = Augmentation(["raters"], 1.0, 3)(batch(voice), shares.clone())["labels"]
    assert torch.allclose(drawn.sum(dim=1), torch.ones(4)) and drawn[:, 2].eq(0).all()
    assert len({tuple(row.tolist()) for row in drawn}) > 1
    labels = torch.tensor([0, 1, 2, 0])
    assert Augmentation(["raters"], 1.0, 3)(batch(voice), labels)["labels"] is labels


def test_names_of_the_command_line_are_those_of_the_functions(voice):
    assert set(AUGMENTATIONS) == {*CHANGES, "mix", "mixup", "raters"}
    assert all(len(under(condition, voice)) == len(voice) for condition in CONDITIONS)
