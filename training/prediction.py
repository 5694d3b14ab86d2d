"""Predictions without a dataset: a table, a folder or one recording in; predictions.csv and predictions.jsonl out, with
a row for each row or recording, in their order, and the reason where there is no prediction."""

import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas
import torch
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import TrainingArguments

from corpora.layouts import RECORDINGS, TABLES
from corpora.rows import UnusableRow
from corpora.tables import PATH, TEXT, cell_text, is_table, read_table
from corpora.transcripts import read_transcripts, remove_tags
from foundation.errors import InputError
from foundation.words import first_names, writable
from processing_rsa_cfn import RsaCfnPipeline
from training.arguments import DataArguments, ModelArguments
from training.cpu import cpu_functions
from training.model import load_saved, set_limits
from training.transcription import Transcriber


logger = logging.getLogger(__name__)

# A jsonl may hold what is no text.
ESCAPE = "backslashreplace"


@dataclass
class Row:
    """What is predicted for: `columns` go to the output as they are, `text` beside them."""

    columns: dict  # a jsonl's are of any kind
    audio: str | None
    text: str | None
    problem: str | None = None


def predict(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> dict[str, int]:
    """
    Predict with a saved model for `data_args.predict_file`. Several processes each take a part of the rows; what they
    have so far lies in `predictions.0.jsonl`, `predictions.1.jsonl` ... until the first one joins it.
    """
    source = Path(data_args.predict_file)
    rows = read_rows(source)
    model, processor = load_saved(model_args.model_name_or_path)
    set_limits(model.config, processor, data_args)
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    output_columns = ["prediction", *(f"probability_{name}" for name in label_names), "error"]
    taken = [name for name in output_columns if name in rows[0].columns]
    if taken:
        needed = f"has columns that the output needs: {', '.join(taken)}; rename them"
        raise InputError(f"--predict_file {data_args.predict_file} {needed}")
    transcriber = Transcriber(data_args.asr_model, training_args.device) if data_args.asr_model is not None else None
    pipe = RsaCfnPipeline(
        model.to(training_args.device),
        processor,
        device=training_args.device,
        batch_size=training_args.per_device_eval_batch_size,
        on_error="return",
    )
    folder = Path(training_args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # Dealt out one by one rather than in stretches: the long recordings of a folder often lie together.
    mine = range(training_args.process_index, len(rows), training_args.world_size)
    parts = [folder / f"predictions.{index}.jsonl" for index in range(training_args.world_size)]
    with parts[training_args.process_index].open("w", buffering=1, encoding="utf-8", errors=ESCAPE) as stream:
        answers = _answers(pipe, [rows[number] for number in mine], transcriber, training_args)
        for answer, number in zip(answers, mine, strict=True):
            record = _record(rows[number], answer, label_names, has_text=transcriber is not None)
            stream.write(json.dumps([number, record], ensure_ascii=False) + "\n")
    # This also waits for all processes.
    failed = sum(gather_object([0 if transcriber is None else transcriber.failed]))
    if training_args.process_index:
        return {}
    if failed:
        logger.warning(f"The recogniser could make nothing of {failed} recordings; they have no transcript.")
    records = _join(folder, parts)
    errors = [record["error"] for record in records if record["error"] is not None]
    logger.info(f"{len(records)} rows, {len(errors)} of them without a prediction; the column error says why.")
    if len(errors) == len(records):
        logger.error(f"No row of {source} has a prediction: {errors[0]}")
    elif is_recording(source):
        print(", ".join(f"{entry['label']} {entry['score']:.3f}" for entry in answer))
    return {"predict_rows": len(records), "predict_errors": len(errors)}


def read_rows(source: Path) -> list[Row]:
    """
    The rows of a csv, tsv or jsonl with a column `audio` (or `path`) or `text`; the recordings of a folder and those
    below it, by name; or one recording. A transcript of a recording is a .txt of the same name beside it.
    """
    if source.is_dir():
        return _read_folder(source)
    if is_recording(source):
        return _read_recordings([source], source.parent)
    return _read_table(source)


def is_recording(source: Path) -> bool:
    """By its content, where its name doesn't tell."""
    suffix = source.suffix.lower()
    return source.is_file() and suffix not in TABLES and (suffix in RECORDINGS or not is_table(source))


def _read_table(source: Path) -> list[Row]:
    notes: dict[str, list[str]] = {}
    table, given = read_table(source, "--predict_file", notes), f"--predict_file {source}"
    for kind, names in notes.items():
        logger.warning(f"{source.name}: {kind}: {first_names(names)}")
    audio, text = table.find(("audio", *PATH), given), table.find(TEXT, given)
    if audio is None and text is None:
        raise InputError(
            f"{given} has no column named audio and none named text, only "
            f"{first_names(table.header) or 'none'}; give a header with at least one of them"
        )
    rows = []
    for read in table.rows:
        row = Row(read.cells, None, None, read.problem)
        try:
            row.audio = cell_text(read.cells.get(audio)).strip().replace("\\", "/") or None
            row.text = cell_text(read.cells.get(text)).strip() or None
        except UnusableRow as reason:
            row.problem = str(reason)
        if row.audio is not None and "://" not in row.audio:
            row.audio = str(source.parent / row.audio)
        rows.append(row)
    if not rows:
        raise InputError(f"{given} has no rows below its header; give at least one")
    return rows


def _read_folder(folder: Path) -> list[Row]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    recordings = [path for path in files if path.suffix.lower() in RECORDINGS and not path.name.startswith(".")]
    if not recordings:
        raise InputError(f"--predict_file {folder} holds no recording; give a folder with some, such as wav or flac")
    transcripts = {path.with_suffix(".txt") for path in recordings}
    unused = [str(path.relative_to(folder)) for path in files if path not in transcripts.union(recordings)]
    if unused:
        logger.warning(f"{len(unused)} files are no recording or transcript of one: {first_names(unused)}")
    return _read_recordings(recordings, folder)


def _read_recordings(recordings: list[Path], folder: Path) -> list[Row]:
    texts, problems = read_transcripts(recordings)
    rows = []
    for path in recordings:
        text = remove_tags(texts[path]) if path in texts else None
        columns = {"audio": writable(path.relative_to(folder).as_posix()), "text": text or ""}
        rows.append(Row(columns, str(path), text, problems.get(path)))
    return rows


def _answers(pipe: RsaCfnPipeline, rows: list[Row], transcriber: Transcriber | None, training_args) -> Iterator:
    def inputs() -> Iterator[dict]:
        for row in rows:
            if transcriber is not None and row.problem is None and row.text is None and row.audio is not None:
                row.text = transcriber(row.audio)
            yield {} if row.problem is not None else {"audio": row.audio, "text": row.text}

    precision = torch.bfloat16 if training_args.bf16 else torch.float16 if training_args.fp16 else None
    is_shown = not training_args.disable_tqdm and training_args.process_index == 0
    autocast = nullcontext() if precision is None else torch.autocast(training_args.device.type, precision)
    with autocast, cpu_functions(training_args.device):
        yield from tqdm(pipe(inputs()), "predicting", total=len(rows), unit="row", disable=not is_shown)


def _record(row: Row, answer: list[dict] | dict, label_names: list[str], has_text: bool) -> dict:
    """A row of the output, as JSON has it; without a prediction its cells are null and `error` says why."""
    error = row.problem or (answer["error"] if isinstance(answer, dict) else None)
    scores = {} if error else {entry["label"]: round(entry["score"], 6) for entry in answer}
    name = next((name for name in row.columns if name.lower() == "text"), "text")
    return {
        **row.columns,
        **({name: row.text or ""} if has_text else {}),
        "prediction": None if error else answer[0]["label"],
        **{f"probability_{name}": scores.get(name) for name in label_names},
        "error": error,
    }


def _join(folder: Path, parts: list[Path]) -> list[dict]:
    """Write what all processes predicted as one, in the order of the rows."""
    numbered = [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").split("\n")[:-1]]
    records = [record for _, record in sorted(numbered, key=lambda pair: pair[0])]
    with (folder / "predictions.jsonl").open("w", encoding="utf-8", errors=ESCAPE) as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    table = pandas.DataFrame(records, dtype=object)
    table.to_csv(folder / "predictions.csv", index=False, lineterminator="\r\n", errors=ESCAPE)
    for part in parts:
        part.unlink()
    return records
