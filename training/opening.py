"""What a run says before its model is loaded: what it trains and scores, on what, how, and where it writes."""

from transformers import TrainingArguments

from foundation.words import writable
from training.arguments import DEMO_DIR, DataArguments, ModelArguments
from training.data import Splits
from training.precision import NAMES


def describe_run(splits: Splits, model_args: ModelArguments, data_args: DataArguments, training_args) -> str:
    """A few lines for the log."""
    told = {"train": "rows train", "validation": "choose settings", "test": "are scored"}
    rows = ", ".join(f"{len(splits.tables[part])} {what}" for part, what in told.items() if part in splits.tables)
    backbones = {"audio": model_args.audio_model, "text": model_args.text_model}
    of = backbones.get(model_args.fusion) or " and ".join(filter(None, backbones.values()))
    lines = {
        "Dataset": f"{data_args.dataset_name or DEMO_DIR}: {rows}: {writable(splits.description)}",
        "Classes": f"{len(splits.label_names)}: {', '.join(map(writable, splits.label_names))}",
        "Model": f"{model_args.fusion} of {of or model_args.model_name_or_path}",
        "Training": _describe_training(model_args, training_args) if training_args.do_train else "none",
        "Device": f"{training_args.device}, {NAMES.get(training_args.mixed_precision, 'float32')}",
        "Written to": training_args.output_dir,
    }
    return "\n".join(f"{name + ':':<11} {value}" for name, value in lines.items())


def _describe_training(model_args: ModelArguments, training_args: TrainingArguments) -> str:
    """Such as `learning rate 1e-05, 10 epochs, 4 × 2 accumulated rows a step`."""
    rates = {"": training_args.learning_rate, "audio ": model_args.audio_learning_rate}
    rates["text "] = model_args.text_learning_rate
    told = [f"{name}learning rate {rate:g}" for name, rate in rates.items() if rate is not None]
    is_by_steps = training_args.max_steps > 0
    told.append(f"{training_args.max_steps} steps" if is_by_steps else f"{training_args.num_train_epochs:g} epochs")
    factors = {"": training_args.per_device_train_batch_size, "accumulated": training_args.gradient_accumulation_steps}
    factors["processes"] = training_args.world_size
    batch = " × ".join(f"{number} {name}".strip() for name, number in factors.items() if number > 1 or not name)
    return f"{', '.join(told)}, {batch} rows a step"
