"""Examples for the app: an utterance of each emotion from the demo corpus, as wav files.
Those of data/demo where it is there; otherwise of a small corpus that is made at start."""

from dataclasses import dataclass
from pathlib import Path

from datasets import concatenate_datasets

from corpora.demo import write_corpus
from corpora.loading import load_parts
from corpora.roles import encode_labels, read_columns
from prepare_dataset import prepare
from training.arguments import DEMO_DIR


NUM_UTTERANCES, NUM_SESSIONS = 60, 6


@dataclass
class Example:
    """An utterance: its recording, its transcript, and the emotion that the corpus gives it."""

    audio: Path
    text: str
    label: str


def write_examples(folder: Path, dataset_dir: Path = Path(DEMO_DIR)) -> list[Example]:
    """Write a recording of each emotion into `folder`: the last of the dataset, as the default fold holds the last
    sessions out."""
    if not dataset_dir.is_dir():
        dataset_dir = folder / "dataset"
        write_corpus(folder / "corpus", NUM_UTTERANCES, NUM_SESSIONS)
        prepare("kemdy20", folder / "corpus", dataset_dir, num_proc=1)
    parts = load_parts(str(dataset_dir))
    columns = read_columns(parts.items(), ("label", "text"))
    names = encode_labels(parts.items(), columns)
    last = {label: row for row, label in enumerate(columns["label"])}
    rows = concatenate_datasets(list(parts.values()))
    examples = []
    for index, name in enumerate(names):
        if index in last:
            path = folder / f"{name}.wav"
            path.write_bytes(rows[last[index]]["audio"]["bytes"])
            examples.append(Example(path, columns["text"][last[index]], name))
    return examples
