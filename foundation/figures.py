"""What all pictures share: colours, a figure without pyplot, and fonts that have every letter that is drawn.
Without pyplot, pictures may be drawn in any thread."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.image import AxesImage
from matplotlib.text import Text

from foundation.files import writing_whole
from foundation.words import writable


logger = logging.getLogger(__name__)

# Of Okabe and Ito, which the colour-blind can tell apart.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
INK, PALE = "#333333", "#BBBBBB"

DEFAULT = "DejaVu Sans"
# Of Hangul, Kana and Hanzi: the font that requirements.txt brings along, then those of Linux, Windows and macOS. All
# others are tried after them.
PREFERRED = ("Noto Sans CJK JP", "Noto Sans CJK KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")
FONT_PACKAGE = "noto_cjk_sans_otc"
# Fonts that have a box for every letter there is.
BOXES = ("Last Resort", "LastResort")


@dataclass
class Picture:
    """A drawing, its numbers in words, and what it looks like for those who don't see it."""

    name: str
    figure: Figure
    caption: str
    alt: str


class WrittenFigure(Figure):
    """A figure whose writing, in whatever script, is drawn in fonts that have its letters, and as it is: no `$` begins
    mathematics."""

    def draw(self, renderer) -> None:
        self.choose_fonts()
        super().draw(renderer)

    def savefig(self, file, **options) -> None:
        """To a stream, or to a file as [`writing_whole`] says."""
        with writing_whole(Path(file)) if isinstance(file, (str, Path)) else nullcontext(file) as target:
            super().savefig(target, **options)

    def choose_fonts(self) -> None:
        """Done by itself before drawing; writing can be measured after it."""
        for axes in (axes for axes in self.axes if axes.axison):
            # Names are put down when they are asked for.
            axes.get_xticklabels()
            axes.get_yticklabels()
        texts = self.findobj(Text)
        families = families_for("".join(text.get_text() for text in texts))
        for text in texts:
            text.set_parse_math(False)
            if not text.get_text().isascii():
                text.set_fontfamily(families)


def new_figure(width: float, height: float) -> WrittenFigure:
    """An empty figure of that many inches, whose parts make room for each other."""
    figure = WrittenFigure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    return figure


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_counts(
    axes: Axes, counts: np.ndarray, shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], fontsize: float
) -> AxesImage:
    """A matrix of counts, or of their means, in cells as dark as their shares, 0 to 1; what is masked stays empty."""
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ma.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else INK if count else PALE
        text = f"{count:.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"
        number = axes.text(column, row, text, ha="center", va="center", color=color, fontsize=fontsize)
        # None goes beyond its panel, and measuring hundreds of them would take most of the time.
        number.set_in_layout(False)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    return image


@cache
def families_for(text: str) -> list[str]:
    """Names of installed fonts for matplotlib, which takes each letter of the text from the first of them that has it.
    Letters that no font has are named in the log, once for a text, and drawn as boxes."""
    lacking = {letter for letter in text if not letter.isspace()}
    families = []
    for name, file in _fonts().items():
        if name == DEFAULT or lacking & _letters(file):
            families.append(name)
            lacking -= _letters(file)
        if not lacking:
            return families
    logger.warning(
        f"No installed font has {writable(''.join(sorted(lacking)))}, drawn as boxes; install one that has, or for "
        "Korean, Japanese and Chinese pip install noto-cjk-sans-otc"
    )
    return families


@cache
def _fonts() -> dict[str, str]:
    """Name → file of every font, preferred ones first; the weights and slants of a family have the same letters."""
    package = find_spec(FONT_PACKAGE)
    if package is not None:
        for file in Path(package.origin).parent.glob("*.ttc"):
            font_manager.fontManager.addfont(file)
    files = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    names = [DEFAULT, *PREFERRED, *sorted(name for name in files if not name.startswith(BOXES))]
    return {name: files[name] for name in names if name in files}


@cache
def _letters(path: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(path).get_charmap()))
