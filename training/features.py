"""What frozen backbones make of recordings and transcripts, computed once and kept in Arrow files that runs share:
pooled vectors, those of each layer for a learned sum, or the hidden states where sequences are read."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import xxhash
from datasets import Dataset, Features, List, Value
from datasets import config as datasets_config
from filelock import FileLock, Timeout
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from foundation.errors import InputError
from foundation.files import to_disk, write_json
from fusion_rsa_cfn import pool
from training.arguments import DataArguments
from training.data import Splits
from training.trainer import RsaCfnDataCollator, RsaCfnTrainer


logger = logging.getLogger(__name__)

# Raise it when the code computes other features under the same key.
VERSION = 1
FEATURES_FILE = "features.arrow"
PROVENANCE_FIELDS = ("_name_or_path", "architectures", "auto_map", "dtype", "processor_class", "transformers_version")
MASKS = {"audio": "audio_attention_mask", "text": "attention_mask"}


def read_features_instead(trainer: RsaCfnTrainer, splits: Splits, data_args: DataArguments) -> Splits:
    """Have the Trainer read features of its model's frozen backbones, and give the splits without the recordings. The
    first run on a dataset computes them for all rows; every later one with the same backbone finds them, whatever its
    fusion, fold and seed. Raises InputError if they can't be written."""
    features = {}
    with trainer.args.main_process_first(desc="caching the features"):
        for modality in trainer.model.fusion.modalities:
            key = describe_features(trainer, splits, data_args, modality)
            path = _find_or_make(trainer, splits.recordings, modality, key)
            backbone = getattr(trainer.model, f"{modality}_model")
            features[modality] = CachedFeatures(path, key, backbone.config.hidden_size)
    trainer.data_collator = CachedFeatureCollator(
        trainer.processing_class, features=features, attributes=trainer.data_collator.attributes
    )
    augmentation = trainer.train_data_collator.augmentation
    trainer.train_data_collator = replace(trainer.data_collator, augmentation=augmentation)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        if part is not None and "audio" in part.column_names:
            parts[name] = part.remove_columns("audio")
    splits = replace(splits, **parts)
    trainer.train_dataset, trainer.eval_dataset = splits.train, splits.compared
    return splits


class CachedFeatures:
    """Features of one modality, looked up by the number of their row; they stay in the Arrow file, which lacks the rows
    that couldn't be read."""

    def __init__(self, path: Path, key: dict, hidden_size: int):
        dataset = Dataset.from_file(str(path))
        self.position_of = {row: position for position, row in enumerate(dataset["row"][:])}
        self.features = dataset.select_columns("features").with_format("torch")
        self.modality = key["modality"]
        self.is_pooled = key["pooling_mode"] is not None
        self.num_layers = key.get("num_layers")
        self.hidden_size = hidden_size

    def __getitem__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Rows → the model's `audio_embeds` or `text_embeds`, and for sequences their mask."""
        features = self.features[[self.position_of[row] for row in rows]]["features"]
        if self.num_layers:
            features = features.view(len(rows), self.num_layers, 1, -1)  # (B, L, 1, H)
        if self.is_pooled:
            return {f"{self.modality}_embeds": features}  # (B, H)
        states = [row.view(-1, self.hidden_size) for row in features]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in states], batch_first=True)  # (B, S)
        return {f"{self.modality}_embeds": pad_sequence(states, batch_first=True), MASKS[self.modality]: mask}


@dataclass
class CachedFeatureCollator(RsaCfnDataCollator):
    """Rows → one batch of features for each modality that the model reads, in place of recordings and transcripts."""

    features: dict[str, CachedFeatures] = field(default_factory=dict)

    def read(self, rows: list[dict]) -> tuple[list[dict], dict[int, str]]:
        used = [one.position_of for name, one in self.features.items() if self.modality in ("both", name)]
        known = {row["row"]: all(row["row"] in one for one in used) for row in rows}
        lost = {place: "no features" for place, row in enumerate(rows) if not known[row["row"]]}
        # Any other row stands in for one without features.
        other = {"row": next(row for row in used[0] if all(row in one for one in used))} if lost else {}
        return [{**row, **other} if place in lost else row for place, row in enumerate(rows)], lost

    def model_inputs(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        inputs = {}
        for modality, features in self.features.items():
            if self.modality in ("both", modality):
                inputs |= features[[row["row"] for row in rows]]
        return inputs


def describe_features(trainer: RsaCfnTrainer, splits: Splits, data_args: DataArguments, modality: str) -> dict:
    """All that features depend on; features under an equal description are equal. The weights stand for the name and
    the revision of a backbone, so that a copy elsewhere is the same one, and a random one is told from the next."""
    model, processor = trainer.model, trainer.processing_class
    backbone = getattr(model, f"{modality}_model")
    key = {
        "version": VERSION,
        "modality": modality,
        "backbone": _without_provenance(backbone.config),
        "weights": hash_weights(backbone),
        "pooling_mode": model.config.pooling_mode if model.takes_pooled else None,
        "mask_padding": model.config.mask_padding,
        "dtype": str(model.dtype),
        "mixed_precision": trainer.accelerator.mixed_precision,
        "dataset": splits.record["dataset"]["fingerprints"],
        "column": getattr(data_args, f"{modality}_column_name"),
        "rows": _hash(splits.recordings["row"][:]),
    }
    if model.config.use_weighted_layer_sum:
        key["num_layers"] = backbone.config.num_hidden_layers + 1
    if modality == "audio":
        return key | {
            "feature_extractor": _without_provenance(processor.feature_extractor),
            "max_audio_seconds": processor.max_audio_seconds,
            "audio_crop": processor.audio_crop,
        }
    # The tokens themselves stand for the tokenizer and its limit.
    texts = {name: splits.recordings[name][:] for name in ("text", "context") if name in splits.recordings.column_names}
    return key | {"tokens": _hash(processor(**texts, padding=False)["input_ids"])}


def _without_provenance(saved) -> dict:
    """A configuration without what only says where it comes from and how it was saved."""
    return {name: value for name, value in saved.to_dict().items() if name not in PROVENANCE_FIELDS}


def hash_weights(backbone: torch.nn.Module) -> str:
    """A digest of the names, types, shapes and values of all weights that evaluation reads."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(backbone.state_dict().items()):
        if name == "masked_spec_embed":
            # Only SpecAugment uses it, in training; checkpoints often lack it, and it is then random.
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash(value) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, default=str).encode())


def _find_or_make(trainer: RsaCfnTrainer, recordings: Dataset, modality: str, key: dict) -> Path:
    """The file of the features that `key` describes: an earlier run's, or a new one."""
    folder = Path(datasets_config.HF_DATASETS_CACHE) / "rsa_cfn_features" / _hash(key)
    path = folder / FEATURES_FILE
    name = f"{modality.capitalize()} features of {len(recordings)} rows"
    start = time.perf_counter()
    try:
        for left in folder.parent.glob("*.incomplete"):
            with suppress(Timeout), FileLock(left.with_suffix(".lock"), timeout=0):
                shutil.rmtree(left)
        if _is_wanted(path, recordings, trainer.args.process_index):
            folder.parent.mkdir(parents=True, exist_ok=True)
            # The lock ends with its process; another run that wants the same features waits for them.
            with FileLock(f"{folder}.lock"):
                if _is_wanted(path, recordings, trainer.args.process_index):
                    shutil.rmtree(folder, ignore_errors=True)
                    # The folder gets its name when all is written: what a killed run left is never taken for features.
                    incomplete = folder.with_suffix(".incomplete")
                    incomplete.mkdir()
                    write_json(incomplete / "key.json", json.loads(json.dumps(key, default=str)))
                    _write(incomplete / FEATURES_FILE, _compute(trainer, recordings, modality))
                    os.rename(incomplete, folder)
                    to_disk(folder.parent)
                    seconds, megabytes = time.perf_counter() - start, path.stat().st_size / 1e6
                    logger.info(f"{name}: computed in {seconds:.1f} s, {megabytes:.1f} MB in {folder}.")
                    return path
    except OSError as error:
        raise InputError(
            f"--cache_features can't write to {folder.parent} ({error.strerror or error}); make room there, or name "
            "another folder by the environment variable HF_DATASETS_CACHE"
        ) from error
    logger.info(f"{name}: reused from {folder}.")
    return path


def _is_wanted(path: Path, recordings: Dataset, process: int) -> bool:
    """Whether features have to be computed: there are none, or not of a row that may be readable again. That is tried
    by one process, so that all read the same file."""
    try:
        return not path.exists() or (process == 0 and len(Dataset.from_file(str(path))) < len(recordings))
    except pa.ArrowException:  # it is damaged
        return True


def _write(path: Path, batches: Iterator[tuple[list[int], list[np.ndarray]]]) -> None:
    """One Arrow file of row numbers and features, which `datasets` maps into memory."""
    with path.open("wb") as stream:
        writer = None
        for rows, features in batches:
            columns = Features({"row": Value("int64"), "features": List(Value(str(features[0].dtype)))})
            writer = writer or pa.ipc.new_stream(stream, columns.arrow_schema)
            writer.write_batch(pa.record_batch([rows, features], schema=columns.arrow_schema))
        if writer is None:
            raise InputError("--cache_features found no recording that can still be read; see that they are there")
        writer.close()
        stream.flush()
        os.fsync(stream.fileno())


@torch.no_grad()
def _compute(trainer: RsaCfnTrainer, recordings: Dataset, modality: str) -> Iterator[tuple[list[int], list]]:
    """Row numbers and flat features, batch by batch, the longest clips first: rows of a batch are alike in length."""
    model, args = trainer.model, trainer.args
    by_length = recordings.select(np.argsort(-np.array(recordings["duration"][:]), kind="stable"))
    loader = DataLoader(
        by_length,
        batch_size=args.per_device_eval_batch_size,
        collate_fn=partial(_with_numbers, RsaCfnDataCollator(trainer.processing_class, modality)),
        num_workers=args.dataloader_num_workers,
        # Its own, so that training draws the same numbers whether features are computed or found.
        generator=torch.Generator(),
    )
    model.to(args.device)
    encode = model.get_audio_states if modality == "audio" else model.get_text_states
    # float16 keeps what autocast made of them; Arrow has no bfloat16.
    dtype = torch.float16 if trainer.accelerator.mixed_precision == "fp16" else torch.float32
    for rows, lost, inputs in tqdm(loader, desc=f"Caching {modality} features", disable=args.disable_tqdm):
        inputs = {name: tensor.to(args.device) for name, tensor in inputs.items()}
        is_weighed = model.config.use_weighted_layer_sum
        with trainer.compute_loss_context_manager():
            states, counts, *layers = encode(**inputs, each_layer=is_weighed)
        if model.takes_pooled:
            # A mean or a sum over time, and a weighted sum over layers, may change places.
            pooled = [pool(states, counts, model.config.pooling_mode) for states in (layers[0] if layers else [states])]
            values = list(torch.cat(pooled, dim=1).float().cpu().numpy())  # (B, L * H)
        else:
            states, mask = states.cpu(), counts.cpu()
            values = [row[valid.bool()].to(dtype).flatten().numpy() for row, valid in zip(states, mask)]
        if kept := [place for place in range(len(rows)) if place not in lost]:
            yield [rows[place] for place in kept], [values[place] for place in kept]


def _with_numbers(collator: RsaCfnDataCollator, rows: list[dict]) -> tuple[list[int], dict[int, str], dict]:
    """The numbers of the rows, what is wrong with those that can't be read, and the batch."""
    rows, problems = collator.read(rows)
    return [row["row"] for row in rows], problems, collator.model_inputs(rows)
