"""The picture of a timeline: how probable each emotion is over minutes or hours, on one page."""

import math
from datetime import timedelta
from textwrap import shorten

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foundation.figures import INK, new_figure
from foundation.words import writable


MOST_ROWS = 12
# Seconds that a row may last.
ROWS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
TICKS, MOST_TICKS = (5, 10, 30, 60, 120, 300, 600, 1800), 6
STEPS_PER_ROW = 360
# Of a row, whose words stand below it.
HEIGHT, BAND = 0.74, 0.58  # inches, and the share that the probabilities take
LETTERS_PER_INCH, WIDE_LETTERS_PER_INCH, FIRST_WIDE = 12, 7, "\u1100"  # Hangul, Kana and Hanzi are wide
NEUTRAL, NEUTRAL_COLOR = "neutral", "#D9D9D9"
# Of Okabe and Ito, in an order that gives KEMDy20's emotions colours that are often theirs.
COLORS = ("#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#333333")


def clock(seconds: float) -> str:
    """`75` → `"01:15"`, `3675` → `"1:01:15"`."""
    return str(timedelta(seconds=int(seconds))).removeprefix("0:")


def draw_timeline(windows: list[dict], labels: list[str], title: str = "", width: float = 8.0) -> Figure:
    """Draw what a pipeline answers with `return_windows=True`, in at most twelve rows that are so many inches wide: the
    mean where windows overlap, and below each row its most certain window of an emotion other than neutral, with what
    is said in it if that is known. `labels` are the names of all classes."""
    seconds = max(window["end"] for window in windows)
    per_row = next(row for row in ROWS if row * MOST_ROWS >= seconds)
    num_rows = math.ceil(seconds / per_row)
    probabilities = _over_time(windows, labels, num_rows * STEPS_PER_ROW, per_row / STEPS_PER_ROW)
    per_line = max(int(width / (0.5 + 0.08 * max(map(len, labels)))), 1)
    figure = new_figure(width, 1.0 + 0.2 * math.ceil(len(labels) / per_line) + HEIGHT * num_rows)
    axes = figure.subplots()
    edges, colors = np.linspace(0, per_row, STEPS_PER_ROW + 1), _colors(labels)
    for row in range(num_rows):
        steps = probabilities[:, row * STEPS_PER_ROW : (row + 1) * STEPS_PER_ROW]
        tops = row + BAND * (1 - np.cumsum(steps, axis=0))
        for index, label in enumerate(labels):
            look = {"color": colors[index], "label": None if row else label}
            axes.stairs(tops[index], edges, baseline=tops[index] + BAND * steps[index], fill=True, **look)
        _caption(axes, row, windows, per_row, width)
    axes.set(xlim=(0, per_row), ylim=(num_rows, 0), xlabel="time into the row; white: silence")
    axes.set_yticks(np.arange(num_rows) + BAND / 2, [clock(row * per_row) for row in range(num_rows)])
    ticks = np.arange(0, per_row + 1, next(tick for tick in TICKS if per_row <= MOST_TICKS * tick))
    axes.set_xticks(ticks, map(clock, ticks))
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    look = {"frameon": False, "fontsize": 8, "handlelength": 1, "borderaxespad": 0.3, "borderpad": 0}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=per_line, **look)
    figure.suptitle(writable(title), fontsize=11, x=0.01, ha="left")
    return figure


def _over_time(windows: list[dict], labels: list[str], num_steps: int, step: float) -> np.ndarray:
    """The mean of the windows over each step, `(num_labels, num_steps)`; NaN where there are none."""
    total, places = np.zeros((len(labels) + 1, num_steps)), {label: place for place, label in enumerate(labels)}
    for window in windows:
        covered = slice(math.floor(window["start"] / step + 1e-6), math.ceil(window["end"] / step - 1e-6))
        total[-1, covered] += 1
        for entry in window["scores"]:
            total[places[entry["label"]], covered] += entry["score"]
    with np.errstate(invalid="ignore"):
        return total[:-1] / total[-1]


def _colors(labels: list[str]) -> list:
    others = [label for label in labels if NEUTRAL not in label]
    colors = COLORS if len(others) <= len(COLORS) else colormaps["turbo"](np.linspace(0, 1, len(others)))
    return [dict(zip(others, colors)).get(label, NEUTRAL_COLOR) for label in labels]


def _caption(axes: Axes, row: int, windows: list[dict], per_row: float, width: float) -> None:
    inside = [window for window in windows if row <= window["start"] / per_row < row + 1]
    best = [(max(window["scores"], key=lambda entry: entry["score"]), window) for window in inside]
    best = [(entry, window) for entry, window in best if NEUTRAL not in entry["label"]]
    if not best:
        return
    entry, window = max(best, key=lambda pair: pair[0]["score"])
    middle = (window["start"] + window["end"]) / 2 - row * per_row
    axes.plot(min(middle, per_row), row + BAND + 0.06, marker="^", markersize=4, color=INK, clip_on=False)
    text = writable(f"{clock(window['start'])} {entry['label']} {entry['score']:.2f}: {window.get('text') or ''}")
    text = text.removesuffix(": ")
    most = width * (WIDE_LETTERS_PER_INCH if max(text) >= FIRST_WIDE else LETTERS_PER_INCH)
    axes.text(0, row + BAND + 0.2, shorten(text, round(most), placeholder=" …"), fontsize=8, color=INK, va="center")
