"""What can be seen to be wrong once the rows of a run are known, before a model is loaded."""

import json
import os
import sys
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, TrainingArguments

from configuration_rsa_cfn import RsaCfnConfig
from corpora.recordings import SAMPLING_RATE
from foundation.errors import InputError
from training.arguments import DataArguments, ModelArguments
from training.data import Splits
from training.model import TINY_AUDIO, TINY_TEXT


SHARED_MEMORY = "/dev/shm"
# A float32 sample and its int64 mask at the most; a worker holds a finished batch and makes another.
BYTES_PER_SAMPLE = 12
BATCHES_PER_WORKER = 2
# Of a backbone's configuration, what its weights and their meaning depend on.
BACKBONE_FIELDS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
BACKBONE_FIELDS += ("vocab_size", "conv_dim", "conv_kernel", "conv_stride", "feat_extract_norm")


def check_rows(splits: Splits, data_args: DataArguments, training_args: TrainingArguments) -> None:
    """
    Check that there are enough training rows, and enough shared memory for the workers that make batches of them.

    Raises:
        InputError: There aren't.
    """
    rows, num_labels = splits.tables["train"], len(splits.label_names)
    num_rows = len(rows)
    if num_rows < num_labels:
        raise InputError(
            f"{num_rows} training rows for {num_labels} classes are too few; give a dataset or a split with at least "
            "one row of each class"
        )
    batch_size = training_args.per_device_train_batch_size
    if batch_size > num_rows:
        raise InputError(
            f"--per_device_train_batch_size {batch_size} is more than the {num_rows} training rows; give at most that"
        )
    seconds = data_args.max_audio_seconds
    if "duration" in rows.column_names:
        seconds = min(seconds, max(rows["duration"][:]))
    batch_bytes = max(batch_size, training_args.per_device_eval_batch_size) * seconds * SAMPLING_RATE * BYTES_PER_SAMPLE
    check_shared_memory(training_args.dataloader_num_workers, batch_bytes, SHARED_MEMORY)


def check_shared_memory(num_workers: int, batch_bytes: float, folder: str) -> None:
    """
    Check that workers can hand over their batches: where they can't, torch dies of a bus error.

    Args:
        num_workers (`int`): Of a DataLoader.
        batch_bytes (`float`): Size of one batch.
        folder (`str`): Where shared memory lies on Linux.

    Raises:
        InputError: There is too little.
    """
    if not num_workers or sys.platform != "linux":
        return
    instead = "give --dataloader_num_workers 0, or more shared memory (docker run --shm-size 2g)"
    try:
        status = os.statvfs(folder)
    except OSError as error:
        reason = f"there is no {folder} ({error.strerror})"
        raise InputError(
            f"--dataloader_num_workers {num_workers} needs shared memory, and {reason}; {instead}"
        ) from error
    free, needed = status.f_bavail * status.f_frsize, num_workers * BATCHES_PER_WORKER * batch_bytes
    if free < needed:
        raise InputError(
            f"--dataloader_num_workers {num_workers} needs {needed / 1e6:.0f} MB of shared memory, and {folder} has "
            f"{free / 1e6:.0f} MB; {instead}"
        )


def check_same_run(
    folder: Path,
    model_args: ModelArguments,
    data_args: DataArguments,
    splits: Splits,
    class_weights: list[float] | None,
) -> None:
    """
    Check that what was saved is of the model and the rows that this run is about.

    Args:
        folder (`Path`): The saved model or the checkpoint; `split.json` lies there or one folder up.

    Raises:
        InputError: It is of others; the message names what differs.
    """
    try:
        config = RsaCfnConfig.from_pretrained(folder)
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--resume_from_checkpoint: {folder} holds no RSA-CFN model ({reason})") from error
    saved = {"classes": [config.id2label[index] for index in range(config.num_labels)]}
    given = {"classes": splits.label_names}
    fields = model_args.saved_model_fields | {"fusion": model_args.fusion}
    if model_args.model_name_or_path is None:
        fields = {**model_args.config_fields, **model_args.freeze_fields, "class_weights": class_weights}
        fields["max_text_tokens"] = data_args.max_text_tokens
        for name, backbone in (("audio_model", config.audio_config), ("text_model", config.text_config)):
            for field, value in _backbone_fields(model_args, name).items():
                saved[f"{name}'s {field}"] = _as_json(getattr(backbone, field, None))
                given[f"{name}'s {field}"] = _as_json(value)
    for name, value in fields.items():
        saved[name], given[name] = getattr(config, name), value
    for record in (folder / "split.json", folder.parent / "split.json"):
        if record.is_file():
            before, now = json.loads(record.read_text(encoding="utf-8")), _as_json(splits.record)
            for name in ("split", "num_folds", "fold"):
                saved[name], given[name] = before.get(name), now[name]
            for part in now["parts"]:
                saved[f"{part} rows"] = before.get("parts", {}).get(part, {}).get("rows")
                given[f"{part} rows"] = now["parts"][part]["rows"]
            break
    differences = [f"{name} {saved[name]}, now {given[name]}" for name in given if saved[name] != given[name]]
    if differences:
        raise InputError(
            f"--resume_from_checkpoint: {folder} is of another run ({'; '.join(differences)}); give the arguments it "
            "was started with, or a new --output_dir"
        )


def _backbone_fields(model_args: ModelArguments, name: str) -> dict:
    if model_args.is_tiny:
        tiny = {"audio_model": TINY_AUDIO, "text_model": TINY_TEXT}[name]
        return {field: tiny[field] for field in BACKBONE_FIELDS if field in tiny}
    try:
        config = AutoConfig.from_pretrained(getattr(model_args, name))
    except (OSError, ValueError):
        # Said by what loads the model.
        return {}
    return {field: getattr(config, field) for field in BACKBONE_FIELDS if hasattr(config, field)}


def _as_json(value):
    return json.loads(json.dumps(value))
