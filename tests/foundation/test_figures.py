"""Figures without pyplot: names from top to bottom, and fonts that have every letter."""

import warnings

import pytest

from foundation.figures import name_rows, new_figure


def test_rows_are_named_from_the_top():
    figure = new_figure(4, 2)
    axes = figure.subplots()
    name_rows(axes, ["first", "last"])
    figure.draw_without_rendering()
    first, last = (label.get_window_extent() for label in axes.get_yticklabels())
    assert figure.bbox.y1 >= first.y1 > first.y0 > last.y1 > last.y0 >= figure.bbox.y0
    assert figure.bbox.x0 <= first.x0


@pytest.mark.parametrize("name", ["분노", "怒り", "ヨロコビ", "愤怒", "憤怒"])
def test_writing_of_any_script_is_drawn_in_real_letters(name, tmp_path):
    figure = new_figure(4, 3)
    left, right = figure.subplots(1, 2)
    left.set(title=name, xlabel=name)
    left.plot([0, 1], label=name)
    left.legend()
    left.annotate(name, (0, 0))
    name_rows(right, [name, "plain $a_"])
    figure.supylabel(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that no font has is one
        figure.savefig(tmp_path / "words.png")
