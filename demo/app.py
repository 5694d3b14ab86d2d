"""
Speech and its transcript in the browser: record or upload, and see what a model hears in them and why.

```bash
python demo/app.py
python demo/app.py --model USER/NAME --asr_model openai/whisper-small
```
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accelerate import PartialState
from huggingface_hub import metadata_load
from transformers.utils import cached_file

from demo.examples import write_examples
from demo.recognizer import Recognizer
from foundation.errors import InputError, OneLineParser, complain
from training.card import SYNTHETIC
from training.model import load_saved
from training.transcription import Transcriber


# Where the README's first line puts it.
DEMO_MODEL = "models/rsa_cfn"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    # A Space starts the app without arguments, and has variables.
    default = os.environ.get("RSA_CFN_MODEL", DEMO_MODEL)
    parser = OneLineParser(
        prog="demo",
        description="Emotion recognition from speech and transcript in the browser.",
        epilog="exit codes: 0, the app was stopped; 2, something given can't be used",
    )
    parser.add_argument("--model", default=default, help=f"folder or Hub id of a saved model ({default})")
    parser.add_argument(
        "--asr_model", default=os.environ.get("RSA_CFN_ASR_MODEL"), help="speech recogniser that offers a transcript"
    )
    return parser.parse_args(argv)


def read_card(model: str) -> dict:
    """The metadata of a saved model's card; empty where it has none."""
    file = cached_file(model, "README.md", _raise_exceptions_for_missing_entries=False)
    return (file and metadata_load(file)) or {}


def load_recognizer(model: str, asr_model: str | None) -> Recognizer:
    """Raises [`InputError`] when one of the two models can't be loaded."""
    if model == DEMO_MODEL and not Path(model).is_dir():
        raise InputError(
            f"--model {model} isn't there; train it with `accelerate launch run_classification.py --fusion rsa_cfn`, "
            "or give a folder or Hub id of another saved model"
        )
    device = PartialState().device
    loaded, processor = load_saved(model, "--model")
    transcriber = None if asr_model is None else Transcriber(asr_model, device)
    return Recognizer(loaded.to(device), processor, transcriber)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 when something given can't be used."""
    logging.basicConfig(format="%(message)s")
    arguments = parse_arguments(argv)
    try:
        # Here, since the app is an extra: without it this module and its messages still work.
        from demo.interface import build_interface, launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        complain("demo", "gradio isn't installed; pip install -r demo/requirements.txt")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            recognizer = load_recognizer(arguments.model, arguments.asr_model)
            card = read_card(arguments.model)
            # Of its own corpus: others' sounds would say nothing of it, and recordings of people aren't ours to show.
            examples = write_examples(Path(folder)) if SYNTHETIC in card.get("tags", []) else []
        except InputError as error:
            complain("demo", error)
            return 2
        try:
            launch(build_interface(recognizer, examples, arguments.model, card.get("language") or []))
        except OSError as error:  # no port is free, or the address isn't this machine's
            complain("demo", error)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
