"""
Draw RSA-CFN, every part under its name in the code and with its default size.

```bash
python -m scripts.draw_architecture --output docs/rsa_cfn.png
```
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from foundation.errors import OneLineParser, run_script
from foundation.files import writing_whole
from scripts.fusion_table import full_size_config


EDGE = "#444444"
HALF = 0.43  # of a box's height


def modality_parts(modality: str, config) -> list[tuple[str, str, str]]:
    """From its input to the vector that meets the other modality: each part's name, formula, and shape handed on."""
    is_audio = modality == "audio"
    vector, projected, result = "aph" if is_audio else "tqg"
    size, projection_size = getattr(config, f"{modality}_config").hidden_size, config.projection_size
    inputs, length = ("samples", "frames") if is_audio else ("tokens", "tokens")
    attention = rf"\mathrm{{SA}}_{{{config.cross_attention_size}}}({projected})"
    projection = rf"{projected} = \mathrm{{Linear}}_{{{size}\to {projection_size}}}({vector})"
    normed, shape = rf"{result} = \mathrm{{LayerNorm}}({attention} + {projected})", f"(B, {projection_size})"
    return [
        ("input_values" if is_audio else "input_ids", f"{modality} of an utterance", f"(B, {inputs})"),
        (f"{modality}_model", "wav2vec 2.0 encoder" if is_audio else "RoBERTa encoder", f"(B, {length}, {size})"),
        ("pool", f"${vector}$ = mean over valid {length}", f"(B, {size})"),
        (f"{modality}_projection", f"${projection}$", shape),
        (f"{modality}_attention, {modality}_norm", f"${normed}$", shape),
    ]


def joint_parts(config) -> list[tuple[str, str, str]]:
    """The parts behind the two modalities, as in `modality_parts`."""
    size, residual_size = (config.projection_size + 1) ** 2, config.cross_residual_size
    wide, narrow = f"(B, {size:,})", f"(B, {residual_size})"

    def activated(inputs: int, outputs: int, argument: str) -> str:
        linear = rf"\mathrm{{Linear}}_{{{inputs}\to {outputs}}}({argument})"
        return rf"\mathrm{{dropout}}(\mathrm{{ReLU}}({linear}))"

    logits = rf"\mathrm{{Linear}}_{{{residual_size}\to {config.num_labels}}}(z)"
    return [
        ("cross_features", r"$X = \mathrm{flatten}([1;h]\otimes[1;g])$", ""),
        ("cross_network.residual.dense", f"$r = {activated(size, residual_size, 'X')}$", narrow),
        ("cross_network.residual.output", f"$s = {activated(size + residual_size, size, '[X;r]')}$", wide),
        ("skip", "$y = X + s$", wide),
        ("cross_network.dense", f"$z = {activated(size, residual_size, 'y')}$", narrow),
        ("classifier_head", f"${logits}$", ""),
    ]


def draw_column(axes: Axes, x: float, heights: list[float], parts, color: str, width: float) -> None:
    """Boxes under each other, with arrows and the shapes of what flows along them."""
    for index, (y, (name, formula, _)) in enumerate(zip(heights, parts)):
        corner, style = (x - width / 2, y - HALF), "round,pad=0,rounding_size=0.12"
        axes.add_patch(FancyBboxPatch(corner, width, 2 * HALF, style, facecolor=color, edgecolor=EDGE))
        axes.text(x, y + 0.2, name, ha="center", va="center", family="monospace", weight="bold", size=9.5)
        axes.text(x, y - 0.17, formula, ha="center", va="center", size=10.5)
        if index:
            above = heights[index - 1] - HALF
            draw_line(axes, (x, above), (x, y + HALF))
            axes.text(x + 0.12, (above + y + HALF) / 2, parts[index - 1][2], va="center", size=9, color=EDGE)


def draw_line(axes: Axes, *points: tuple[float, float]) -> None:
    """A line through points, with an arrow at its end."""
    axes.plot(*zip(*points[:-1]), color=EDGE, linewidth=1)
    axes.annotate(
        "", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0}
    )


def draw(output: str) -> None:
    """Save the diagram as an image; the ending of `output` is its format."""
    config = full_size_config("rsa_cfn")
    figure = Figure(figsize=(9.2, 12.6))
    axes = figure.subplots()
    axes.set(xlim=(0, 11), ylim=(0.2, 15.6), aspect="equal")
    axes.axis("off")
    upper, lower = [15.0 - 1.38 * index for index in range(5)], [7.75 - 1.34 * index for index in range(6)]
    middle, half_width, parts = 5.5, 2.9, joint_parts(config)
    draw_column(axes, middle, lower, parts, "#e5f0dc", 2 * half_width)
    for modality, x, color, side in (("audio", 2.6, "#dcebf7", -1), ("text", 8.4, "#fbe6d4", 1)):
        draw_column(axes, x, upper, modality_parts(modality, config), color, 4.6)
        # Down to the level of the cross features, then in from the side.
        edge, out, bottom = middle + side * half_width, middle + side * (half_width + 0.75), upper[-1] - HALF
        draw_line(axes, (out, bottom), (out, lower[0]), (edge, lower[0]))
        place, alignment = (out + 0.12 * side, bottom - 0.3), "right" if side < 0 else "left"
        axes.text(*place, f"(B, {config.projection_size})", ha=alignment, size=9, color=EDGE)
    # X passes r and s on the right: joined to r before s, and added to it after.
    edge, bus, start = middle + half_width, middle + half_width + 0.7, lower[0] - HALF - 0.12
    for level in (lower[2], lower[3]):
        draw_line(axes, (middle, start), (bus, start), (bus, level), (edge, level))
    axes.text(bus + 0.12, lower[1], f"$X$ {parts[2][2]}", size=9, va="center", color=EDGE)
    end = lower[-1] - HALF
    draw_line(axes, (middle, end), (middle, end - 0.42))
    axes.text(middle, end - 0.57, f"logits (B, {config.num_labels})", ha="center", va="center", size=10.5)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(Path(output)) as file:
        figure.savefig(file, dpi=150, bbox_inches="tight", facecolor="white")


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser(prog="draw_architecture", description="Draw RSA-CFN.")
    parser.add_argument("--output", default="docs/rsa_cfn.png", help="image file; default: docs/rsa_cfn.png")
    draw(parser.parse_args(argv).output)
    return 0


if __name__ == "__main__":
    run_script("draw_architecture", main)
