"""A dataset with audio, text and labels → checked rows → the parts that train, validate and are scored."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, concatenate_datasets
from tqdm.auto import tqdm

from corpora.folds import PARTS, SPLITS, TRAIN, VALIDATION, Split, find_overlaps, missing_classes, split_rows
from corpora.loading import encode_labels, load_parts, read_columns
from corpora.report import first_names
from prepare_dataset import prepare
from training import InputError
from training.arguments import DataArguments
from training.labels import make_targets, target_shares


logger = logging.getLogger(__name__)

DEMO_DIR = "data/demo"
# Columns of a prepared corpus that splits, targets, metrics and predictions.csv use where they exist.
OPTIONAL_COLUMNS = ("segment_id", "session", "speaker", "emotions", "votes", "duration")
# prepare_dataset.py writes these, and has then read every recording.
PREPARED_COLUMNS = {"audio", "text", "raw_text", "label", "segment_id", "duration"}


@dataclass
class Splits:
    """
    The rows of a run, each with a label or, in `train`, shares of the classes.

    Args:
        train (`Dataset`): What the weights are fitted to.
        validation (`Dataset`, *optional*): Rows kept out of `train`, on which epochs and settings are compared.
        test (`Dataset`): What is reported; scored once, after training, in the order of the dataset.
        label_names (`list[str]`): Names of the classes.
        description (`str`): How the rows were divided, for the log.
        record (`dict`): The same in full, for `split.json`.
        membership (`list[tuple[str, str]]`): ID and part of every row of the dataset; no part for one left out.
        recordings (`Dataset`): `audio` and `text` of every row that can be used, in any part or none; its `row`, the
            number of the row in the dataset, is also a column of the parts.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    label_names: list[str]
    description: str
    record: dict
    membership: list[tuple[str, str]]
    recordings: Dataset


def load_splits(data_args: DataArguments, with_validation: bool) -> Splits:
    """
    Load the dataset, divide its rows, and leave out and report those that can't be used.

    Args:
        data_args ([`DataArguments`]): Names the dataset, its columns, the split and the targets.
        with_validation (`bool`): Also take a validation part out of the training rows where the split has none.

    Raises:
        InputError, CorpusError: The dataset, a column, its labels or the split doesn't fit.
    """
    name = data_args.dataset_name or _demo_dataset()
    loaded = load_parts(name, data_args.dataset_config_name)
    parts = [(part, _select_columns(dataset, part, data_args)) for part, dataset in loaded.items()]
    columns = read_columns(parts, ("text", "label", *OPTIONAL_COLUMNS))
    columns["label"], label_names = encode_labels(parts, "label", columns["label"])
    # Divided before anything is left out: a recording that is damaged on one machine changes no other row's part.
    split = split_rows(columns, data_args.split, data_args.num_folds, data_args.fold, with_validation)
    is_prepared = data_args.audio_column_name == "audio" and all(
        PREPARED_COLUMNS <= set(part.column_names) for part in loaded.values()
    )
    is_prepared = is_prepared and None not in columns["duration"]
    columns["duration"] = _durations(parts, columns, is_prepared)
    columns["row"] = list(range(len(columns["label"])))
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    for row, part in enumerate(split.parts):
        if part is not None and columns["duration"][row] is not None:
            rows[part].append(row)
    rows[TRAIN], targets = make_targets(columns, rows[TRAIN], label_names, data_args.label_target, data_args.ties)
    if not rows[VALIDATION] and not with_validation:
        del rows[VALIDATION]
    for part in rows:
        if not rows[part]:
            others = " or --split ".join(name for name in SPLITS if name != split.name)
            raise InputError(f"--split {split.name} leaves no labelled {part} row; give --split {others}")
    datasets = {
        part: _join(parts, columns | targets if part == TRAIN else columns, rows[part], label_names) for part in rows
    }
    source = {"name": name, "config": data_args.dataset_config_name}
    source["fingerprints"] = {part: dataset._fingerprint for part, dataset in loaded.items()}
    usable = [row for row in columns["row"] if columns["duration"][row] is not None]
    named = {name: columns[name] for name in ("row", "segment_id", "text", "duration", "label")}
    recordings = _join(parts, named, usable, label_names)
    return _describe(split, source, columns, rows, datasets, recordings, label_names)


def _demo_dataset() -> str:
    if not Path(DEMO_DIR).is_dir():
        prepare("demo", None, DEMO_DIR)
    return DEMO_DIR


def _select_columns(part: Dataset, name: str, data_args: DataArguments) -> Dataset:
    """Keep the columns a run uses, under the names `audio`, `text` and `label`; audio stays encoded."""
    wanted = {
        "audio": data_args.audio_column_name,
        "text": data_args.text_column_name,
        "label": data_args.label_column_name,
    }
    for role, column in wanted.items():
        if column not in part.column_names:
            legal = ", ".join(part.column_names)
            raise InputError(f"--{role}_column_name {column} is no column of split {name!r}; give one of {legal}")
    optional = [column for column in OPTIONAL_COLUMNS if column in part.column_names and column not in wanted.values()]
    part = part.select_columns([*wanted.values(), *optional])
    part = part.rename_columns({column: role for role, column in wanted.items() if column != role})
    if isinstance(part.features["audio"], Audio):
        part = part.cast_column("audio", Audio(part.features["audio"].sampling_rate, decode=False))
    return part


def _durations(parts: list[tuple[str, Dataset]], columns: dict[str, list], is_prepared: bool) -> list[float | None]:
    """
    Seconds of each row, by which batches can be grouped; `None` for a row whose audio can't be read or whose text is
    null. These are counted with their IDs in the log. Only the recordings of a prepared dataset aren't opened.
    """
    durations: list[float | None] = []
    for name, part in parts:
        rows = range(len(durations), len(durations) + len(part))
        if is_prepared:
            measured = iter([columns["duration"][row] for row in rows])
        else:
            recordings = tqdm(part.select_columns("audio"), desc=f"Checking {name}", unit=" rows")
            measured = (_duration_or_problem(recording["audio"]) for recording in recordings)
        problems: dict[str, list[str]] = {}
        for row, duration in zip(rows, measured, strict=True):
            if columns["text"][row] is None:
                duration = "no transcript"
            if isinstance(duration, str):
                problems.setdefault(duration, []).append(str(columns["segment_id"][row]))
            durations.append(None if isinstance(duration, str) else duration)
        for problem, bad in problems.items():
            logger.warning(f"{len(bad)} of {len(part)} rows of {name} are left out, {problem}: {first_names(bad)}")
        if sum(map(len, problems.values())) == len(part):
            raise InputError(f"no row of split {name!r} can be used ({'; '.join(problems) or 'it is empty'})")
    return durations


def _duration_or_problem(audio) -> float | str:
    """Seconds of a clip, from its header, or why it can't be used; samples are only read where they can be NaN."""
    if isinstance(audio, dict) and audio.get("array") is not None:
        samples = np.asarray(audio["array"], dtype=np.float32)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            return "audio not finite, empty, or of several channels"
        return len(samples) / audio["sampling_rate"]
    if isinstance(audio, dict):
        audio = audio["path"] if audio.get("bytes") is None else audio["bytes"]
    if audio is None:
        return "no audio"
    if not isinstance(audio, (str, bytes)):
        return "audio neither a file nor samples with a sampling rate"
    try:
        with soundfile.SoundFile(io.BytesIO(audio) if isinstance(audio, bytes) else audio) as recording:
            if not recording.frames:
                return "audio empty"
            if recording.subtype in ("FLOAT", "DOUBLE") and not np.isfinite(recording.read()).all():
                return "audio not finite"
            return recording.frames / recording.samplerate
    except (soundfile.LibsndfileError, OSError):
        return "audio unreadable"


def _join(
    parts: list[tuple[str, Dataset]], columns: dict[str, list], rows: list[int], label_names: list[str]
) -> Dataset:
    """The recordings of `rows`, from where they are, beside the columns that are in memory."""
    pieces, start = [], 0
    for _, part in parts:
        stop = start + len(part)
        inside = [row - start for row in rows if start <= row < stop]
        if inside:
            # Joined before rows are selected: joining a selection would copy its recordings.
            table = make_table(columns, range(start, stop), label_names)
            pieces.append(concatenate_datasets([part.select_columns("audio"), table], axis=1).select(inside))
        start = stop
    return pieces[0] if len(pieces) == 1 else concatenate_datasets(pieces)


def make_table(columns: dict[str, list], rows, label_names: list[str]) -> Dataset:
    """`rows` of `columns`, whose labels have their names."""
    table = Dataset.from_dict({n: [values[row] for row in rows] for n, values in columns.items() if n != "label"})
    labels = [columns["label"][row] for row in rows]
    return table.add_column("label", labels, feature=ClassLabel(names=label_names))


def _describe(
    split: Split,
    source: dict,
    columns: dict[str, list],
    rows: dict[str, list[int]],
    datasets: dict[str, Dataset],
    recordings: Dataset,
    label_names: list[str],
) -> Splits:
    """Log and record what was divided how, what the parts have in common, and what they lack."""
    used: list[str | None] = [None] * len(split.parts)
    for part, members in rows.items():
        for row in members:
            used[row] = part
    counts = {}
    for part, dataset in datasets.items():
        sums = target_shares(dataset, len(label_names)).sum(axis=0)
        counts[part] = {name: round(float(total), 3) for name, total in zip(label_names, sums)}
    overlaps = find_overlaps(columns, used)
    warnings = [*split.warnings, *missing_classes(counts)]
    for overlap in overlaps:
        logger.info(f"{overlap}")
    for warning in warnings:
        logger.warning(warning)
    record = {
        "dataset": source,
        "split": split.name,
        "num_folds": split.num_folds,
        "fold": split.fold,
        "description": split.description,
        "parts": {
            part: {"rows": len(rows[part]), "classes": counts[part], "groups": split.groups.get(part)} for part in rows
        },
        "overlaps": [
            {
                "parts": list(overlap.parts),
                "kind": overlap.kind,
                "count": len(overlap.values),
                f"rows_of_{overlap.parts[1]}": overlap.num_rows,
                # A run may be published; what people said may not.
                "values": overlap.values if overlap.kind != "transcripts" else None,
            }
            for overlap in overlaps
        ],
        "warnings": warnings,
    }
    return Splits(
        train=datasets["train"],
        validation=datasets.get("validation"),
        test=datasets["test"],
        label_names=label_names,
        description=split.description,
        record=record,
        membership=[(str(name), part or "") for name, part in zip(columns["segment_id"], used)],
        recordings=recordings,
    )
