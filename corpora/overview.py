"""Pictures of a prepared dataset and a page that shows them: labels, durations, agreement of raters, sessions.
What a corpus doesn't have is left out. Recordings are never read."""

import base64
from pathlib import Path

import numpy as np
import pandas
from datasets import DatasetDict
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from corpora import EMOTIONS
from corpora.columns import TIE, UNLABELLED, read_table, sizes, vote_entropy
from foundation.figures import INK, Picture, name_rows, new_figure
from foundation.files import write_whole
from foundation.templates import fill_template
from foundation.words import time_in_words, with_share


PAGE_FILE = "index.html"
TEMPLATE = Path(__file__).with_name("overview.html.jinja")
WIDTH = 5.2  # inches, at which writing of 9 points can still be read on a phone
DPI = 160
MOST_LABELS, LABEL_WIDTH = 50, 40  # more can't be told apart, longer ones leave no room
DEFAULT_CROP = 6.0  # seconds; the default of run_classification.py's --max_audio_seconds

# Colours of Okabe and Ito, which the colour-blind can tell apart. An emotion has the same one in every picture.
COLORS = dict(zip(EMOTIONS, ("#999999", "#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73")))
MORE_COLORS = ("#E69F00", "#000000")
HATCHES = ("", "xx", "oo", "++", "**")
PLAIN = {"color": "#C8C8C8", "edgecolor": INK, "linewidth": 0.5}


def draw_report(dataset: DatasetDict, folder: str | Path, title: str) -> list[Path]:
    """Draw what a dataset holds: gives the PNG files and, last, the page `index.html`, which needs no other file."""
    rows = _with_names_to_draw(read_table(dataset))
    pictures = [picture for draw in PICTURES if (picture := draw(rows)) is not None]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{picture.name}.png" for picture in pictures]
    for picture, file in zip(pictures, files):
        picture.figure.savefig(file, dpi=DPI, facecolor="white")
    encoded = [base64.b64encode(file.read_bytes()).decode("ascii") for file in files]
    page = fill_template(TEMPLATE, title=title, sizes=", ".join(sizes(rows)), pictures=list(zip(pictures, encoded)))
    write_whole(folder / PAGE_FILE, page)
    return [*files, folder / PAGE_FILE]


def _with_names_to_draw(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The same rows with labels that fit a picture: of many the most frequent ones, and none too long."""
    names, frequent = rows["label"].cat.categories, set(rows["label"].value_counts().index[:MOST_LABELS])
    others = f"({len(names) - MOST_LABELS} other labels)"
    # With its number, so that two that begin alike stay two.
    shown = {name: f"{name[:LABEL_WIDTH]} ... {i}" if name[LABEL_WIDTH:] else name for i, name in enumerate(names)}
    shown |= {name: others for name in names if name not in frequent}
    labels = pandas.Categorical(rows["label"].map(shown), categories=list(dict.fromkeys(shown.values())))
    return rows.assign(label=labels)


def draw_labels(rows: pandas.DataFrame) -> Picture:
    """Rows per label, in each split."""
    counts = pandas.crosstab(rows["label"], rows["split"], dropna=False)
    num_labels, num_splits = counts.shape
    figure = new_figure(WIDTH, 0.7 + num_splits * (0.4 + 0.27 * num_labels))
    panels = figure.subplots(num_splits, sharex=True, squeeze=False)[:, 0]
    styles, phrases = _styles(counts.index), []
    for axes, split in zip(panels, counts):
        total = counts[split].sum()
        texts = {label: with_share(count, total) for label, count in counts[split].items()}
        for place, (label, count) in enumerate(counts[split].items()):
            axes.barh(place, count, **styles[label])
            axes.annotate(texts[label], (count, place), (3, 0), textcoords="offset points", va="center", fontsize=9)
        name_rows(axes, counts.index)
        axes.margins(x=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_title(f"{split}: {total:,} rows", fontsize=10, loc="left")
        phrases.append(f"{split}: {', '.join(f'{label} {text}' for label, text in texts.items())}")
    panels[-1].set_xlabel("rows")
    return Picture("labels", figure, f"Rows per label. {'; '.join(phrases)}.", "Bars, one for each label")


def draw_durations(rows: pandas.DataFrame) -> Picture | None:
    """Lengths of the clips, and how many of them training cuts by default."""
    if "duration" not in rows:
        return None
    seconds = rows["duration"].dropna().to_numpy()
    # A few very long clips would squeeze all others into the first bar.
    last = max(min(seconds.max(), 2 * np.quantile(seconds, 0.99, method="lower")), 1.05 * DEFAULT_CROP)
    figure = new_figure(WIDTH, 3.2)
    axes = figure.subplots()
    axes.hist(seconds.clip(max=last), bins=40, range=(0, last), **PLAIN)
    over = with_share((seconds > DEFAULT_CROP).sum(), len(seconds))
    axes.axvline(DEFAULT_CROP, color="#D55E00", linestyle="--")
    axes.set_title(f"{over} of the clips are longer than {DEFAULT_CROP:g} s", fontsize=10)
    axes.set(xlabel="seconds", ylabel="clips", xlim=(0, last))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    beyond = (seconds > last).sum()
    caption = (
        f"Durations. {len(seconds):,} clips of {seconds.min():.2f} to {seconds.max():.2f} s, mean "
        f"{seconds.mean():.2f}, median {np.median(seconds):.2f}, together {time_in_words(seconds.sum())}. "
        f"{over} are longer than {DEFAULT_CROP:g} s (dashed), to which training cuts clips unless --max_audio_seconds "
        f"says otherwise.{f' {beyond:,} longer than {last:.1f} s are in the last bar.' if beyond else ''}"
    )
    return Picture("durations", figure, caption, "Histogram of seconds with a dashed line at the default cut")


def draw_entropy(rows: pandas.DataFrame) -> Picture | None:
    """How far the raters of an utterance disagree, for each label."""
    if "votes" not in rows:
        return None
    votes = np.stack(rows["votes"].to_list())  # (N, C)
    rated = votes.sum(axis=1) > 0
    entropies = pandas.Series(vote_entropy(votes[rated]))
    groups = {label: values for label, values in entropies.groupby(rows["label"][rated].to_numpy(), observed=True)}
    labels = [label for label in rows["label"].cat.categories if label in groups]
    if not labels:
        return None
    num_lines = -(-len(labels) // 2)
    figure = new_figure(WIDTH, 0.6 + 1.35 * num_lines)
    panels = figure.subplots(num_lines, 2, sharex=True, sharey=True, squeeze=False).flatten()
    styles, most = _styles(rows["label"].cat.categories), max(np.log2(votes.shape[1]), 1.0)
    for axes, label in zip(panels, labels):
        values = groups[label]
        axes.hist(values, bins=14, range=(0, most), weights=np.full(len(values), 1 / len(values)), **styles[label])
        axes.axvline(values.mean(), color="black", linestyle=":")
        axes.set_title(f"{label} ({len(values):,}), mean {values.mean():.2f}", fontsize=9)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    figure.supxlabel("bits", fontsize=10)
    figure.supylabel("share of the label's rows", fontsize=10)
    means = ", ".join(f"{label} {groups[label].mean():.2f}" for label in labels)
    caption = (
        "Disagreement of the raters: entropy of their votes on an utterance, 0 bits where all agree, at most "
        f"{np.log2(votes.shape[1]):.2f} with {votes.shape[1]} labels. The mean is {entropies.mean():.2f}, and "
        f"in {with_share((entropies == 0).sum(), len(entropies))} all agree. Mean per label (dotted): {means}."
    )
    if not rated.all():
        caption += f" {(~rated).sum():,} rows without votes are left out."
    return Picture("votes_entropy", figure, caption, "Histograms of entropy in bits, one for each label")


def draw_sessions(rows: pandas.DataFrame) -> Picture | None:
    """Shares of the labels in each session, beside its number of rows."""
    if "session" not in rows:
        return None
    counts = pandas.crosstab(rows["session"], rows["label"], dropna=False)
    counts = counts[counts.index.notna()]
    totals = counts.sum(axis=1)
    figure = new_figure(WIDTH, 1.6 + min(max(0.2 * len(counts), 0.8), 12))
    shares_axes, rows_axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    styles = _styles(counts.columns)
    for label, style in styles.items():
        shares = (counts[label] / totals).to_numpy()
        there = shares > 0
        shares_axes.barh(places[there], shares[there], left=left[there], height=0.9, **style)
        left += shares
    rows_axes.barh(places, totals, height=0.9, **PLAIN)
    # No more names than there is room for.
    every = -(-len(counts) // 60)
    shares_axes.set_yticks(places[::every], [f"{name}"[:LABEL_WIDTH] for name in counts.index[::every]], fontsize=8)
    shares_axes.invert_yaxis()
    shares_axes.set(xlim=(0, 1), ylabel="session", xlabel="share of the session's rows")
    shares_axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    rows_axes.set(xlabel="rows")
    rows_axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    for axes in (shares_axes, rows_axes):
        axes.margins(y=0.01)
        axes.spines[["top", "right"]].set_visible(False)
    columns = max(1, 50 // (6 + max(map(len, counts.columns))))
    handles = [Patch(label=f" {label}", **style) for label, style in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, fontsize=9)
    fewest, most = (f"{totals[which]:,} (session {which})" for which in (totals.idxmin(), totals.idxmax()))
    each = f"{fewest} to {most} rows" if totals.min() < totals.max() else f"{totals.min():,} rows each"
    absent = {label: (counts[label] == 0).sum() for label in counts if label not in (TIE, UNLABELLED)}
    lacking = ", ".join(f"{number:,} without {label}" for label, number in absent.items() if number) or "none"
    caption = f"Sessions. {len(counts):,} of {each}. Sessions without a label: {lacking}."
    if rows["session"].isna().any():
        caption += f" {rows['session'].isna().sum():,} rows belong to no session."
    return Picture("sessions", figure, caption, "Stacked bars of label shares, one for each session, and its rows")


PICTURES = (draw_labels, draw_durations, draw_entropy, draw_sessions)


def _styles(labels: pandas.Index) -> dict[str, dict]:
    """How to fill the bars of each label; classes other than the emotions get what is left, then hatches too."""
    free = [*MORE_COLORS, *(color for name, color in COLORS.items() if name not in labels)]
    looks = {name: (color, "") for name, color in COLORS.items()} | {TIE: ("#FFFFFF", "////")}
    looks |= {UNLABELLED: ("#FFFFFF", "....")}
    for index, label in enumerate([label for label in labels if label not in looks]):
        looks[label] = free[index % len(free)], HATCHES[index // len(free) % len(HATCHES)]
    line = {"edgecolor": INK, "linewidth": 0.5}
    return {label: line | dict(zip(("facecolor", "hatch"), looks[label])) for label in labels}
