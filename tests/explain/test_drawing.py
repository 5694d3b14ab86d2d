"""The picture of an explanation: all words and half-seconds are in it, in their order, inside it, in real letters."""

import warnings

import numpy as np
import pytest
from matplotlib import colors as mpl_colors
from matplotlib.patches import StepPatch

from explain import Explanation, draw_explanation


LABELS = ["neutral", "happy", "sad"]


def make_explanation(words, seconds=1.2, **fields):
    generator = np.random.default_rng(0)
    samples = round(seconds * 16000)
    values = {
        "labels": LABELS,
        "target": "happy",
        "probabilities": np.array([0.2, 0.7, 0.1]),
        "withheld": {"audio": np.array([0.3, 0.4, 0.3]), "text": np.array([0.25, 0.75, 0.0])},
        "waveform": generator.uniform(-0.1, 0.1, samples).astype(np.float32),
        "sampling_rate": 16000,
        "start": 2.0,
        "segment_relevance": generator.standard_normal(-(-samples // 8000)),
        "words": words,
        "word_relevance": generator.standard_normal(len(words)),
        "num_words_left": 0,
        "frame_attention": np.zeros(0),
        "word_attention": np.zeros(len(words)),
        "attentions": (),
    }
    return Explanation(**{**values, **fields})


@pytest.mark.parametrize("num_words", [1, 12, 90])
def test_words_stand_in_their_order_inside_the_picture(num_words, tmp_path):
    words = [f"{word}{place}" for place, word in zip(range(num_words), ["정말", "고마워요", "$a_1", "thanks"] * 30)]
    figure = draw_explanation(make_explanation(words))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that no font has is one
        figure.savefig(tmp_path / "explanation.png")
    axes = figure.axes[2]
    texts = [text for text in axes.texts if text.get_text()]
    assert [text.get_text() for text in texts] == words
    places = [(text.get_position()[1], text.get_position()[0]) for text in texts]
    assert places == sorted(places)
    boxes = [text.get_bbox_patch().get_window_extent() for text in texts]
    assert all(not one.overlaps(other) for one, other in zip(boxes, boxes[1:]))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 1 for box in boxes)


def test_attention_is_a_line_and_outlines():
    attention = np.array([0.1, 0.6, 0.3])
    explanation = make_explanation(["정말", "고마워요", "thanks"], frame_attention=attention, word_attention=attention)
    _, waveform, words, *_ = draw_explanation(explanation).axes
    (line,) = (patch for patch in waveform.patches if isinstance(patch, StepPatch))
    values, edges, bottom = line.get_data()
    np.testing.assert_allclose((values - bottom) / (values - bottom).sum(), attention)
    np.testing.assert_allclose(edges, [2.0, 2.4, 2.8, 3.2])
    np.testing.assert_allclose([text.get_bbox_patch().get_linewidth() for text in words.texts], [0.5, 3, 1.5])
    assert waveform.get_title(loc="left") == "half-seconds (line: attention)"
    assert words.get_title(loc="left") == "words (outlines: attention)"


def test_what_is_drawn_is_bounded_and_the_rest_counted(tmp_path):
    words = ["\x1b[31m" + "가" * 100_000, *[f"word{place}" for place in range(400)]]
    figure = draw_explanation(make_explanation(words, num_words_left=1600))
    figure.savefig(tmp_path / "explanation.png")
    first, *others = (text for text in figure.axes[2].texts if text.get_text())
    assert first.get_text().startswith(r"\x1b[31m가") and first.get_text().endswith("가…")
    assert first.get_bbox_patch().get_window_extent().x1 <= figure.bbox.x1
    left = f"{len(words) - 1 - len(others)} words more; 1,600 words that the model didn't read"
    assert 0 < len(others) < 400 and figure.axes[2].get_xlabel() == left
    assert figure.get_figheight() < 20


def test_colours_are_of_the_relevance():
    explanation = make_explanation(["하나", "둘"], word_relevance=np.array([2.0, -1.0]))
    figure = draw_explanation(explanation)
    spans = figure.axes[1].patches
    assert [span.get_x() for span in spans] == pytest.approx([2.0, 2.5, 3.0])
    assert spans[-1].get_x() + spans[-1].get_width() == pytest.approx(3.2)
    for patches, relevance in (
        (spans, explanation.segment_relevance),
        ([text.get_bbox_patch() for text in figure.axes[2].texts], explanation.word_relevance),
    ):
        for patch, value in zip(patches, relevance):
            red, _, blue = mpl_colors.to_rgb(patch.get_facecolor())
            assert (red > blue) == (value > 0)


def test_audio_and_words_are_on_one_scale():
    relevance = np.array([0.5, -1.0, 0.25])
    figure = draw_explanation(
        make_explanation(["하나", "둘"], segment_relevance=relevance, word_relevance=relevance[:2])
    )
    _, waveform, words, bar = figure.axes
    spans = [patch.get_facecolor() for patch in waveform.patches]
    assert spans[:2] == [text.get_bbox_patch().get_facecolor() for text in words.texts]
    assert bar.get_xlim() == (-1, 1) and bar.get_xlabel() == "speaks against happy (blue) or for it (red)"


@pytest.mark.parametrize(
    "fields, panels",
    [
        ({"words": []}, 3),
        ({"words": ["네"], "waveform": np.zeros(0), "segment_relevance": np.zeros(0), "withheld": {}}, 3),
        ({"words": ["네"], "word_relevance": np.zeros(1)}, 4),
    ],
)
def test_what_is_missing_has_no_panel(fields, panels, tmp_path):
    figure = draw_explanation(make_explanation(**fields))
    figure.savefig(tmp_path / "explanation.png")
    assert len(figure.axes) == panels  # with one colour bar
    assert len(draw_explanation(make_explanation(**fields), with_probabilities=False).axes) == panels - 1
