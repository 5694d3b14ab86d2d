"""
Draw what a saved model hears over a long recording, and write it as csv and json.

```bash
python -m scripts.timeline speech.wav --output_dir timelines/speech
python -m scripts.timeline speech.wav --asr_model openai/whisper-small --bf16 --output_dir timelines/words
```
"""

import argparse
import logging
from functools import partial
from pathlib import Path

import pandas
from accelerate import PartialState
from tqdm import tqdm

from explain.timeline import clock, draw_timeline
from foundation.errors import EXIT_CODES, InputError, OneLineParser, exit_code, run_script
from foundation.files import check_output_dir, owned, write_csv, write_json
from processing_rsa_cfn import RsaCfnPipeline, opened, without_secrets
from training.model import load_saved
from training.precision import scoring_in
from training.prediction import Row, record
from training.transcription import Transcriber


DEFAULT_MODEL = "models/rsa_cfn"
BATCH_SIZE = 4
DPI = 150


def read_timeline(pipe: RsaCfnPipeline, audio: str, transcriber: Transcriber | None = None) -> dict:
    """What the pipeline answers with `return_windows` and, by a recogniser, the `words` with their times."""
    heard = {}
    with opened(audio) as source, tqdm(desc="windows", unit="") as progress:
        if transcriber is not None:
            heard["words"] = list(tqdm(transcriber.with_times(source), "words", unit=""))
        pipe.model.register_forward_hook(lambda *_: (progress.update(BATCH_SIZE), None)[1])
        return pipe({"audio": source, "text": heard.get("words") or None}, return_windows=True) | heard


def write(arguments: argparse.Namespace, given: str) -> None:
    """Write what [`read_timeline`] gives as csv, whose columns are those of predictions.csv, json and a picture."""
    check_output_dir(arguments.output_dir, given)
    device, name, recording = PartialState().device, arguments.model_name_or_path, without_secrets(arguments.audio)
    model, processor = load_saved(name)
    labels, attributes = list(model.config.id2label.values()), model.config.attributes or []
    if "audio" not in model.fusion.modalities:
        raise InputError(f"--model_name_or_path {name} reads nothing but text; give a model that hears")
    asr = arguments.asr_model
    transcriber = None if asr is None else Transcriber(asr, device, arguments.asr_language)
    pipe = RsaCfnPipeline(model.to(device), processor, device=device, batch_size=BATCH_SIZE, return_attributes=True)
    try:
        with scoring_in("bf16" if arguments.bf16 else "no", device):
            answer = read_timeline(pipe, arguments.audio, transcriber)
    except ValueError as error:
        raise InputError(f"{recording}: {error}") from error
    windows = answer["windows"]
    rows = [Row({name: window[name] for name in ("start", "end")}, None, window.get("text")) for window in windows]
    rows = [record(row, window, labels, attributes, "words" in answer) for row, window in zip(rows, windows)]
    title = f"{Path(recording).name} · {clock(windows[-1]['end'])} · {name}"
    with owned(arguments.output_dir, given) as folder:
        write_csv(folder / "timeline.csv", pandas.DataFrame(rows, dtype=object).drop(columns="error"))
        write_json(folder / "timeline.json", {"audio": recording, "model": name, **answer})
        draw_timeline(windows, labels, title).savefig(folder / "timeline.png", dpi=DPI, facecolor="white")
    print(", ".join(f"{entry['label']} {entry['score']:.3f}" for entry in answer["scores"]))
    print(f"Written to {folder}: timeline.csv, timeline.json and timeline.png, of {len(windows)} windows")


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    parser = OneLineParser(prog="timeline", description="What a saved model hears over a recording.", epilog=EXIT_CODES)
    parser.add_argument("audio", help="a recording of up to 24 hours, or its URL")
    parser.add_argument("--output_dir", type=Path, required=True, help="files of the same names are overwritten")
    parser.add_argument("--model_name_or_path", default=DEFAULT_MODEL, help=f"a saved RSA-CFN model ({DEFAULT_MODEL})")
    parser.add_argument("--asr_model", help="speech recogniser whose words each window is read with")
    parser.add_argument("--asr_language", help="what it shall hear, such as ko, rather than guess")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, which takes less time")
    arguments = parser.parse_args(argv)
    given = f"--output_dir {arguments.output_dir}"
    return exit_code("timeline", partial(write, arguments, given), given)


if __name__ == "__main__":
    run_script("timeline", main)
