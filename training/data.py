"""A dataset with audio, text and labels → checked rows → the part that trains and the part that is scored."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from corpora.report import first_names
from prepare_dataset import prepare
from training import InputError
from training.arguments import KEMDY20_DIR, SPLITS, DataArguments


logger = logging.getLogger(__name__)

DEMO_DIR = "data/demo"
TEST_SIZE = 0.2
SPLIT_SEED = 42  # the paper's
VALIDATION_SIZE = 0.1
# Columns of a prepared corpus that splits, label transform and predictions.csv use where they exist.
OPTIONAL_COLUMNS = ("segment_id", "session", "emotions", "votes")


@dataclass
class Splits:
    """
    The rows of a run, all with a label.

    Args:
        train (`Dataset`): What the weights are fitted to; with soft labels it has a column `label_shares`.
        validation (`Dataset`, *optional*): Rows kept out of `train`, by which epochs are compared; only where they are.
        test (`Dataset`): What is reported; scored once, after training, in the order of the dataset.
        label_names (`list[str]`): Names of the classes.
        description (`str`): How the rows were divided, for the log.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    label_names: list[str]
    description: str


def load_splits(data_args: DataArguments, with_validation: bool) -> Splits:
    """
    Load the dataset, leave out and report rows that can't be used, and divide the rest.

    Args:
        data_args ([`DataArguments`]): Names the dataset, its columns and the split.
        with_validation (`bool`): Also take a validation part out of the training rows.

    Raises:
        InputError: The dataset, a column, its labels or the split doesn't fit.
    """
    named = {name: _select_columns(part, name, data_args) for name, part in _load(data_args).items()}
    label_names = _label_names(named)
    parts = {name: _usable(_encode_labels(part, label_names), name) for name, part in named.items()}
    split = data_args.split or _default_split(parts)
    if split == "predefined":
        train, validation, test, description = _predefined(parts)
    else:
        dataset = concatenate_datasets(list(parts.values()))
        train_rows, test_rows, description = SPLIT_FUNCTIONS[split](dataset)
        train, validation, test = dataset.select(train_rows), None, dataset.select(test_rows)
    if not with_validation:
        validation = None
    elif validation is None:
        train, validation = _take_validation(train)
    if data_args.label_transform:
        train = _with_transformed_ties(train, label_names)
    splits = Splits(
        train=_with_label_shares(train, label_names) if data_args.soft_labels else _labelled(train),
        validation=None if validation is None else _labelled(validation),
        test=_labelled(test),
        label_names=label_names,
        description=description,
    )
    for name, part in (("training", splits.train), ("validation", splits.validation), ("evaluation", splits.test)):
        if part is not None and not len(part):
            raise InputError(f"--split {split} leaves no labelled {name} row; give another of {', '.join(SPLITS)}")
    return splits


def _load(data_args: DataArguments) -> DatasetDict:
    name = data_args.dataset_name or _demo_dataset()
    folder = Path(name)
    if (folder / "annotation").is_dir():
        raise InputError(
            f"--dataset_name {name} is a corpus; convert it first: "
            f"python prepare_dataset.py --corpus_dir {name} --output_dir {KEMDY20_DIR}"
        )
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            loaded = load_from_disk(name)
        else:
            loaded = load_dataset(name, data_args.dataset_config_name)
    except Exception as error:  # whatever a dataset's files and loading code make `datasets` raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"--dataset_name {name} can't be loaded; give a folder from prepare_dataset.py or a dataset that "
            f"`datasets` loads ({type(error).__name__}: {reason})"
        ) from error
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict(train=loaded)


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


def _label_names(parts: dict[str, Dataset]) -> list[str]:
    """Names of the classes over all splits: a ClassLabel's own, the sorted strings, or LABEL_i for integers."""
    feature = next(iter(parts.values())).features["label"]
    if isinstance(feature, ClassLabel):
        return feature.names
    values = {value for part in parts.values() for value in part.unique("label") if value is not None}
    if values and all(isinstance(value, str) for value in values):
        return sorted(values)
    if values and all(isinstance(value, int) and value >= -1 for value in values):
        return [f"LABEL_{index}" for index in range(max(values) + 1)]
    raise InputError(f"the labels are of type {feature}; give class names, or class indices from 0 on")


def _encode_labels(part: Dataset, label_names: list[str]) -> Dataset:
    feature = part.features["label"]
    if isinstance(feature, ClassLabel) and feature.names != label_names:
        raise InputError(f"the splits have different classes: {', '.join(label_names)} and {', '.join(feature.names)}")
    return part.cast_column("label", ClassLabel(names=label_names))


def _usable(part: Dataset, name: str) -> Dataset:
    """
    The rows whose audio can be read and whose text isn't null, with a column `duration` (seconds) by which batches can
    be grouped; the others are counted with their IDs in the log.
    """
    problems: dict[str, list[str]] = {}
    usable, durations = [], []
    ids = part["segment_id"] if "segment_id" in part.column_names else range(len(part))
    rows = tqdm(part.select_columns(["audio", "text"]), desc=f"Checking {name}", unit=" rows")
    for index, (row, row_id) in enumerate(zip(rows, ids)):
        try:
            if row["text"] is None:
                raise _UnusableRowError("no transcript")
            durations.append(_duration(row["audio"]))
            usable.append(index)
        except _UnusableRowError as problem:
            problems.setdefault(str(problem), []).append(str(row_id))
    for problem, bad in problems.items():
        logger.warning(f"{len(bad)} of {len(part)} rows of {name} are left out, {problem}: {first_names(bad)}")
    if not usable:
        raise InputError(f"no row of split {name!r} can be used ({'; '.join(problems) or 'it is empty'})")
    return part.select(usable).add_column("duration", durations)


class _UnusableRowError(Exception):
    """The row can't be used; the message says why in a few words."""


def _duration(audio) -> float:
    """Seconds of a clip, from its header; samples are only read where they can be NaN."""
    if isinstance(audio, dict) and audio.get("array") is not None:
        samples = np.asarray(audio["array"], dtype=np.float32)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            raise _UnusableRowError("audio not finite, empty, or of several channels")
        return len(samples) / audio["sampling_rate"]
    if isinstance(audio, dict):
        audio = audio["path"] if audio.get("bytes") is None else audio["bytes"]
    if audio is None:
        raise _UnusableRowError("no audio")
    if not isinstance(audio, (str, bytes)):
        raise _UnusableRowError("audio neither a file nor samples with a sampling rate")
    try:
        with soundfile.SoundFile(io.BytesIO(audio) if isinstance(audio, bytes) else audio) as recording:
            if not recording.frames:
                raise _UnusableRowError("audio empty")
            if recording.subtype in ("FLOAT", "DOUBLE") and not np.isfinite(recording.read()).all():
                raise _UnusableRowError("audio not finite")
            return recording.frames / recording.samplerate
    except (soundfile.LibsndfileError, OSError):
        raise _UnusableRowError("audio unreadable") from None


def _default_split(parts: dict[str, Dataset]) -> str:
    if len(parts) > 1:
        return "predefined"
    return "session" if "session" in next(iter(parts.values())).column_names else "paper"


def _predefined(parts: dict[str, Dataset]) -> tuple[Dataset, Dataset | None, Dataset, str]:
    test_name = "test" if "test" in parts else "validation"
    if "train" not in parts or test_name not in parts:
        raise InputError(
            "--split predefined needs splits named train and test (or validation); this dataset has "
            f"{', '.join(parts)}: give --split session or --split paper"
        )
    validation = parts.get("validation") if test_name == "test" else None
    return parts["train"], validation, parts[test_name], f"the dataset's own splits, {test_name} is scored"


def _session_split(dataset: Dataset) -> tuple[list[int], list[int], str]:
    """The last fifth of the sessions is held out, so that no speaker is on both sides."""
    if "session" not in dataset.column_names:
        raise InputError("--split session needs a column named session; give --split paper or --split predefined")
    column = dataset["session"]
    sessions = sorted(set(column))
    if len(sessions) < 2:
        raise InputError(f"--split session needs two sessions, there is only {sessions}; give --split paper")
    held_out = set(sessions[-max(1, round(len(sessions) * TEST_SIZE)) :])
    rows = {side: [i for i, session in enumerate(column) if (session in held_out) == side] for side in (False, True)}
    description = f"sessions {', '.join(map(str, sorted(held_out)))} of {len(sessions)} are held out"
    return rows[False], rows[True], description


def _paper_split(dataset: Dataset) -> tuple[list[int], list[int], str]:
    """The paper's: a stratified 80/20 of the labelled rows in dataset order. Speakers are on both sides of it."""
    labels = dataset["label"]
    labelled = [index for index, label in enumerate(labels) if not _is_unlabelled(label)]
    try:
        train, test = train_test_split(
            labelled, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=[labels[index] for index in labelled]
        )
    except ValueError as error:
        raise InputError(f"--split paper can't be stratified ({error}); give --split session") from error
    # Ties have no label to be scored by; they stay on the training side for the label transform.
    ties = [index for index, label in enumerate(labels) if _is_unlabelled(label)]
    return sorted([*train, *ties]), sorted(test), "random stratified 80/20 of the paper, speakers are on both sides"


SPLIT_FUNCTIONS = {"session": _session_split, "paper": _paper_split}


def _labelled(dataset: Dataset) -> Dataset:
    rows = [index for index, label in enumerate(dataset["label"]) if not _is_unlabelled(label)]
    return dataset if len(rows) == len(dataset) else dataset.select(rows)


def _is_unlabelled(label: int | None) -> bool:
    # -1 is how `datasets` marks a ClassLabel that is not known.
    return label is None or label < 0


def _take_validation(train: Dataset) -> tuple[Dataset, Dataset]:
    """A tenth of the training sessions, or without sessions of the rows, by which epochs are compared."""
    groups = train["session"] if "session" in train.column_names else range(len(train))
    names = sorted(set(groups))
    count = max(1, round(len(names) * VALIDATION_SIZE))
    if count == len(names):
        raise InputError("one training session is too few to take a validation part from; leave out --eval_strategy")
    chosen = {names[index] for index in np.random.default_rng(SPLIT_SEED).permutation(len(names))[:count]}
    sides = [[i for i, group in enumerate(groups) if (group in chosen) == side] for side in (False, True)]
    return train.select(sides[0]), train.select(sides[1])


def _with_transformed_ties(train: Dataset, label_names: list[str]) -> Dataset:
    """Rows whose raters tie between neutral and exactly one other emotion come under that one; others as they are."""
    if "emotions" not in train.column_names or "neutral" not in label_names:
        raise InputError("--label_transform needs a column named emotions, and neutral among the classes")
    neutral = label_names.index("neutral")
    labels = [
        next(emotion for emotion in emotions if emotion != neutral)
        if _is_unlabelled(label) and len(emotions) == 2 and neutral in emotions
        else label
        for label, emotions in zip(train["label"], train["emotions"])
    ]
    return train.remove_columns("label").add_column("label", labels, feature=train.features["label"])


def _with_label_shares(train: Dataset, label_names: list[str]) -> Dataset:
    """The rows with votes, ties included, and a column `label_shares`: the share of the votes each class has."""
    if "votes" not in train.column_names:
        raise InputError("--soft_labels needs a column named votes, with a count for each class")
    votes = np.asarray(train["votes"][:], dtype=np.float64)  # (N, C)
    if votes.ndim != 2 or votes.shape[1] != len(label_names):
        raise InputError(f"--soft_labels needs {len(label_names)} votes in each row, one for each class in their order")
    rows = np.flatnonzero(votes.sum(axis=1) > 0)
    shares = votes[rows] / votes[rows].sum(axis=1, keepdims=True)
    return train.select(rows).add_column("label_shares", shares.tolist())


def balanced_class_weights(train: Dataset, num_labels: int) -> list[float]:
    """
    Weights in proportion to 1 / count of the class, whose mean over the training rows is 1.

    Args:
        train (`Dataset`): The training rows; soft labels count as their shares.
        num_labels (`int`): Number of classes. One without a row has weight 0.
    """
    if "label_shares" in train.column_names:
        counts = np.asarray(train["label_shares"][:]).sum(axis=0)  # (C,)
    else:
        counts = np.bincount(train["label"][:], minlength=num_labels)
    weights = np.zeros(num_labels)
    occurring = counts > 0
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return weights.tolist()
