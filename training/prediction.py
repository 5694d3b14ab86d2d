"""Predictions without a dataset: a table, a folder or one recording in; predictions.csv and predictions.jsonl out, with
a row for each row or recording, in their order, and the reason where there is no prediction. What has been predicted
lies in parts, from which the same command goes on."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas
import xxhash
from tqdm import tqdm
from transformers import PretrainedConfig, TrainingArguments

from corpora.layouts import RECORDINGS, TABLES, find_files
from corpora.rows import UnusableRow
from corpora.tables import PATH, TEXT, cell_text, is_table, read_table
from corpora.transcripts import read_transcripts, remove_tags
from foundation.errors import InputError, complain
from foundation.files import stamp, write_csv, write_json, write_whole
from foundation.words import first_names, writable
from processing_rsa_cfn import RsaCfnPipeline, opened
from training.arguments import LIMITS, DataArguments, ModelArguments
from training.context import preceding_turns
from training.hub import MODEL_FILES
from training.model import load_saved, set_limits
from training.precision import scoring_in
from training.stopping import handling_signals
from training.transcription import Transcriber


logger = logging.getLogger(__name__)

# What is predicted, in the folder that it is predicted into, and what has been so far, by each process.
STATE_FILE, PARTS = "prediction.json", "predictions.[0-9]*.jsonl"


@dataclass
class Row:
    """What is predicted for: `columns` go to the output as they are, `text` beside them."""

    columns: dict  # a jsonl's are of any kind
    audio: str | None
    text: str | None
    problem: str | None = None
    context: list[str] | None = None


def predict(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> dict[str, int]:
    """Predict with a saved model for `data_args.predict_file`, but for rows that the same command has predicted before
    it was stopped. Several processes each take a part of the rows; what they have so far lies in `predictions.0.jsonl`,
    `predictions.1.jsonl` ... until the first one joins it."""
    source, folder = Path(data_args.predict_file), Path(training_args.output_dir)
    rows = read_rows(source)
    state = _describe(rows, model_args, data_args, training_args)
    _check_folder(folder, state)
    with _stopped_by_signals(folder, state, is_told=training_args.process_index == 0):
        label_names = _predict_rows(rows, state, model_args, data_args, training_args)
        # Also for what the others write.
        training_args.distributed_state.wait_for_everyone()
        if training_args.process_index:
            return {}
        records = _join(folder, state)
    errors = [record["error"] for record in records if record["error"] is not None]
    logger.info(f"{len(records)} rows, {len(errors)} of them without a prediction; the column error says why.")
    if len(errors) == len(records):
        logger.error(f"No row of {source} has a prediction: {errors[0]}")
    elif is_recording(source):
        scores = {name: records[0][f"probability_{name}"] for name in label_names}
        print(", ".join(f"{name} {scores[name]:.3f}" for name in sorted(scores, key=scores.get, reverse=True)))
    return {"predict_rows": len(records), "predict_errors": len(errors)}


def _predict_rows(rows: list[Row], state: dict, model_args, data_args, training_args) -> list[str]:
    """Write what this process predicts into its part; the names of the classes."""
    folder, rank = Path(training_args.output_dir), training_args.process_index
    options = {"trust_remote_code": model_args.trust_remote_code, "int8": model_args.int8}
    model, processor = load_saved(model_args.model_name_or_path, **options)
    set_limits(model.config, processor, data_args)
    if processor.context_turns and model.text_model is not None:
        _add_context(rows, processor.context_turns)
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    output_columns = ["prediction", *(f"probability_{name}" for name in label_names), "error"]
    output_columns += [f"prediction_{name}" for name in model.config.attributes or ()]
    if taken := [name for name in output_columns if name in rows[0].columns]:
        needed = f"has columns that the output needs: {', '.join(taken)}; rename them"
        raise InputError(f"--predict_file {data_args.predict_file} {needed}")
    transcriber = None
    if data_args.asr_model is not None:
        transcriber = Transcriber(data_args.asr_model, training_args.device, data_args.asr_language)
    pipe = RsaCfnPipeline(
        model.to(training_args.device),
        processor,
        device=training_args.device,
        batch_size=training_args.per_device_eval_batch_size,
        on_error="return",
        unsure_below=data_args.unsure_below,
        return_attributes=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if done := _read_parts(folder, state):
        logger.info(f"Going on after {len(done)} of {len(rows)} rows.")
    if rank == 0:
        write_json(folder / STATE_FILE, state)
    # All have read what is done, and it is told of what, before any does more.
    training_args.distributed_state.wait_for_everyone()
    # Dealt out one by one rather than in stretches: the long recordings of a folder often lie together.
    mine = [number for number in range(len(rows)) if number not in done][rank :: training_args.world_size]
    with (folder / f"predictions.{rank}.jsonl").open("ab") as part:
        part.write(b"\n")  # after a line that was cut
        answers = _answers(pipe, [rows[number] for number in mine], transcriber, training_args)
        for answer, number in zip(answers, mine, strict=True):
            made = record(rows[number], answer, label_names, model.config.attributes or (), transcriber is not None)
            part.write(_sealed(number, made, state) + b"\n")
            part.flush()
    return label_names


def _describe(rows: list[Row], model_args: ModelArguments, data_args: DataArguments, training_args) -> dict:
    """What is predicted, with a digest of all that changes an answer, of files by their size and time of change."""
    state = {"input": str(Path(data_args.predict_file).resolve()), "model": model_args.model_name_or_path}
    state = {name: writable(value) for name, value in state.items()} | {"rows": len(rows)}
    digest = xxhash.xxh3_128(json.dumps(state).encode())
    for row in rows:
        digest.update(json.dumps([vars(row), stamp(row.audio or "")]).encode())
    for name in filter(None, (model_args.model_name_or_path, data_args.asr_model)):
        files = sorted(path for pattern in (*MODEL_FILES, "*.bin") for path in Path(name).glob(pattern))
        commit = PretrainedConfig.get_config_dict(name)[0].get("_commit_hash")
        digest.update(json.dumps([commit, *((path.name, stamp(path)) for path in files)]).encode())
    options = [getattr(data_args, name) for name in (*LIMITS, "unsure_below", "asr_language")]
    digest.update(json.dumps([*options, training_args.bf16, training_args.fp16, model_args.int8]).encode())
    return state | {"digest": digest.hexdigest()}


def _check_folder(folder: Path, state: dict) -> None:
    """Refuse a folder that holds anything else than predictions of the same, finished or not."""
    found = sorted(path.name for path in folder.glob("[!.]*"))
    if not found:
        return
    instead = "give another folder"
    try:
        there = json.loads((folder / STATE_FILE).read_bytes())
        if there["digest"] == state["digest"]:
            return
        what = f"predictions for {there['rows']} rows of {there['input']} by {there['model']}"
        if (there["input"], there["model"]) == (state["input"], state["model"]):
            what += ", of which a file or an option has changed since"
        instead += ", or remove this one"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        what = f"files, and no {STATE_FILE} that tells of what ({first_names(found)})"
    raise InputError(f"--output_dir {folder} holds {what}; {instead}")


def _sealed(number: int, record: dict, state: dict) -> bytes:
    """A line of a part, with a digest by which one is told that is damaged, or of another prediction."""
    line = json.dumps([number, record], ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return line[:-1] + f', "{xxhash.xxh3_64_hexdigest(line + state["digest"].encode())}"]'.encode()


def _read_parts(folder: Path, state: dict) -> dict[int, dict]:
    """The records that have been written so far, by the number of their rows. Those that are damaged are left out."""
    records = {}
    for part in folder.glob(PARTS):
        for line in part.read_bytes().split(b"\n"):
            try:
                number, record, _ = json.loads(line)
                if line == _sealed(number, record, state):
                    records[number] = record
            except (ValueError, TypeError, RecursionError):
                continue
    return records


@contextmanager
def _stopped_by_signals(folder: Path, state: dict, is_told: bool) -> Iterator[None]:
    """Inside this context a signal ends the process at once: the parts need nothing more."""

    def stop(number, frame):
        try:
            if is_told:
                done = f"{len(_read_parts(folder, state))} of {state['rows']} rows"
                message = f"stopped by {signal.Signals(number).name} after {done}; the same command goes on from there"
                with tqdm.external_write_mode(nolock=True):
                    complain("run_classification.py", message)
            sys.stdout.flush()
        finally:
            os._exit(128 + number)

    with handling_signals(stop):
        yield


def read_rows(source: Path) -> list[Row]:
    """The rows of a csv, tsv or jsonl with a column `audio` (or `path`) or `text`; the recordings of a folder and those
    below it, by name; or one recording. A transcript of a recording is a .txt of the same name beside it."""
    if is_recording(source):
        return _read_recordings([source], source.parent)
    return _read_folder(source) if source.is_dir() else _read_table(source)


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
        problem = f"{given} has no column named audio and none named text, only {first_names(table.header) or 'none'}"
        raise InputError(f"{problem}; give a header with at least one of them")
    rows = []
    for read in table.rows:
        # JSON has no NaN, though Python reads and writes it.
        cells = json.loads(json.dumps(read.cells), parse_constant=lambda _: None)
        row = Row(cells, None, None, read.problem)
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
    try:
        files = find_files(folder)
    except OSError as error:
        reason = f"{error.filename} can't be read ({error.strerror})"
        raise InputError(f"--predict_file {folder}: {reason}; make it readable, or take it out") from error
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


def _add_context(rows: list[Row], num_turns: int) -> None:
    """The turns before each row, from the columns context, dialogue and speaker of a table, as far as it has them."""
    cells = [{name.lower(): cell or None for name, cell in row.columns.items()} for row in rows]
    columns = {name: [row.get(name) for row in cells] for name in ("context", "dialogue", "speaker")}
    columns["context"] = [turns.splitlines() if isinstance(turns, str) else turns for turns in columns["context"]]
    columns |= {"part": [""] * len(rows), "text": [row.text for row in rows]}
    for row, context in zip(rows, preceding_turns(columns, num_turns)):
        row.context = context


def _answers(pipe: RsaCfnPipeline, rows: list[Row], transcriber: Transcriber | None, training_args) -> Iterator:
    def inputs() -> Iterator[dict]:
        for row in rows:
            is_heard = transcriber is not None and row.text is None and row.audio is not None and row.problem is None
            try:
                with opened(row.audio) if is_heard else nullcontext(row.audio) as audio:
                    if is_heard:
                        (row.text,) = transcriber(audio)
                    read = {"audio": audio, "text": row.text, "context": row.context}
                    yield {} if row.problem is not None else read
            except ValueError as reason:
                row.problem = str(reason)
                yield {}

    precision = "bf16" if training_args.bf16 else "fp16" if training_args.fp16 else "no"
    is_shown = not training_args.disable_tqdm and training_args.process_index == 0
    with scoring_in(precision, training_args.device):
        yield from tqdm(pipe(inputs()), "predicting", total=len(rows), unit="row", disable=not is_shown)


def record(row: Row, answer: dict, label_names: list[str], attributes: list[str], has_text: bool) -> dict:
    """A row of the output, as JSON has it; without a prediction its cells are null and `error` says why."""
    error = row.problem or answer.get("error")
    scores = {} if error else {entry["label"]: round(entry["score"], 6) for entry in answer["scores"]}
    name = next((name for name in row.columns if name.lower() == "text"), "text")
    return {
        **row.columns,
        **({name: row.text or ""} if has_text else {}),
        "prediction": None if error else answer["scores"][0]["label"],
        **{f"probability_{name}": scores.get(name) for name in label_names},
        **{f"prediction_{name}": None if error else round(answer["attributes"][name], 6) for name in attributes},
        "error": error,
    }


def _join(folder: Path, state: dict) -> list[dict]:
    """Write what all processes predicted as one, in the order of the rows."""
    numbered = _read_parts(folder, state)
    records = [numbered[number] for number in range(state["rows"])]
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    write_whole(folder / "predictions.jsonl", "".join(lines))
    write_csv(folder / "predictions.csv", pandas.DataFrame(records, dtype=object))
    for part in folder.glob(PARTS):
        part.unlink()
    return records
