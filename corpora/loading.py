"""Loads a prepared folder, or any other dataset, as its named parts, and reads the columns that describe its rows.
The recordings stay where they are: whoever needs them takes them from the parts."""

from collections.abc import Iterable
from pathlib import Path

import pandas
from datasets import ClassLabel, Dataset, IterableDataset, load_dataset, load_dataset_builder, load_from_disk

from foundation.errors import InputError


def load_parts(
    name: str, config_name: str | None = None, streaming: bool = False, columns: list[str] | None = None
) -> dict[str, Dataset] | dict[str, IterableDataset]:
    """The parts of a dataset by their names; one that isn't divided is called `train`.

    Args:
        name: A folder from prepare_dataset.py, or any folder or Hub id that `datasets` loads.
        config_name: The dataset's configuration on the Hub.
        streaming: Read it when it is iterated; a prepared folder is the same either way.
        columns: No others are needed, so don't read them where the files allow it (parquet).
    """
    folder = Path(name)
    if (folder / "annotation").is_dir():
        raise InputError(
            f"{name} is a corpus, not a dataset; convert it first: "
            f"python prepare_dataset.py --corpus_dir {name} --output_dir data/kemdy20"
        )
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            loaded = load_from_disk(name)
        else:
            options = {}
            if columns is not None and hasattr(load_dataset_builder(name, config_name).config, "columns"):
                options["columns"] = columns
            loaded = load_dataset(name, config_name, streaming=streaming, **options)
    except Exception as error:  # whatever a dataset's files and loading code make `datasets` raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"dataset {name} can't be loaded; give a folder from prepare_dataset.py or a dataset that `datasets` "
            f"loads ({type(error).__name__}: {reason})"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def read_columns(parts: Iterable[tuple[str, Dataset]], names: Iterable[str]) -> dict[str, list]:
    """The columns called `names` that all parts have, one after the other, and two that always are there: `part`, and
    `segment_id`, for which the number of the row in its part stands in.

    A part may come in several pieces. Columns that hold recordings would be read into memory.
    """
    parts = list(parts)
    common = [name for name in names if all(name in dataset.column_names for _, dataset in parts)]
    columns: dict[str, list] = {name: [] for name in (*common, "part")}
    for part, dataset in parts:
        values = dataset.select_columns(common).with_format(None)[:]
        for name in common:
            columns[name] += values[name]
        columns["part"] += [part] * len(dataset)
    if "segment_id" not in columns:
        numbers = pandas.Series(columns["part"]).groupby(columns["part"]).cumcount()
        is_divided = len(set(columns["part"])) > 1
        columns["segment_id"] = [f"{part}/{n}" if is_divided else f"{n}" for part, n in zip(columns["part"], numbers)]
    return columns


def encode_labels(parts: Iterable[tuple[str, Dataset]], column: str, labels: list) -> tuple[list, list[str]]:
    """Labels of any kind as class indices, `None` where there is none, and the names of the classes: a ClassLabel's
    own, the sorted strings, or LABEL_i for integers. `labels` are the values of `column` in all parts, of one kind."""
    features = [dataset.features[column] for _, dataset in parts]
    values = {label for label in labels if label is not None}
    if isinstance(features[0], ClassLabel):
        names = features[0].names
        for feature in features:
            if feature != features[0]:
                others = ", ".join(getattr(feature, "names", [str(feature)]))
                raise InputError(f"the parts have different classes in {column}: {', '.join(names)} and {others}")
    elif values and all(isinstance(value, str) for value in values):
        names = sorted(values)
        index_of = {name: index for index, name in enumerate(names)} | {None: None}
        return [index_of[label] for label in labels], names
    elif values and all(isinstance(value, int) and value >= -1 for value in values):
        names = [f"LABEL_{index}" for index in range(max(values) + 1)]
    else:
        raise InputError(f"the labels in {column} are of type {features[0]}; give class names, or indices from 0 on")
    # -1 is how `datasets` marks a ClassLabel that is not known.
    return [None if label == -1 else label for label in labels], names
