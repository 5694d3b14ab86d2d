"""The pictures of the report, each of one protocol: scores, differences, confusion matrices, curves, cost.
Names may be long, so rows are as high as theirs, and whatever has no row of its own is wrapped or numbered."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from experiments.results import PAPER, SESSION, Difference, LearningCurve, Results
from experiments.tables import (
    MINUS,
    SINGLE_MODALITIES,
    find_difference,
    find_protocols,
    find_scores,
    find_system,
    format_score,
    is_fusion,
    is_significant,
)
from foundation.figures import BLUE, GREEN, GREY, INK, VERMILLION, Picture, families_for
from metrics.scores import LEADING, SCORES


WIDTH = 9.0  # inches: shown 900 pixels wide, writing of 9 points is 12 pixels high
DPI = 140
# More pairs are only listed, and the picture has each fusion against two systems.
MOST_PAIRS = 15
MOST_MARKERS = 30
NAME_WIDTH = 34  # letters of a line
STYLES = {SESSION: {"color": BLUE, "marker": "o"}, PAPER: {"color": VERMILLION, "marker": "^"}}


@contextmanager
def writing(results: Results) -> Iterator[None]:
    """Fonts that have the letters of all names, and no `$` that is taken for mathematics."""
    names = "".join([*results.label_names, *(system.name for system in results.systems)])
    with matplotlib.rc_context({"font.family": families_for(names), "text.parse_math": False, "font.size": 9}):
        yield


def draw_scores(results: Results) -> Picture | None:
    """Macro F1 of each system, with its interval, under each protocol."""
    names = [system.name for system in results.systems if any(entry.system == system.name for entry in results.scores)]
    if not names:
        return None
    figure = _figure(_height_of_rows(names) + 0.9)
    axes, protocols = figure.subplots(), find_protocols(results)
    for index, protocol in enumerate(protocols):
        for entry in find_scores(results, protocol):
            place = names.index(entry.system) + (index - (len(protocols) - 1) / 2) * 0.25
            estimate = entry.estimates[LEADING]
            errors = _errors(estimate.value, estimate.low, estimate.high)
            axes.errorbar(estimate.value, place, xerr=errors, capsize=3, markersize=6, **STYLES[protocol])
    handles = [Line2D([], [], linestyle="", label=protocol, **STYLES[protocol]) for protocol in protocols]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    _name_rows(axes, names)
    axes.set_xlabel("macro F1, with its 95 % interval")
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
    heights = [_height_of_rows([name for name, _ in rows]) + 0.5 for rows in panels.values()]
    figure = _figure(sum(heights) + 0.8)
    for axes, (title, rows) in zip(_column(figure, len(panels), height_ratios=heights, sharex=True), panels.items()):
        for place, (_, difference) in enumerate(rows):
            surely = is_significant(difference)
            style = {"color": VERMILLION, "marker": "o"} if surely else {"color": GREY, "marker": "D", "mfc": "white"}
            errors = _errors(difference.value, difference.low, difference.high)
            axes.errorbar(difference.value, place, xerr=errors, capsize=3, markersize=6, **style)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_title(title, fontsize=10, loc="left")
        _name_rows(axes, [name for name, _ in rows])
    axes.set_xlabel("difference in macro F1, with its 95 % interval")
    handles = [
        Line2D([], [], color=VERMILLION, marker="o", label="p (Holm) < .05"),
        Line2D([], [], color=GREY, marker="D", mfc="white", label="not significant"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    number = sum(is_significant(difference) for rows in panels.values() for _, difference in rows)
    return Picture(
        f"differences_{protocol}",
        figure,
        f"Differences in macro F1, protocol {protocol}. {number or 'None'} of those shown "
        f"{'is' if number in (0, 1) else 'are'} significant after Holm's correction (filled circles).",
        "Forest plot: points with error bars about a line at zero",
    )


def _forest(results: Results, protocol: str) -> dict[str, list[tuple[str, Difference]]]:
    """Rows of each panel by its title, the largest difference first."""
    pairs = [entry for entry in results.comparisons if entry.protocol == protocol and LEADING in entry.differences]
    if len(pairs) <= MOST_PAIRS:
        rows = [(f"{pair.first}\n{MINUS} {pair.second}", pair.differences[LEADING]) for pair in pairs]
        return {"first − second": rows} if rows else {}
    panels = {}
    for reference in find_references(results, protocol):
        rows = [
            (entry.system, difference)
            for entry in find_scores(results, protocol)
            if is_fusion(find_system(results, entry.system)) and entry.system != reference
            if (difference := find_difference(results, protocol, entry.system, reference)) is not None
        ]
        if rows:
            panels[f"fusion {MINUS} {reference}"] = sorted(rows, key=lambda row: -row[1].value)
    return panels


def find_references(results: Results, protocol: str) -> list[str]:
    """The system that is best in macro F1 with one modality, and the one that is with both."""
    ranked = sorted(find_scores(results, protocol), key=lambda entry: -entry.estimates[LEADING].value)
    systems = [find_system(results, entry.system) for entry in ranked]
    single = [system.name for system in systems if system.fusion in SINGLE_MODALITIES]
    return [*single[:1], *[system.name for system in systems if is_fusion(system)][:1]]


def draw_confusion_matrices(results: Results, protocol: str) -> Picture | None:
    """Counts per pair of true and predicted class, side by side, coloured by their share of the true class."""
    scores, labels = find_scores(results, protocol), results.label_names
    if not scores:
        return None
    panels, figure = _grid(len(scores), num_columns=3 if len(labels) <= 8 else 2, aspect=1.12)
    for axes, entry in zip(panels, scores):
        matrix = np.array(entry.confusion_matrix, dtype=float)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if shares[row, column] > 0.5 else INK if count else "#BBBBBB"
            text = f"{count:.0f}" if count >= 100 or count.is_integer() else f"{count:.1f}"
            size = min(8, 50 / len(labels))
            number = axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
            # Measuring hundreds of them would take most of the time, and none goes beyond its panel.
            number.set_in_layout(False)
        known = int((matrix.sum(axis=0) > 0).sum())
        title = "\n".join([*wrap(entry.system, NAME_WIDTH), f"predicts {known} of {len(labels)} classes"])
        is_blind = known < len(labels)
        axes.set_title(
            title, fontsize=9, color=VERMILLION if is_blind else INK, fontweight="bold" if is_blind else "normal"
        )
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=figure.axes, location="top", shrink=0.5, aspect=40)
    bar.set_label("share of the true class")
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return Picture(
        f"confusion_{protocol}",
        figure,
        f"Confusion matrices, protocol {protocol}: rows of all folds, means over the seeds; true classes in rows, "
        "predicted ones in columns. In bold, systems that never predict some class.",
        "Confusion matrices, one for each system",
    )


def draw_flattery(results: Results) -> Picture | None:
    """From the paper's protocol to the fair one, in each score that was compared."""
    scores = [name for name in SCORES if any(entry.score == name for entry in results.flattery)]
    names = [system.name for system in results.systems if any(e.system == system.name for e in results.flattery)]
    if not scores or not names:
        return None
    figure = _figure(_height_of_rows(names) + 0.9)
    points = {
        "session": {"color": BLUE, "marker": "o", "label": "session"},
        "last_epoch": {"color": GREEN, "marker": "s", "label": "paper: last epoch"},
        "best_epoch": {"color": VERMILLION, "marker": "^", "label": "paper: best epoch"},
    }
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, scores):
        for entry in results.flattery:
            if entry.score != score or entry.system not in names:
                continue
            place = names.index(entry.system)
            values = {name: getattr(entry, name) for name in points if getattr(entry, name) is not None}
            axes.plot([min(values.values()), max(values.values())], [place] * 2, color="#BBBBBB", linewidth=3, zorder=1)
            for name, value in values.items():
                axes.scatter(value, place, s=45, zorder=2, **points[name])
        axes.set_xlabel(SCORES[score].short)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _name_rows(axes, names)
    handles = [Line2D([], [], linestyle="", **style) for style in points.values()]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    return Picture(
        "flattery",
        figure,
        "What the paper's protocol adds: from folds of sessions to a random split, and from its last epoch to the one "
        "that is best on the reported rows.",
        "Dumbbells: three points on a line, a row for each system",
    )


def draw_learning_curves(results: Results, protocol: str) -> Picture | None:
    """Loss and macro F1 by epoch, two panels for each system."""
    scores = [entry for entry in find_scores(results, protocol) if entry.curve is not None and entry.curve.epochs]
    if not scores:
        return None
    num_rows = -(-len(scores) // 2)
    figure = _figure(2.0 * num_rows + 0.5)
    grid = figure.subplots(num_rows, 4, squeeze=False)
    for index, entry in enumerate(scores):
        loss, score = grid[index // 2, 2 * (index % 2) : 2 * (index % 2) + 2]
        _draw_curve(loss, entry.curve, {"training_loss": (GREY, "-"), "loss": (BLUE, "--")})
        _draw_curve(score, entry.curve, {"macro_f1": (VERMILLION, "-"), "weighted_f1": (GREEN, ":")})
        score.set_ylim(0, 1)
        loss.set_title("\n".join(wrap(entry.system, NAME_WIDTH)), fontsize=9, loc="left")
        loss.set_ylabel("loss", fontsize=8)
        score.set_ylabel("F1", fontsize=8)
    for axes in grid.flat[2 * len(scores) :]:
        axes.set_axis_off()
    names = {"training loss": (GREY, "-"), "loss": (BLUE, "--"), "macro F1": (VERMILLION, "-")}
    names["weighted F1"] = (GREEN, ":")
    handles = [Line2D([], [], color=color, linestyle=style, label=name) for name, (color, style) in names.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=4, frameon=False)
    figure.supxlabel("epoch", fontsize=9)
    parts = " and ".join(sorted({entry.curve.compared_on for entry in scores}))
    told = f"on the rows that epochs are compared on, the {parts} part"
    if any(entry.curve.compared_on == "test" for entry in scores):
        told += " (the reported rows themselves)"
    return Picture(
        f"learning_curves_{protocol}",
        figure,
        f"Learning curves, protocol {protocol}, means over the runs: the training loss; the other loss and both F1 are "
        f"{told}.",
        "Curves of loss and F1 against the epoch, two panels for each system",
    )


def _draw_curve(axes: Axes, curve: LearningCurve, lines: dict[str, tuple[str, str]]) -> None:
    for name, (color, style) in lines.items():
        points = [point for point in zip(curve.epochs, getattr(curve, name)) if point[1] is not None]
        if points:
            marker = "o" if len(points) <= MOST_MARKERS else ""
            axes.plot(*zip(*points), color=color, linestyle=style, marker=marker, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(labelsize=8)
    _plain(axes, "both")


def draw_reliability(results: Results, protocol: str) -> Picture | None:
    """How often an answer is right that is given with a certain probability."""
    scores = [entry for entry in find_scores(results, protocol) if entry.calibration is not None]
    if not scores:
        return None
    panels, figure = _grid(len(scores), num_columns=4, aspect=1.12)
    for axes, entry in zip(panels, scores):
        bins = [part for part in entry.calibration.bins if part.rows and part.confidence is not None]
        total = max(sum(part.rows for part in bins), 1)
        places = [[part.confidence for part in bins], [part.accuracy for part in bins]]
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1, linestyle="--")
        axes.plot(*places, color=BLUE, linewidth=1)
        axes.scatter(*places, s=[8 + 150 * part.rows / total for part in bins], color=BLUE, alpha=0.7)
        error = format_score(entry.calibration.expected_calibration_error)
        axes.set_title("\n".join([*wrap(entry.system, 24), f"ECE {error}"]), fontsize=9)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.tick_params(labelsize=8)
        _plain(axes, "both")
    figure.supxlabel("probability of the answer", fontsize=9)
    figure.supylabel("share that is right", fontsize=9)
    return Picture(
        f"reliability_{protocol}",
        figure,
        f"Reliability, protocol {protocol}: below the dashed line a system is surer than it is right. The larger a "
        "point, the more rows it stands for. ECE: expected calibration error.",
        "Share of right answers against their probability, a panel for each system",
    )


def draw_cost(results: Results, protocol: str) -> Picture | None:
    """What a run takes against what it reaches."""
    scores = [entry for entry in find_scores(results, protocol) if entry.cost is not None]
    if not scores:
        return None
    # Names lie below, in two columns, since points of equal cost are above each other.
    figure = _figure(3.6 + 0.19 * -(-len(scores) // 2))
    panels = {
        "parameters": [entry.cost.parameters for entry in scores],
        "seconds": [entry.cost.seconds for entry in scores],
        "peak memory (GiB)": [entry.cost.peak_memory_bytes / 2**30 for entry in scores],
    }
    ranked = sorted(range(len(scores)), key=lambda index: scores[index].estimates[LEADING].value)
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels.items()):
        for index in ranked:
            estimate = scores[index].estimates[LEADING]
            color = VERMILLION if is_fusion(find_system(results, scores[index].system)) else BLUE
            errors = _errors(estimate.value, estimate.low, estimate.high)
            axes.errorbar(values[index], estimate.value, yerr=errors, fmt="o", markersize=5, capsize=2, color=color)
        axes.margins(x=0.2)
        heights = [entry.estimates[LEADING].value for entry in scores]
        for side in (0, 1):
            _number_points(axes, ranked[side::2], values, heights, on_the_right=bool(side))
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(title)
        _plain(axes, "both")
    figure.axes[0].set_ylabel("macro F1")
    handles = [
        Line2D([], [], linestyle="", label=f"{index + 1}  {_line(entry.system)}") for index, entry in enumerate(scores)
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, handlelength=0, frameon=False, fontsize=9)
    return Picture(
        f"cost_{protocol}",
        figure,
        f"Cost of a run against macro F1, protocol {protocol}, with 95 % intervals. Fusions are red, the rest is blue.",
        "Points with error bars against parameters, seconds and memory",
    )


def _number_points(axes: Axes, points: list[int], x: list[float], y: list[float], on_the_right: bool) -> None:
    """Numbers beside points that go upwards, each at least a line above the last, with a line to its point."""
    low, high = axes.get_ylim()
    per_point = (high - low) / 180  # the panel is about 180 points high
    height = -np.inf
    for point in points:
        height = max(y[point], height + 9 * per_point)
        axes.annotate(
            f"{point + 1}",
            (x[point], y[point]),
            (14 if on_the_right else -14, (height - y[point]) / per_point),
            textcoords="offset points",
            ha="left" if on_the_right else "right",
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2},
        )


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    return figure


def _grid(number: int, num_columns: int, aspect: float) -> tuple[list[Axes], Figure]:
    """Panels in rows, each `aspect` times as high as wide."""
    num_rows = -(-number // num_columns)
    figure = _figure(num_rows * aspect * WIDTH / num_columns + 0.8)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes in panels[number:]:
        axes.remove()
    return panels[:number], figure


def _column(figure: Figure, number: int, **options) -> list[Axes]:
    return list(figure.subplots(number, squeeze=False, **options)[:, 0])


def _lines(name: str) -> list[str]:
    """A name that may have lines of its own, each wrapped."""
    return [line for part in name.split("\n") for line in wrap(part, NAME_WIDTH)]


def _line(name: str) -> str:
    """A name in one line, its middle left out where it would be cut off."""
    return name if len(name) <= 60 else f"{name[:40]} … {name[-17:]}"


def _height_of_rows(names: list[str]) -> float:
    """In inches."""
    return sum(0.14 + 0.15 * max(len(_lines(name)) for name in names) for _ in names)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), ["\n".join(_lines(name)) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    _plain(axes, "x")


def _plain(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color="#DDDDDD")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _errors(value: float, low: float | None, high: float | None) -> np.ndarray | None:
    """Lengths of both halves of an error bar; a percentile interval may lie beside its value."""
    if low is None or high is None:
        return None
    return np.maximum([[value - low], [high - value]], 0)


def render(figure: Figure, file) -> None:
    """A PNG that is the same byte for byte whenever the figure is."""
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
