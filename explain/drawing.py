"""The picture of an explanation: probabilities with either modality withheld, over the waveform and the words."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from explain.prediction import Explanation
from foundation.figures import new_figure
from foundation.words import counted, writable


WIDTH = 5.6  # inches: on a phone, 360 pixels wide, the smallest writing is still legible
FONT_SIZE = 12
LINE_HEIGHT = 0.34  # inches
TEXT_WIDTH = 4.6  # inches that a line of words may take
SPACE = 0.09  # inches between words
# What bounds the height of a picture. So many letters fit into a line whatever they are, at most of FONT_SIZE in width.
MOST_LINES, MOST_LETTERS = 40, 25
# Blue over white to red, without the dark ends, on which neither a waveform nor writing would be legible.
COLORS = LinearSegmentedColormap.from_list("relevance", colormaps["RdBu_r"](np.linspace(0.2, 0.8, 256)))
BARS = {
    "all": ("#333333", "all that was given"),
    "audio": ("#56B4E9", "audio withheld"),
    "text": ("#E69F00", "text withheld"),
}
ATTENDED = "#E69F00"
MOST_POINTS = 4000  # of a waveform, each the extremes of its samples


def draw_explanation(explanation: Explanation, with_probabilities: bool = True) -> Figure:
    """
    Draw an explanation: bars of probabilities, if asked for; the waveform, and the words, on the colour of their
    relevance, on one scale, a line and outlines for attention. Of words that the model didn't read, and those behind
    the 40th line, it tells only how many there are.

    Returns:
        `matplotlib.figure.Figure`: Bound to no window and no global state; `savefig` writes it.
    """
    lines, heights = _break_lines(explanation.words), {}
    if with_probabilities:
        heights["probabilities"] = 0.9 + 0.4 * len(explanation.labels)
    if len(explanation.waveform):
        heights["audio"] = 1.5
    if explanation.words:
        heights["words"] = 0.55 + LINE_HEIGHT * len(lines)
    figure = new_figure(WIDTH, sum(heights.values()) + 0.8)
    panels = figure.subplots(len(heights), height_ratios=list(heights.values()), squeeze=False)[:, 0]
    panel_of = dict(zip(heights, panels))
    if with_probabilities:
        _draw_probabilities(panel_of["probabilities"], explanation)
    largest = np.abs([*explanation.segment_relevance, *explanation.word_relevance]).max(initial=0.0) or 1.0
    scale = ScalarMappable(Normalize(-largest, largest), COLORS)  # white at 0
    if "audio" in panel_of:
        _draw_waveform(panel_of["audio"], explanation, scale)
    if "words" in panel_of:
        _draw_words(panel_of["words"], explanation, lines, scale)
    bar = {"orientation": "horizontal", "aspect": 40, "fraction": 0.3 / len(panels), "ticks": [-largest, 0, largest]}
    bar = figure.colorbar(scale, ax=panels[-1], format="%.2g", **bar)
    bar.set_label(f"speaks against {explanation.target} (blue) or for it (red)", fontsize=9)
    return figure


def _draw_probabilities(axes: Axes, explanation: Explanation) -> None:
    shown = {"all": explanation.probabilities, **explanation.withheld}
    places, height = np.arange(len(explanation.labels)), 0.8 / len(shown)
    for row, (name, probabilities) in enumerate(shown.items()):
        color, label = BARS[name]
        offset = (row - (len(shown) - 1) / 2) * height
        bars = axes.barh(places + offset, probabilities, height=height, color=color, label=label)
        axes.bar_label(bars, [f"{value:.2f}" for value in probabilities], padding=2, fontsize=7)
    axes.set_yticks(places, explanation.labels)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.08), xlabel="probability")
    axes.spines[["top", "right"]].set_visible(False)
    index = explanation.labels.index(explanation.target)
    title = f"{explanation.target} {explanation.probabilities[index]:.2f}"
    if explanation.withheld:
        without = [f"{values[index]:.2f} without the {name}" for name, values in explanation.withheld.items()]
        title += f"; {', '.join(without)}"
        axes.legend(loc="best", fontsize=8, frameon=False)
    axes.set_title(title, fontsize=11, loc="left")


def _draw_waveform(axes: Axes, explanation: Explanation, scale: ScalarMappable) -> None:
    for (start, end), value in zip(explanation.segment_bounds, explanation.segment_relevance):
        axes.axvspan(start, end, facecolor=scale.to_rgba(value), edgecolor="white", linewidth=0.5)
    waveform = explanation.waveform
    step = -(-len(waveform) // MOST_POINTS)
    starts = np.arange(0, len(waveform), step)
    seconds = explanation.start + starts / explanation.sampling_rate
    low, high = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    axes.fill_between(seconds, low, high, color="#222222", linewidth=0.6)
    axes.set(xlim=(explanation.segment_bounds[0, 0], explanation.segment_bounds[-1, 1]), xlabel="seconds", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    attention = explanation.frame_attention
    if len(attention):
        edges, bottom = np.linspace(*axes.get_xlim(), len(attention) + 1), axes.get_ylim()[0]
        axes.stairs(bottom * (1 - 1.9 * attention / attention.max()), edges, color=ATTENDED, baseline=bottom)
    axes.set_title("half-seconds" + " (line: attention)" * (len(attention) > 0), fontsize=10, loc="left")


def _draw_words(
    axes: Axes, explanation: Explanation, lines: list[list[tuple[float, str]]], scale: ScalarMappable
) -> None:
    axes.set(xlim=(0, TEXT_WIDTH), ylim=(len(lines), 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    values, most = iter(explanation.word_relevance), explanation.word_attention.max(initial=0.0)
    widths = iter(3 * explanation.word_attention / (most or 1.0))
    for row, line in enumerate(lines):
        for x, word in line:
            box = {"boxstyle": "round,pad=0.18", "facecolor": scale.to_rgba(next(values)), "edgecolor": ATTENDED}
            box["linewidth"] = next(widths)
            axes.text(x, row + 0.5, word, bbox=box, fontsize=FONT_SIZE, va="center")
    num_more = len(explanation.words) - sum(map(len, lines))
    axes.set_title("words (outlines: attention)" if most else "words", fontsize=10, loc="left")
    notes = {"more": num_more, "that the model didn't read": explanation.num_words_left}
    axes.set_xlabel("; ".join(f"{counted(number, 'words')} {what}" for what, number in notes.items() if number))


def _break_lines(words: list[str]) -> list[list[tuple[float, str]]]:
    """Lines of words, each with its place in inches from the left; the first `MOST_LINES` of them."""
    lines: list[list[tuple[float, str]]] = []
    scratch, x = new_figure(WIDTH, 1), 0.0
    renderer = FigureCanvasAgg(scratch).get_renderer()
    words = [writable(word[: MOST_LETTERS + 1]) for word in words]
    words = [word if len(word) <= MOST_LETTERS else f"{word[: MOST_LETTERS - 1]}…" for word in words]
    texts = [scratch.text(0, 0, word, fontsize=FONT_SIZE) for word in words]
    scratch.choose_fonts()
    for word, text in zip(words, texts):
        width = text.get_window_extent(renderer).width / scratch.dpi + 2 * SPACE
        if not lines or x + width > TEXT_WIDTH:
            if len(lines) == MOST_LINES:
                break
            lines.append([])
            x = 0.0
        lines[-1].append((x + SPACE, word))
        x += width
    return lines
