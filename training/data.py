"""A dataset with audio, text and labels → checked rows → the parts that train, validate and are scored."""

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import xxhash
from datasets import Audio, ClassLabel, Dataset, List, Value, concatenate_datasets
from tqdm.auto import tqdm

from audio_rsa_cfn import find_sound, open_file
from corpora.conversion import REPORT_FILE
from corpora.folds import ALL, PARTS, TEST, TRAIN, VALIDATION, Split, find_overlaps, split_rows
from corpora.loading import load_parts
from corpora.roles import ROLES, check_column, encode_labels, kind_of, read_columns
from foundation.errors import InputError
from foundation.words import first_names, writable
from prepare_dataset import prepare
from training.arguments import DEMO_DIR, KEMDY20_DIR, DataArguments
from training.context import preceding_turns
from training.labels import make_targets, match_classes, target_shares
from training.recordings import measure


logger = logging.getLogger(__name__)

# Columns that splits, targets, metrics and predictions.csv use where they exist.
OPTIONAL_COLUMNS = ("segment_id", "session", "speaker", "gender", "emotions", "votes", "duration")
OF_A_DIALOGUE = ("context", "dialogue", "start")
MODALITIES = ("audio", "text")
FLATTERED = "epochs are compared on the reported rows, whose scores are too good for it"
# prepare_dataset.py writes these, and has then read every recording.
PREPARED_COLUMNS = {"audio", "text", "raw_text", "label", "segment_id", "duration"}


@dataclass
class _Source:
    """A dataset before it is divided."""

    parts: list[tuple[str, Dataset]]  # by their names, with the columns of `_find_columns`
    columns: dict[str, str]  # how messages call those but the audio
    has_audio: bool
    is_prepared: bool  # whether prepare_dataset.py has read every recording
    origin: dict  # name and fingerprints, for the record


@dataclass
class Splits:
    """The rows of a run, each with a label or, in `train`, shares of the classes."""

    train: Dataset | None  # what the weights are fitted to; None if all is scored
    validation: Dataset | None  # kept out of `train`, by which settings are chosen
    test: Dataset  # reported; scored once, after training, in the order of the dataset
    tables: dict[str, Dataset]  # all columns but the audio of the three
    label_names: list[str]
    description: str  # how the rows were divided, for the log
    record: dict  # the same in full, for split.json
    membership: list[tuple[str, str]]  # ID and part of every row of the dataset; "" for one left out
    # `row`, the number in the dataset, `audio` and `text` of all rows that can be used, in any part or none.
    recordings: Dataset
    compare_epochs_on: str = VALIDATION  # or TEST

    @property
    def compared(self) -> Dataset | None:
        return self.test if self.compare_epochs_on == TEST else self.validation


def load_splits(data_args, with_validation: bool, classes=None, modalities=MODALITIES, attributes=()) -> Splits:
    """Load the dataset, divide its rows, and leave out and report those that can't be used. `with_validation` takes a
    validation part out of the training rows where the split has none and epochs aren't compared on the test part;
    `classes` are those of a saved model, in its order; `modalities` are what the fusion reads, and so what a row needs;
    `attributes` are further columns, which a saved model can do without. Raises InputError where the dataset or the
    split doesn't fit."""
    source = _open(data_args, modalities, dict.fromkeys(attributes, classes is None))
    columns = read_columns(source.parts, source.columns)
    columns = {name: [None] * len(columns["label"]) for name in attributes} | columns
    label_names = encode_labels(source.parts, columns, source.columns["label"])
    columns.setdefault("text", [None] * len(columns["label"]))
    if data_args.context_turns and "text" in modalities:
        columns = _add_context(columns, data_args.context_turns)
    if classes is not None:
        match_classes(columns, label_names, classes)
        label_names = classes
    # Divided before anything is left out: a recording that is damaged on one machine changes no other row's part.
    with_validation = with_validation and data_args.compare_epochs_on == VALIDATION
    split = split_rows(columns, data_args.split, data_args.num_folds, data_args.fold, with_validation)
    if data_args.compare_epochs_on == TEST:
        split.warnings.append(FLATTERED)
    unscored = sum(label is None and part is None for label, part in zip(columns["label"], split.parts))
    if unscored:
        logger.info(f"{unscored} rows without a label are not scored.")
    is_usable = _check_rows(source, columns, modalities)
    columns["row"] = list(range(len(columns["label"])))
    rows = {part: [row for row in columns["row"] if split.parts[row] == part and is_usable[row]] for part in PARTS}
    rows[TRAIN], targets = make_targets(columns, rows[TRAIN], label_names, data_args.label_target, data_args.ties)
    if not rows[VALIDATION] and not with_validation:
        del rows[VALIDATION]
    if split.name == ALL:
        del rows[TRAIN]
    if empty := [part for part in rows if not rows[part]]:
        raise InputError(f"--split {split.name} leaves no labelled {empty[0]} row; give {split.instead}")
    columns_of = {part: columns | targets if part == TRAIN else columns for part in rows}
    tables = {part: _make_table(columns_of[part], rows[part], label_names) for part in rows}
    # Joined once for all parts but the training part, whose targets are other columns.
    joined = {part: _join(source, columns_of[part], label_names) for part in (TEST, TRAIN) if part in rows}
    datasets = {part: _select(joined.get(part, joined[TEST]), rows[part]) for part in rows}
    copies = _find_copies(joined[TEST], columns, rows) if source.has_audio else []
    return Splits(
        train=datasets.get(TRAIN),
        validation=datasets.get(VALIDATION),
        test=datasets[TEST],
        tables=tables,
        recordings=_select(joined[TEST], [row for row in columns["row"] if is_usable[row]]),
        label_names=label_names,
        description=split.description,
        compare_epochs_on=data_args.compare_epochs_on,
        **_describe(split, source.origin, columns, copies, rows, tables, label_names, data_args.compare_epochs_on),
    )


def _add_context(columns: dict[str, list], num_turns: int) -> dict[str, list]:
    if not {"context", "dialogue"} & columns.keys():
        needed = "a column context or dialogue; give one (prepare_dataset.py writes dialogue), or leave it out"
        raise InputError(f"--context_turns {num_turns} needs {needed}")
    context = preceding_turns(columns, num_turns)
    logger.info(f"{sum(map(bool, context))} of {len(context)} rows have turns before them.")
    return {name: values for name, values in columns.items() if name not in OF_A_DIALOGUE} | {"context": context}


def _open(data_args: DataArguments, modalities: tuple[str, ...], attributes: dict[str, bool]) -> _Source:
    """The dataset by the names of its parts."""
    name, config_name = DEMO_DIR if data_args.is_demo else data_args.dataset_name, data_args.dataset_config_name
    if name == DEMO_DIR and not Path(name).is_dir():
        prepare("demo", None, DEMO_DIR)
    if name == KEMDY20_DIR and not Path(name).is_dir():
        # `datasets` would look for it on the Hub, which takes a minute without a network.
        raise InputError(
            f"there is no folder {name}; make it by prepare_dataset.py (see README.md), or give another --dataset_name"
        )
    loaded = load_parts(name, config_name, data_args.audio_column_name)
    columns, shown = _find_columns(loaded, data_args, modalities, attributes)
    columns_of = (set(part.column_names) for part in loaded.values())
    is_ours = (Path(name) / REPORT_FILE).is_file() or all(map(PREPARED_COLUMNS.issubset, columns_of))
    is_prepared = is_ours and columns.get("audio") == "audio" and "duration" in columns
    if not is_prepared:
        columns.pop("duration", None)  # it is measured
    parts = []
    for part, rows in loaded.items():
        rows = rows.select_columns(list(columns.values()))
        rows = rows.rename_columns({column: role for role, column in columns.items() if column != role})
        if isinstance(audio := rows.features.get("audio"), Audio):  # which stays encoded
            rows = rows.cast_column("audio", Audio(audio.sampling_rate, decode=False))
        parts.append((part, rows))
    return _Source(
        parts=parts,
        columns={role: shown[role] for role in columns if role != "audio"},
        has_audio="audio" in columns,
        is_prepared=is_prepared,
        origin={
            "name": name,
            "config": config_name,
            "fingerprints": {part: dataset._fingerprint for part, dataset in loaded.items()},
        },
    )


def _find_columns(
    parts: dict[str, Dataset], data_args: DataArguments, modalities: tuple[str, ...], attributes: dict[str, bool]
) -> tuple[dict[str, str], dict[str, str]]:
    """The column of each role, looked at in all parts, and how messages call it; there need be none of a modality that
    nothing reads, or of an attribute that isn't said to be needed."""
    columns, shown = {}, {}
    if taken := [name for name in attributes if name in (*MODALITIES, *OPTIONAL_COLUMNS, "label", "part", "row")]:
        raise InputError(f"--attributes {taken[0]} has a meaning of its own; give columns of numbers by other names")
    for role, other in {"audio": "text", "text": "audio", "label": None, **dict.fromkeys(attributes)}.items():
        column = getattr(data_args, f"{role}_column_name", role)
        shown[role] = f"--attributes {role}" if role in attributes else f"--{role}_column_name {column}"
        try:
            for name, part in parts.items():
                if column not in part.column_names:
                    legal = f"give one of {', '.join(part.column_names)}"
                    if role in modalities:
                        legal += f", or --fusion {other}, which reads no {role}"
                    elif role in data_args.eval_modalities:
                        legal += f", or leave {role} out of --eval_modalities"
                    raise InputError(f"{shown[role]} is no column of split {name!r}; {legal}")
                check_column(role, part.features[column], shown[role])
            columns[role] = column
        except InputError as error:
            if attributes.get(role, role in ("label", *modalities, *data_args.eval_modalities) or column != role):
                raise
            if role in attributes:
                logger.warning(f"{error}: it is neither learnt nor scored")
    for role in OPTIONAL_COLUMNS + (OF_A_DIALOGUE if data_args.context_turns else ()):
        column = getattr(data_args, f"{role}_column_name", role)
        kinds = {kind_of(part.features[column]) if column in part.column_names else None for part in parts.values()}
        if column != role:
            shown[role] = f"--{role}_column_name {column}"
            if None in kinds:
                legal = ", ".join(dict.fromkeys(name for part in parts.values() for name in part.column_names))
                raise InputError(f"{shown[role]} isn't in every split; give one of {legal}")
        # Raters chose among the classes of `label`; and others call columns so that aren't about raters.
        is_of_raters = columns["label"] == "label" and kinds <= {*ROLES[role][1], "null"}
        if role in ("emotions", "votes") and not is_of_raters:
            continue
        if (column != role or role not in columns.values()) and None not in kinds:
            columns[role] = column
            shown.setdefault(role, f"column {role}")
    for role, column in columns.items():
        other = next(name for name, its in columns.items() if its == column)
        if other != role:
            raise InputError(f"{shown[role]} is the column of the {other} too; give another")
    return columns, shown


def _check_rows(source: _Source, columns: dict[str, list], modalities: tuple[str, ...]) -> list[bool]:
    """Whether each row can be used; the others are counted with their IDs in the log. Recordings that are opened for it
    give the column `duration` (seconds); a prepared dataset has it already."""
    needs_text = "text" in modalities
    problems = ["no transcript" if needs_text and text is None else None for text in columns["text"]]
    if not source.has_audio:
        columns["duration"] = [0.0] * len(problems)
    elif not (source.is_prepared and None not in columns["duration"]):
        recordings = chain.from_iterable(part.select_columns("audio") for _, part in source.parts)
        recordings = tqdm(recordings, desc="Checking recordings", total=len(problems), unit=" rows")
        measured = [measure(recording["audio"]) for recording in recordings]
        columns["duration"] = [None if isinstance(seconds, str) else seconds for seconds in measured]
        unread = [seconds if isinstance(seconds, str) else None for seconds in measured]
        problems = [problem or other for problem, other in zip(problems, unread)]
    names = defaultdict(list)
    for part, problem, name in zip(columns["part"], problems, columns["segment_id"]):
        if problem is not None:
            names[part, problem].append(str(name))
    for (part, problem), bad in names.items():
        total = columns["part"].count(part)
        logger.warning(f"{len(bad)} of {total} rows of {part} are left out, {problem}: {first_names(bad)}")
    for part in dict(source.parts):
        if not any(other == part and problem is None for other, problem in zip(columns["part"], problems)):
            reasons = "; ".join(problem for other, problem in names if other == part)
            raise InputError(f"no row of split {part!r} can be used ({reasons or 'it is empty'})")
    return [problem is None for problem in problems]


def _join(source: _Source, columns: dict[str, list], label_names: list[str]) -> list[Dataset]:
    """The recordings of each part, from where they are, beside the columns that are in memory."""
    joined, start = [], 0
    for _, part in source.parts:
        table = _make_table(columns, range(start, start + len(part)), label_names)
        audio = [part.select_columns("audio")] if source.has_audio else []
        joined.append(concatenate_datasets([*audio, table], axis=1))
        start += len(part)
    return joined


def _find_copies(pieces: list[Dataset], columns: dict[str, list], rows: dict[str, list[int]]) -> list[str | None]:
    """Of each row in a part the ID of the first with the same recording, to the byte. Only those are read that are as
    long as another: seldom many, and ten thousand in less than a second."""
    counts = Counter(columns["duration"][row] for members in rows.values() for row in members)
    alike = sorted(row for members in rows.values() for row in members if counts[columns["duration"][row]] > 1)
    first: dict[bytes, str] = {}
    copies: list[str | None] = [None] * len(columns["row"])
    # By batches: row by row takes five times as long.
    batches = _select(pieces, alike).select_columns("audio").iter(16) if alike else ()
    for row, recording in zip(alike, chain.from_iterable(batch["audio"] for batch in batches)):
        sound, _ = find_sound(recording)
        if isinstance(sound, str):
            with open_file(sound)[0] as file:
                sound = file.read()
        digest = xxhash.xxh3_128_digest(sound if isinstance(sound, bytes) else np.asarray(sound).tobytes())
        copies[row] = first.setdefault(digest, str(columns["segment_id"][row]))
    return copies


def _select(pieces: list[Dataset], rows: list[int]) -> Dataset:
    """`rows` of the whole that the pieces make up."""
    # Selected from each piece by itself: joining a selection would copy its recordings.
    selected, start = [], 0
    for piece in pieces:
        if inside := [row - start for row in rows if start <= row < start + len(piece)]:
            selected.append(piece.select(inside))
        start += len(piece)
    return selected[0] if len(selected) == 1 else concatenate_datasets(selected)


def _make_table(columns: dict[str, list], rows, label_names: list[str]) -> Dataset:
    """`rows` of `columns`, whose labels have their names."""
    table = Dataset.from_dict({n: [values[row] for row in rows] for n, values in columns.items() if n != "label"})
    if "context" in columns:
        table = table.cast_column("context", List(Value("string")))  # also where no row has any
    labels = [columns["label"][row] for row in rows]
    return table.add_column("label", labels, feature=ClassLabel(names=label_names))


def _describe(split: Split, origin, columns, copies, rows, tables, label_names, compare_epochs_on) -> dict:
    """Log and give the `record` and the `membership` of [`Splits`]."""
    part_of = {row: part for part, members in rows.items() for row in members}
    used = [part_of.get(row) for row in columns["row"]]
    counts = {}
    for part, table in tables.items():
        sums = target_shares(table, len(label_names)).sum(axis=0)
        counts[part] = {name: round(float(total), 3) for name, total in zip(label_names, sums)}
    overlaps = find_overlaps({**columns, "first_copy": copies}, used)
    missing = {part: [name for name, number in numbers.items() if not number] for part, numbers in counts.items()}
    warnings = split.warnings + [
        f"no row of {part} is {' or '.join(names)}" for part, names in missing.items() if names
    ]
    for overlap in overlaps:
        logger.info(writable(overlap))
    for warning in warnings:
        logger.warning(writable(warning))
    record = {
        "dataset": origin,
        "split": split.name,
        "num_folds": split.num_folds,
        "fold": split.fold,
        "description": split.description,
        "compare_epochs_on": compare_epochs_on,
        "parts": {
            part: {"rows": len(rows[part]), "classes": counts[part], "groups": split.groups.get(part)} for part in rows
        },
        "overlaps": list(overlaps.values()),
        "warnings": warnings,
    }
    return {
        "record": record,
        "membership": [(str(name), part or "") for name, part in zip(columns["segment_id"], used)],
    }
