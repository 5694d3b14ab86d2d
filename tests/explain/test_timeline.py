"""The picture of a timeline: colours as high as probabilities, on a page, and what was most certain in each row."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from explain.timeline import BAND, COLORS, NEUTRAL_COLOR, draw_timeline


LABELS = ["neutral", "happy", "angry"]


def window(start, scores, **fields):
    entries = [{"label": label, "score": score} for label, score in zip(LABELS, scores)]
    return {"start": start, "end": start + 6, "scores": sorted(entries, key=lambda entry: -entry["score"]), **fields}


def test_bands_are_as_high_as_the_mean_of_their_windows(tmp_path):
    windows = [window(0, (0.6, 0.3, 0.1)), window(3, (0.2, 0.1, 0.7), text="정말 반가워요"), window(18, (0.8, 0.2, 0))]
    figure = draw_timeline(windows, LABELS, "call.wav")
    figure.savefig(tmp_path / "timeline.png")
    (axes,) = figure.axes
    patches = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    assert len(patches) == 6  # three classes in two rows of 15 seconds
    for patch, label, color in zip(patches, range(3), (NEUTRAL_COLOR, *COLORS)):
        assert to_hex(patch.get_facecolor()).upper() == color
        tops, edges, bottoms = patch.get_data()
        heights = dict(zip(edges.round(3), (bottoms - tops) / BAND))
        first, second = windows[0], windows[1]
        one, other = ({e["label"]: e["score"] for e in each["scores"]}[LABELS[label]] for each in (first, second))
        assert [heights[at] for at in (1.0, 4.0, 8.0)] == pytest.approx([one, (one + other) / 2, other])
        assert np.isnan(heights[10.0])  # silence
    assert [text.get_text() for text in axes.texts] == ["00:03 angry 0.70: 정말 반가워요"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["00:00", "00:15"]


@pytest.mark.parametrize("hours", [1, 24])
def test_hours_fit_a_page(hours, tmp_path):
    scores = np.random.default_rng(0).dirichlet([1] * 3, 1200 * hours - 1)
    windows = [window(3 * number, row, text="그 얘기 " * 30) for number, row in enumerate(scores.tolist())]
    figure = draw_timeline(windows, LABELS, "call.wav")
    assert figure.get_figheight() < 11
    figure.savefig(tmp_path / "timeline.png")
    (axes,) = figure.axes
    assert len(axes.texts) == 12
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in axes.texts)
