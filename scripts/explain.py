"""
Explain what a saved model answers: one clip in full, or its attention over a dataset.

```bash
python -m scripts.explain models/rsa_cfn --audio speech.wav --text "정말 고마워요" --output_dir explained
python -m scripts.explain models/rsa_cfn --dataset_name data/demo --output_dir explained
```
"""

import argparse
import logging
from functools import partial
from pathlib import Path
from textwrap import shorten

import numpy as np

from explain import Explanation, collect_attention, draw_attention, draw_explanation, explain
from foundation.errors import EXIT_CODES, InputError, OneLineParser, exit_code, run_script
from foundation.files import check_output_dir, owned, write_json, writing_whole
from processing_rsa_cfn import without_secrets
from training.model import load_saved


DPI = 150


def as_record(explanation: Explanation) -> dict:
    """What of an explanation goes into JSON: all but samples and attention maps."""
    words = zip(explanation.words, explanation.word_relevance.tolist())
    segments = zip(explanation.segment_bounds.tolist(), explanation.segment_relevance.tolist())
    return {
        "target": explanation.target,
        "probabilities": _by_label(explanation, explanation.probabilities),
        "withheld": {name: _by_label(explanation, values) for name, values in explanation.withheld.items()},
        "contributions": explanation.contributions,
        "segments": [{"start": start, "end": end, "relevance": value} for (start, end), value in segments],
        "words": [{"word": word, "relevance": value} for word, value in words],
        "num_words_left": explanation.num_words_left,
        "frame_attention": explanation.frame_attention.tolist(),
        "word_attention": explanation.word_attention.tolist(),
    }


def _by_label(explanation: Explanation, values: np.ndarray) -> dict[str, float]:
    return dict(zip(explanation.labels, values.tolist()))


def explain_clip(model, processor, arguments: argparse.Namespace) -> list[str]:
    """Write explanation.json and .png, and the attention maps of the fusion where it has some."""
    try:
        explanation = explain(model, processor, arguments.audio, arguments.text)
    except ValueError as error:
        given = {
            "--audio": arguments.audio and without_secrets(arguments.audio),
            "--text": arguments.text and shorten(arguments.text, 80),
        }
        named = " ".join(f"{name} {value}" for name, value in given.items() if value is not None)
        raise InputError(f"{named}: {error}") from error
    folder = arguments.output_dir
    write_json(folder / "explanation.json", as_record(explanation))
    draw_explanation(explanation).savefig(folder / "explanation.png", dpi=DPI, facecolor="white")
    names = ["explanation.json", "explanation.png"]
    if explanation.attentions:
        modalities = ("audio", "text") if len(explanation.attentions) == 2 else ("audio_and_text",)
        with writing_whole(folder / "explanation.npz") as file:
            np.savez_compressed(file, **dict(zip(modalities, explanation.attentions)))
        names.append("explanation.npz")
    print(f"{explanation.target}, probability {explanation.probabilities.max():.3f}")
    return names


def write(arguments: argparse.Namespace, given: str) -> None:
    check_output_dir(arguments.output_dir, given)
    model, processor = load_saved(arguments.model, "MODEL")
    with owned(arguments.output_dir, given):
        if arguments.dataset_name is None:
            names = explain_clip(model.eval(), processor, arguments)
        else:
            weights = collect_attention(model.eval(), processor, arguments.dataset_name)
            with writing_whole(arguments.output_dir / "attention.npz") as file:
                weights.save(file)
            draw_attention(weights).savefig(arguments.output_dir / "attention.png", dpi=DPI, facecolor="white")
            names = ["attention.npz", "attention.png"]
    print(f"Written to {arguments.output_dir}: {', '.join(names)}")


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    parser = OneLineParser(prog="explain", description="Explain what a saved model answers.", epilog=EXIT_CODES)
    parser.add_argument("model", help="folder or Hub id of a saved RSA-CFN model")
    parser.add_argument("--audio", help="a recording")
    parser.add_argument("--text", help="its transcript")
    parser.add_argument("--dataset_name", help="over all labelled rows of it, the attention of rsa or rsa_cfn")
    parser.add_argument("--output_dir", type=Path, required=True, help="files of the same names are overwritten")
    arguments = parser.parse_args(argv)
    is_clip = arguments.audio is not None or arguments.text is not None
    if is_clip == (arguments.dataset_name is not None):
        parser.error("give either --audio, --text or both, or --dataset_name")
    given = f"--output_dir {arguments.output_dir}"
    return exit_code("explain", partial(write, arguments, given), given)


if __name__ == "__main__":
    run_script("explain", main)
