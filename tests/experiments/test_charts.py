"""The pictures: nothing is cut off, what is significant can be told without colours, what isn't there is left out."""

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from experiments import charts
from experiments.records import from_both_sides, pair_frame
from experiments.results import PAPER, SESSION
from tests.made_results import LONG_NAME, MARKED, make_few, make_results, make_smallest


OF_A_PROTOCOL = [
    charts.draw_differences,
    charts.draw_confusion_matrices,
    charts.draw_reliability,
]


@pytest.fixture(scope="module")
def results():
    return make_results()


def words_of(figure):
    """But those of ticks beyond the ends of an axis, which are never drawn."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    words = figure.findobj(lambda artist: isinstance(artist, Text) and artist not in beyond)
    return [text for text in words if text.get_visible() and text.get_text().strip()]


def drawn(picture):
    picture.figure.draw_without_rendering()
    return picture.figure


@pytest.mark.parametrize("draw", [charts.draw_scores, *OF_A_PROTOCOL])
def test_long_names_are_not_cut_off(draw):
    results = make_few()
    with matplotlib.rc_context(charts.STYLE):
        figure = drawn(draw(results, SESSION) if draw in OF_A_PROTOCOL else draw(results))
        page = figure.bbox
        for text in words_of(figure):
            box = text.get_window_extent()
            assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
            assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
            assert text.get_fontsize() >= 7
    shown = "".join("".join(text.get_text().split()) for text in words_of(figure))
    assert "".join(LONG_NAME.split()) in shown


def test_many_pairs_are_drawn_against_two_systems(results):
    figure = charts.draw_differences(results, SESSION).figure
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["fusion − text", f"fusion − {LONG_NAME}"]
    names = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 10 and names[0] == LONG_NAME and "audio" not in names
    pairs = from_both_sides(pair_frame(results, SESSION)).set_index(["first", "second"])
    for axes, reference in zip(figure.axes, ("text", LONG_NAME)):
        for place, label in enumerate(axes.get_yticklabels()):
            name = next(n for n in (MARKED, *names) if "".join(n.split()) == "".join(label.get_text().split()))
            difference = pairs.loc[name, reference]
            (point,) = [line for line in axes.lines if line.get_ydata()[0] == place and line.get_marker() in ("o", "D")]
            assert point.get_xdata()[0] == difference.value
            assert point.get_marker() == ("o" if difference.p_holm < 0.05 else "D")


def test_a_few_pairs_are_all_drawn(results):
    few = make_results()
    names = {"text", "rsa", "rsa_cfn"}
    few.comparisons = [pair for pair in few.comparisons if {pair.first, pair.second} <= names]
    (axes,) = charts.draw_differences(few, PAPER).figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "text\n− rsa",
        "text\n− rsa_cfn",
        "rsa\n− rsa_cfn",
    ]


def test_a_system_that_knows_two_classes_stands_out(results):
    titles = {
        axes.get_title().partition("\n")[0]: axes.title
        for axes in charts.draw_confusion_matrices(results, SESSION).figure.axes
    }
    assert titles["audio"].get_text() == "audio\npredicts 2 of 7 classes"
    assert titles["audio"].get_fontweight() == "bold" and to_hex(titles["audio"].get_color()) == "#d55e00"
    assert titles["rsa"].get_fontweight() == "normal"


def test_what_is_not_there_is_not_drawn():
    smallest = make_smallest()
    for draw in (charts.draw_differences, charts.draw_reliability):
        assert draw(smallest, PAPER) is None
    smallest.scores = []
    assert charts.draw_scores(smallest) is None and charts.draw_confusion_matrices(smallest, PAPER) is None
