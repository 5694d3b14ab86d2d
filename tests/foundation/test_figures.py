"""Figures without pyplot: names from top to bottom, and fonts that have every letter, or a line that says which not."""

import logging
import warnings

from foundation.figures import families_for, name_rows, new_figure


def test_rows_are_named_from_the_top():
    figure = new_figure(4, 2)
    axes = figure.subplots()
    name_rows(axes, ["first", "last"])
    figure.draw_without_rendering()
    first, last = (label.get_window_extent() for label in axes.get_yticklabels())
    assert figure.bbox.y1 >= first.y1 > first.y0 > last.y1 > last.y0 >= figure.bbox.y0
    assert figure.bbox.x0 <= first.x0


def test_korean_is_drawn_in_real_letters(tmp_path):
    figure = new_figure(2, 1)
    figure.text(0.1, 0.5, "plain 정말", fontfamily=families_for("plain 정말"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that no font has is one
        figure.savefig(tmp_path / "words.png")


def test_letters_that_no_font_has_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        assert families_for("plain") == families_for("") == ["DejaVu Sans"]
        assert len(families_for("정말")) == 2
        assert not caplog.records
        families_for("정말 \U000f0000")
    assert "No installed font has \U000f0000, drawn as boxes; install one" in caplog.text
