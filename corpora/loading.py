"""Loads a prepared folder, or any other dataset, as its named parts."""

from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset, load_dataset_builder, load_from_disk

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
