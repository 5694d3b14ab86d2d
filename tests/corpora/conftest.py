"""A dataset of one's own, as the csv corpus makes them: other classes, several splits, few columns."""

import io

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value


CLASSES = ["calm", "happy", "up|set <b>"]


@pytest.fixture(scope="session")
def own_dataset():
    """5 rows: train has labels 0, 0, 2, test has 1 and none; the last clip is 7 s long, the others 1 s."""
    parts = {"train": ([0, 0, 2], [1.0, 1.0, 1.0]), "test": ([1, None], [1.0, 7.0])}
    return DatasetDict({name: make_part(name, *columns) for name, columns in parts.items()})


def make_part(name, labels, durations):
    ids = [f"{name}/{index}" for index in range(len(labels))]
    columns = {
        "audio": [{"bytes": flac(seconds), "path": "speech.flac"} for seconds in durations],
        "text": ["말"] * len(labels),
        "label": labels,
        "segment_id": ids,
        "duration": durations,
    }
    features = Features(
        {
            "audio": {"bytes": Value("binary"), "path": Value("string")},
            "text": Value("string"),
            "label": ClassLabel(names=CLASSES),
            "segment_id": Value("string"),
            "duration": Value("float32"),
        }
    )
    # Cast afterwards: encoding an Audio column would want torchcodec.
    return Dataset.from_dict(columns, features).cast_column("audio", Audio(16000, decode=False))


def flac(seconds):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(16000 * seconds), np.int16), 16000, format="FLAC")
    return file.getvalue()
