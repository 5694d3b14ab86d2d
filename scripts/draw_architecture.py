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

from foundation.errors import OneLineParser
from scripts.fusion_table import full_size_config


AUDIO, TEXT, JOINT, EDGE = "#dcebf7", "#fbe6d4", "#e5f0dc", "#444444"
AUDIO_X, TEXT_X, JOINT_X = 2.6, 8.4, 5.5
BOX_HEIGHT = 0.86


class Box:
    """A part of the network: its name in the code over what it computes."""

    def __init__(self, axes: Axes, x: float, y: float, name: str, formula: str, color: str, width: float = 4.6):
        self.x, self.top, self.bottom = x, y + BOX_HEIGHT / 2, y - BOX_HEIGHT / 2
        self.left, self.right, self.y = x - width / 2, x + width / 2, y
        style = "round,pad=0,rounding_size=0.12"
        axes.add_patch(
            FancyBboxPatch((self.left, self.bottom), width, BOX_HEIGHT, style, facecolor=color, edgecolor=EDGE)
        )
        axes.text(x, y + 0.2, name, ha="center", va="center", family="monospace", weight="bold", size=9.5)
        axes.text(x, y - 0.17, formula, ha="center", va="center", size=10.5)


def connect(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str = ""):
    """An arrow, and beside its middle the shape of what flows along it."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": EDGE, "shrinkA": 0, "shrinkB": 0})
    if label:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x + 0.12, y, label, ha="left", va="center", size=9, color=EDGE)


def draw_column(axes: Axes, x: float, top: float, step: float, parts, color: str, width: float = 4.6) -> list[Box]:
    """Boxes under each other; a part is its name, its formula and the shape that it hands on."""
    boxes = [
        Box(axes, x, top - index * step, name, formula, color, width) for index, (name, formula, _) in enumerate(parts)
    ]
    for upper, lower, (_, _, shape) in zip(boxes, boxes[1:], parts):
        connect(axes, (x, upper.bottom), (x, lower.top), shape)
    return boxes


def modality_parts(modality: str, vector: str, projected: str, result: str, encoder: str, inputs: str, config):
    """The parts of one modality, from its input to the vector that meets the other modality."""
    size = getattr(config, f"{modality}_config").hidden_size
    projection_size, length = config.projection_size, "frames" if modality == "audio" else "tokens"
    attention = rf"\mathrm{{SA}}_{{{config.cross_attention_size}}}({projected})"
    return [
        (inputs, f"{modality} of an utterance", f"(B, {'samples' if modality == 'audio' else 'tokens'})"),
        (f"{modality}_model", encoder, f"(B, {length}, {size})"),
        ("pool", rf"${vector}$ = mean over valid {length}", f"(B, {size})"),
        (
            f"{modality}_projection",
            rf"${projected} = \mathrm{{Linear}}_{{{size}\to {projection_size}}}({vector})$",
            f"(B, {projection_size})",
        ),
        (
            f"{modality}_attention, {modality}_norm",
            rf"${result} = \mathrm{{LayerNorm}}({attention} + {projected})$",
            f"(B, {projection_size})",
        ),
    ]


def joint_parts(config):
    """The parts behind the two modalities, and the shapes between them."""
    size, residual_size = (config.projection_size + 1) ** 2, config.cross_residual_size
    wide = f"(B, {size:,})"

    def linear(inputs: int, outputs: int, argument: str) -> str:
        return rf"\mathrm{{Linear}}_{{{inputs}\to {outputs}}}({argument})"

    def activated(inputs: int, outputs: int, argument: str) -> str:
        return rf"\mathrm{{dropout}}(\mathrm{{ReLU}}({linear(inputs, outputs, argument)}))"

    return [
        ("cross_features", r"$X = \mathrm{flatten}([1;h]\otimes[1;g])$", ""),
        ("cross_network.residual.dense", rf"$r = {activated(size, residual_size, 'X')}$", f"(B, {residual_size})"),
        ("cross_network.residual.output", rf"$s = {activated(size + residual_size, size, '[X;r]')}$", wide),
        ("skip", r"$y = X + s$", wide),
        ("cross_network.dense", rf"$z = {activated(size, residual_size, 'y')}$", f"(B, {residual_size})"),
        ("classifier", rf"${linear(residual_size, config.num_labels, 'z')}$", ""),
    ]


def draw(output: str):
    """Save the diagram as an image; the ending of `output` is its format."""
    config = full_size_config("rsa_cfn")
    figure = Figure(figsize=(9.2, 12.6))
    axes = figure.subplots()
    axes.set(xlim=(0, 11), ylim=(0.2, 15.6), aspect="equal")
    axes.axis("off")
    audio_parts = modality_parts("audio", "a", "p", "h", "wav2vec 2.0 encoder", "input_values", config)
    text_parts = modality_parts("text", "t", "q", "g", "RoBERTa encoder", "input_ids", config)
    audio = draw_column(axes, AUDIO_X, 15.0, 1.38, audio_parts, AUDIO)
    text = draw_column(axes, TEXT_X, 15.0, 1.38, text_parts, TEXT)
    joint = draw_column(axes, JOINT_X, 7.75, 1.34, joint_parts(config), JOINT, width=5.8)
    cross, dense, skip = joint[0], joint[1], joint[3]
    for box, side in ((audio[-1], -1), (text[-1], 1)):
        edge = cross.left if side < 0 else cross.right
        # Down to the level of the cross features, then in from the side.
        x = edge + 0.75 * side
        axes.plot([x, x], [box.bottom, cross.y], color=EDGE, linewidth=1)
        connect(axes, (x, cross.y), (edge, cross.y))
        shape = audio_parts[-1][2]
        axes.text(x + 0.12 * side, box.bottom - 0.3, shape, ha="right" if side < 0 else "left", size=9, color=EDGE)
    # X passes r and s on the right: joined to r before s, and added to it after.
    bus = dense.right + 0.7
    start = cross.bottom - 0.12
    axes.plot([JOINT_X, bus, bus], [start, start, skip.y], color=EDGE, linewidth=1)
    connect(axes, (bus, joint[2].y), (joint[2].right, joint[2].y))
    connect(axes, (bus, skip.y), (skip.right, skip.y))
    size = (config.projection_size + 1) ** 2
    axes.text(bus + 0.12, dense.y, f"$X$ (B, {size:,})", size=9, va="center", color=EDGE)
    connect(axes, (JOINT_X, joint[-1].bottom), (JOINT_X, joint[-1].bottom - 0.42))
    labels = f"logits (B, {config.num_labels})"
    axes.text(JOINT_X, joint[-1].bottom - 0.57, labels, ha="center", va="center", size=10.5)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150, bbox_inches="tight", facecolor="white")


def main(argv: list[str] | None = None):
    parser = OneLineParser(prog="draw_architecture", description="Draw RSA-CFN.")
    parser.add_argument("--output", default="docs/rsa_cfn.png", help="image file; default: docs/rsa_cfn.png")
    draw(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
