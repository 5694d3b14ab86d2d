"""What all pictures share: colours, a figure without pyplot, and fonts that have Hangul, Kana and Hanzi too.
Without pyplot, pictures may be drawn in any thread."""

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
from matplotlib.image import AxesImage
from matplotlib.text import Text

from foundation.files import writing_whole


# Of Okabe and Ito, which the colour-blind can tell apart.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#777777"
INK, PALE = "#333333", "#BBBBBB"

DEFAULT = "DejaVu Sans"
# Of Hangul, Kana and Hanzi: the font that requirements.txt brings along, then those of Linux, Windows and macOS.
PREFERRED = ("Noto Sans CJK JP", "Noto Sans CJK KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")
FONT_PACKAGE = "noto_cjk_sans_otc"


@dataclass
class Picture:
    """A drawing, its numbers in words, and what it looks like for those who don't see it."""

    name: str
    figure: Figure
    caption: str
    alt: str


class WrittenFigure(Figure):
    """A figure whose writing, also Korean, Japanese and Chinese, is drawn in fonts that have its letters, and as it is:
    no `$` begins mathematics."""

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
        for text in self.findobj(Text):
            text.set_parse_math(False)
            if not text.get_text().isascii():
                text.set_fontfamily(_families())


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
def _families() -> list[str]:
    """Names of installed fonts for matplotlib, which takes each letter from the first of them that has it."""
    if (package := find_spec(FONT_PACKAGE)) is not None:
        for file in Path(package.origin).parent.glob("*.ttc"):
            font_manager.fontManager.addfont(file)
    return [DEFAULT, *(name for name in PREFERRED if name in font_manager.get_font_names())]
