"""The arguments of a run as a recipe that run_classification.py reads, without those of one machine or person."""

from dataclasses import fields
from enum import Enum

from transformers import TrainingArguments

from foundation.words import without_folders
from training.arguments import DEMO_DIR, LIMITS, DataArguments, ModelArguments, training_defaults
from training.training_arguments import RsaCfnTrainingArguments


# Where a run is written, what shows it, who it is pushed for, and what it runs on: none of it changes the weights.
# `gradient_checkpointing` is the older name of activation_checkpointing; the last two are set by the script itself.
OF_ONE_RUN = (
    "resume_from_checkpoint disable_tqdm gradient_checkpointing push_to_hub report_to run_name project ddp_timeout "
    "use_cpu dataloader_num_workers dataloader_pin_memory logging_dir local_rank remove_unused_columns label_names"
).split()


def make_recipe(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> dict:
    """The arguments that make a run what it is: those that aren't the default, and all that depend on the model."""
    recipe = {"dataset_name": DEMO_DIR}
    # A saved model may have another value, so the default has to be written too.
    always = {"fusion"} if model_args.model_name_or_path is None else {*model_args.config_fields, *LIMITS}
    for given in (model_args, data_args):
        for field in fields(given):
            value = getattr(given, field.name)
            default = field.default_factory() if callable(field.default_factory) else field.default
            if value is not None and (value != default or field.name in always):
                recipe[field.name] = value
    ours = {*training_defaults(model_args.fusion, model_args.is_tiny, {}), *RsaCfnTrainingArguments.__annotations__}
    for field in fields(training_args):
        value = getattr(training_args, field.name)
        value = value.value if isinstance(value, Enum) else value
        is_of_one_run = field.name in OF_ONE_RUN or field.name.startswith("hub_") or not field.init
        if is_of_one_run or not isinstance(value, (bool, int, float, str)):
            continue
        default = field.default.value if isinstance(field.default, Enum) else field.default
        if value != default or field.name in ours or field.name == "seed":
            recipe[field.name] = value
    return {name: without_folders(value) if isinstance(value, str) else value for name, value in recipe.items()}
