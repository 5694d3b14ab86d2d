"""Where the attention of a fusion over its features goes, over a dataset: arrays, and the picture of the paper."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from datasets import Audio
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from corpora.loading import load_parts
from corpora.roles import encode_labels, read_columns
from foundation.errors import InputError
from foundation.figures import new_figure
from foundation.words import first_names
from processing_rsa_cfn import decode_audio


logger = logging.getLogger(__name__)

BATCH_SIZE = 8
NEUTRAL = "neutral"
FUSIONS_WITH_ATTENTION = ("rsa", "rsa_cfn", "hybrid_fusion")
COLORS = {"median_of_neutral": "#555555", "median_of_rest": "#D55E00"}


@dataclass
class AttentionWeights:
    """For every utterance, the mean over the queries of the weights of each feature as a key. In `rsa` audio and text
    attend to each other, and a row of both adds up to 1; in `rsa_cfn` and `hybrid_fusion` each adds up to 1."""

    audio: np.ndarray  # (num_rows, num_audio_features)
    text: np.ndarray  # (num_rows, num_text_features)
    is_neutral: np.ndarray  # (num_rows,)
    segment_id: np.ndarray  # (num_rows,)

    def medians(self, modality: str) -> dict[str, np.ndarray]:
        """The median weight of each feature over the neutral utterances and over the rest, `(num_features,)` each."""
        weights = getattr(self, modality)
        return {
            "median_of_neutral": np.median(weights[self.is_neutral], axis=0),
            "median_of_rest": np.median(weights[~self.is_neutral], axis=0),
        }

    def save(self, file: str | Path) -> None:
        """Write all fields and the medians (`audio_median_of_neutral` and so on) as an npz file."""
        arrays = vars(self).copy()
        for modality in ("audio", "text"):
            arrays |= {f"{modality}_{name}": values for name, values in self.medians(modality).items()}
        np.savez_compressed(file, **arrays)


def collect_attention(model, processor, dataset_name: str, segment_ids: set[str] | None = None) -> AttentionWeights:
    """Run a model of `rsa`, `rsa_cfn` or `hybrid_fusion` over the labelled rows of a dataset, keeping the weights of
    each. `dataset_name` is a folder from prepare_dataset.py, or a dataset with columns audio, text and label; it needs
    neutral and other rows that can be read. `segment_ids` are the rows to keep to."""
    if model.config.fusion not in FUSIONS_WITH_ATTENTION:
        problem = f"fusion={model.config.fusion!r} has no attention over features"
        raise InputError(f"{problem}; give a model of {', '.join(FUSIONS_WITH_ATTENTION)}")
    try:
        return _collect(model, processor, dataset_name, segment_ids)
    except (OSError, SystemError, ValueError) as error:  # of pyarrow, whose files are read without a check
        if isinstance(error, InputError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"dataset {dataset_name} is damaged ({reason}); make or download it again") from error


def _collect(model, processor, dataset_name: str, segment_ids: set[str] | None) -> AttentionWeights:
    parts = load_parts(dataset_name)
    for part, dataset in parts.items():
        if lacking := [name for name in ("audio", "text", "label") if name not in dataset.column_names]:
            legal = ", ".join(dataset.column_names)
            raise InputError(f"split {part!r} of {dataset_name} has no column {lacking[0]!r}, only {legal}; rename one")
    columns = read_columns(parts.items(), ("label", "segment_id", "text"))
    names, labels = encode_labels(parts.items(), columns), columns["label"]
    if NEUTRAL not in names:
        raise InputError(f"{dataset_name} has no class {NEUTRAL!r} to set against the rest, only {', '.join(names)}")
    if segment_ids is not None:
        # A row without a label is passed over before its recording is read.
        labels = [label if str(name) in segment_ids else None for label, name in zip(labels, columns["segment_id"])]
    readable, rows, weights = _readable_rows(parts.values(), {**columns, "label": labels}, processor), [], []
    total = sum(label is not None for label in labels)
    with tqdm(total=total, desc="Attention", unit=" rows") as progress:
        while batch := list(islice(readable, BATCH_SIZE)):
            weights.append(_key_weights(model, processor, batch))
            rows += [(names[row["label"]] == NEUTRAL, row["segment_id"]) for row in batch]
            progress.update(len(batch))
    is_neutral = np.array([is_neutral for is_neutral, _ in rows], dtype=bool)
    if is_neutral.all() or not is_neutral.any():
        raise InputError(
            f"{dataset_name} has {is_neutral.sum()} neutral and {(~is_neutral).sum()} other rows that are labelled and "
            "readable; give one that has both"
        )
    audio, text = map(np.concatenate, zip(*weights))
    if not (np.isfinite(audio).all() and np.isfinite(text).all()):
        raise InputError("the model's attention isn't finite; give a model whose weights are")
    return AttentionWeights(audio, text, is_neutral, np.array([name for _, name in rows], dtype=str))


def _readable_rows(parts: Iterable, columns: dict[str, list], processor) -> Iterator[dict]:
    """Rows with a label, their audio decoded; those that can't be read are counted with their IDs in the log."""
    unreadable, row = [], 0
    for part in parts:
        part = part.select_columns("audio")
        if isinstance(part.features["audio"], Audio):
            part = part.cast_column("audio", Audio(part.features["audio"].sampling_rate, decode=False))
        for recording in part:
            label, text, segment_id = (columns[name][row] for name in ("label", "text", "segment_id"))
            row += 1
            if label is None:
                continue
            try:
                waveform = decode_audio(recording["audio"], None, processor.feature_extractor.sampling_rate)
            except ValueError:
                waveform = np.zeros(0)
            if not len(waveform) or text is None:
                unreadable.append(str(segment_id))
                continue
            yield {"audio": waveform, "text": text, "label": label, "segment_id": str(segment_id)}
    if unreadable:
        told = f"{len(unreadable)} of {row} rows lack readable audio or text and are left out"
        logger.warning(f"{told}: {first_names(unreadable)}")


@torch.no_grad()
def _key_weights(model, processor, batch: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the audio and of the text features as keys, `(batch_size, num_features)` each."""
    audio, texts = [row["audio"] for row in batch], [row["text"] for row in batch]
    inputs = processor(audio=audio, text=texts, return_tensors="pt")
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    maps = model(**inputs, output_attentions=True).attentions
    weights = [attention.float().mean(dim=1).cpu().numpy() for attention in maps]  # (B, features) each
    if len(weights) == 2:
        return weights[0], weights[1]
    size = model.config.audio_config.hidden_size  # audio comes first in the concatenation
    return weights[0][:, :size], weights[0][:, size:]


def draw_attention(weights: AttentionWeights) -> Figure:
    """The picture of the paper: the median weight of each feature, audio over text, neutral against the rest."""
    figure = new_figure(8.0, 5.6)
    num_neutral, num_rest = weights.is_neutral.sum(), (~weights.is_neutral).sum()
    labels = {"median_of_neutral": f"neutral ({num_neutral:,})", "median_of_rest": f"the rest ({num_rest:,})"}
    for axes, modality in zip(figure.subplots(2), ("audio", "text")):
        for name, median in weights.medians(modality).items():
            options = {"color": COLORS[name], "linewidth": 1.0, "alpha": 0.85, "label": labels[name]}
            # Steps, since features stand beside each other in no order.
            axes.plot(np.arange(len(median)), median, drawstyle="steps-mid", **options)
        axes.set(title=f"{modality} features", ylabel="median weight", xlim=(-0.5, len(median) - 0.5))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("feature")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure
