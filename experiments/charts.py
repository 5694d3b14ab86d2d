"""The pictures of the report, each of one protocol: scores, differences, confusion matrices, reliability.
Names may be long: rows are as high as their names, and other names are wrapped."""

from collections.abc import Iterable
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from experiments.records import from_both_sides, pair_frame
from experiments.results import (
    PAPER,
    SESSION,
    SINGLE_MODALITIES,
    Difference,
    Estimate,
    Results,
    is_fusion,
)
from experiments.sheets import MINUS, format_score
from foundation.figures import BLUE, GREY, INK, PALE, VERMILLION, Picture, draw_counts, name_rows, new_figure
from metrics.scores import LEADING


WIDTH = 9.0  # inches: shown 900 pixels wide, writing of 9 points is 12 pixels high
DPI = 140
STYLE = {"font.size": 9}  # of matplotlib, while they are drawn
# More pairs are only listed, and the picture has each fusion against two systems.
MOST_PAIRS = 15
NAME_WIDTH = 34  # letters of a line
STYLES = {SESSION: {"color": BLUE, "marker": "o"}, PAPER: {"color": VERMILLION, "marker": "^"}}
SURE, UNSURE = {"color": VERMILLION, "marker": "o"}, {"color": GREY, "marker": "D", "mfc": "white"}


def draw_scores(results: Results) -> Picture | None:
    """Macro F1 of each system, with its interval, under each protocol."""
    names = list(dict.fromkeys(entry.system for name in results.protocols for entry in results.scores_of(name)))
    if not names:
        return None
    figure = new_figure(WIDTH, _height_of_rows(names) + 0.9)
    axes, protocols = figure.subplots(), results.protocols
    for index, protocol in enumerate(protocols):
        shift = (index - (len(protocols) - 1) / 2) * 0.25
        for entry in results.scores_of(protocol):
            _draw_interval(axes, entry.estimates[LEADING], names.index(entry.system) + shift, **STYLES[protocol])
    _add_legend(figure, {protocol: STYLES[protocol] | {"linestyle": ""} for protocol in protocols})
    _name_wrapped(axes, names)
    axes.set_xlabel("macro F1 (0 to 1), with its 95 % interval")
    return Picture(
        "macro_f1",
        figure,
        "Macro F1 of the rows of all folds, with the 95 % interval where there is one.",
        "Points with error bars, a row for each system",
    )


def draw_differences(results: Results, protocol: str) -> Picture | None:
    """A forest plot of differences in macro F1: of every pair, or, of many, of fusions against two systems."""
    panels = _forest(results, protocol)
    if not panels:
        return None
    heights = [_height_of_rows(rows.name) + 0.5 for rows in panels.values()]
    figure = new_figure(WIDTH, sum(heights) + 0.8)
    columns = figure.subplots(len(panels), squeeze=False, height_ratios=heights, sharex=True)[:, 0]
    for axes, (title, rows) in zip(columns, panels.items()):
        for place, difference in enumerate(rows.itertuples()):
            _draw_interval(axes, difference, place, **SURE if difference.is_significant else UNSURE)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_title(title, fontsize=10, loc="left")
        _name_wrapped(axes, rows.name)
    axes.set_xlabel("difference in macro F1 (of 0 to 1), with its 95 % interval")
    _add_legend(figure, {"p (Holm) < .05": SURE, "not significant": UNSURE})
    number = sum(rows.is_significant.sum() for rows in panels.values())
    return Picture(
        f"differences_{protocol}",
        figure,
        f"Differences in macro F1, protocol {protocol}. {number or 'None'} of those shown "
        f"{'is' if number in (0, 1) else 'are'} significant after Holm's correction (filled circles).",
        "Forest plot: points with error bars about a line at zero",
    )


def _forest(results: Results, protocol: str) -> dict[str, DataFrame]:
    """Rows of each panel by its title, the largest difference first; `name` is what a row is called."""
    pairs = pair_frame(results, protocol)
    if len(pairs) <= MOST_PAIRS:
        named = pairs.assign(name=pairs["first"] + f"\n{MINUS} " + pairs["second"])
        return {} if named.empty else {"first − second": named}
    pairs = from_both_sides(pairs)
    pairs = pairs[pairs.first_is_fusion].sort_values("value", ascending=False, kind="stable")
    panels = {}
    for reference in find_references(results, protocol):
        rows = pairs[pairs["second"] == reference]
        if not rows.empty:
            panels[f"fusion {MINUS} {reference}"] = rows.assign(name=rows["first"])
    return panels


def find_references(results: Results, protocol: str) -> list[str]:
    """The system that is best in macro F1 with one modality, and the one that is with both."""
    fusions = {entry.system: results.fusion_of(entry.system) for entry in results.scores_of(protocol)}
    single = [name for name, fusion in fusions.items() if fusion in SINGLE_MODALITIES]
    return [*single[:1], *[name for name, fusion in fusions.items() if is_fusion(fusion)][:1]]


def draw_confusion_matrices(results: Results, protocol: str) -> Picture | None:
    """Counts per pair of true and predicted class, side by side, coloured by their share of the true class."""
    scores, labels = results.scores_of(protocol), results.label_names
    if not scores:
        return None
    panels, figure = _grid(len(scores), 3 if len(labels) <= 8 else 2, "predicted", "true")
    for axes, entry in zip(panels, scores):
        matrix = np.array(entry.confusion_matrix, dtype=float)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
        image = draw_counts(axes, matrix, shares, labels, labels, min(8, 50 / len(labels)))
        axes.tick_params(labelsize=8)
        known = int((matrix.sum(axis=0) > 0).sum())
        style = {"color": VERMILLION, "fontweight": "bold"} if known < len(labels) else {"color": INK}
        title = [*wrap(entry.system, NAME_WIDTH), f"predicts {known} of {len(labels)} classes"]
        axes.set_title("\n".join(title), fontsize=9, **style)
    bar = figure.colorbar(image, ax=figure.axes, location="top", shrink=0.5, aspect=40)
    bar.set_label("share of the true class (0 to 1); the numbers are rows")
    return Picture(
        f"confusion_{protocol}",
        figure,
        f"Confusion matrices, protocol {protocol}: rows of all folds, means over the seeds; true classes in rows, "
        "predicted ones in columns. In bold, systems that never predict some class.",
        "Confusion matrices, one for each system",
    )


def draw_reliability(results: Results, protocol: str) -> Picture | None:
    """How often answers of a certain probability are right."""
    scores = [entry for entry in results.scores_of(protocol) if entry.calibration is not None]
    if not scores:
        return None
    panels, figure = _grid(len(scores), 4, "probability of the answer (0 to 1)", "share that is right (0 to 1)")
    for axes, entry in zip(panels, scores):
        bins = [part for part in entry.calibration.bins if part.rows and part.confidence is not None]
        total = max(sum(part.rows for part in bins), 1)
        places = [[part.confidence for part in bins], [part.accuracy for part in bins]]
        axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle="--")
        axes.plot(*places, color=BLUE, linewidth=1)
        axes.scatter(*places, s=[8 + 150 * part.rows / total for part in bins], color=BLUE, alpha=0.7)
        error = format_score(entry.calibration.expected_calibration_error)
        axes.set_title("\n".join([*wrap(entry.system, 24), f"ECE {error}"]), fontsize=9)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.tick_params(labelsize=8)
        _show_grid(axes, "both")
    return Picture(
        f"reliability_{protocol}",
        figure,
        f"Reliability, protocol {protocol}: below the dashed line a system is surer than it is right. The larger a "
        "point, the more rows it stands for. ECE: expected calibration error.",
        "Share of right answers against their probability, a panel for each system",
    )


def _grid(number: int, num_columns: int, xlabel: str, ylabel: str) -> tuple[list[Axes], Figure]:
    """Panels in rows, each a little higher than wide for its title."""
    num_rows = -(-number // num_columns)
    figure = new_figure(WIDTH, num_rows * 1.12 * WIDTH / num_columns + 0.8)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes in panels[number:]:
        axes.remove()
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return panels[:number], figure


def _draw_interval(axes: Axes, entry: Estimate | Difference, place: float, **style) -> None:
    """A point with its error bar, in the row at a place; a percentile interval may lie beside its value."""
    errors = None
    if entry.low is not None and not np.isnan([entry.low, entry.high]).any():
        errors = np.maximum([[entry.value - entry.low], [entry.high - entry.value]], 0)
    axes.errorbar(entry.value, place, xerr=errors, capsize=3, markersize=6, **style)


def _add_legend(figure: Figure, styles: dict[str, dict], **where) -> None:
    """A legend from the name of each line or point and how it is drawn."""
    handles = [Line2D([], [], **{**style, "label": name}) for name, style in styles.items()]
    figure.legend(handles=handles, **{"loc": "outside upper right", "ncols": len(handles), "frameon": False, **where})


def _lines(name: str) -> list[str]:
    """A name that may have lines of its own, each wrapped."""
    return [line for part in name.split("\n") for line in wrap(part, NAME_WIDTH)]


def _height_of_rows(names: Iterable[str]) -> float:
    """Inches that rows with these names need."""
    heights = [0.14 + 0.15 * len(_lines(name)) for name in names]
    return len(heights) * max(heights)


def _name_wrapped(axes: Axes, names: Iterable[str]) -> None:
    name_rows(axes, ["\n".join(_lines(name)) for name in names])
    _show_grid(axes, "x")


def _show_grid(axes: Axes, axis: str) -> None:
    axes.grid(axis=axis, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
