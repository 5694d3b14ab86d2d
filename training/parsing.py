"""From a command line to checked arguments: it is parsed once, then every argument that wasn't given gets its value."""

import argparse
import json
import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from transformers.hf_argparser import HfArgumentParser

from foundation.errors import InputError, unknown_arguments
from foundation.files import find_recipe, read_json
from foundation.words import writable
from training.arguments import (
    AUDIO_MODEL,
    DEMO_DIR,
    KEMDY20_DIR,
    TEXT_MODEL,
    TINY,
    DataArguments,
    ModelArguments,
    training_defaults,
)
from training.definitions import training_fields


logger = logging.getLogger(__name__)

CLASSES = (ModelArguments, DataArguments, training_fields())
NOT_GIVEN = object()
# What is read, and what is legal: a path that isn't there is refused before seconds of imports.
READ = {
    "dataset_name": "a folder from prepare_dataset.py, or another dataset that `datasets` loads",
    "model_name_or_path": "a folder that training has written, or a model's Hub id",
    "predict_file": "a csv, a folder of recordings, or a recording",
}
EXIT_CODES = (
    "Exit codes: 0, all is done; 2, something given can't be used; 1, something can't be written, here or on the Hub, "
    "or no row of a prediction could be read; 3, a loss that isn't finite; 143 after SIGTERM, 130 after SIGINT."
)
# Of `TrainingArguments`, what --help shows before all others.
MOST_USED = (
    "output_dir do_train do_eval do_predict resume_from_checkpoint learning_rate weight_decay lr_scheduler_type "
    "warmup_steps num_train_epochs max_steps per_device_train_batch_size per_device_eval_batch_size max_grad_norm "
    "gradient_accumulation_steps bf16 fp16 seed eval_strategy save_strategy save_total_limit load_best_model_at_end "
    "metric_for_best_model logging_strategy report_to dataloader_num_workers use_cpu push_to_hub hub_model_id"
).split()


class DefaultsOnceFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds a default where there is one, and the help doesn't tell it."""

    def _get_help_string(self, action):
        is_told = action.default is None or "default" in action.help.lower()
        return action.help if is_told else super()._get_help_string(action)


class OneLineArgumentParser(HfArgumentParser):
    """Reports a wrong argument in one line: the usage of 150 arguments would bury it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            legal = ", ".join(map(str, action.choices))
            raise InputError(f"{action.option_strings[0]} {value} is unknown; give one of {legal}")


def make_parser() -> OneLineArgumentParser:
    """The parser of all arguments, which --help shows in groups, those that few need last."""
    usage = "run_classification.py [ARGUMENTS.json] [--argument value ...]"
    options = {"usage": usage, "epilog": EXIT_CODES, "formatter_class": DefaultsOnceFormatter}
    parser = OneLineArgumentParser(CLASSES, allow_abbrev=False, **options)
    parser.set_defaults(**training_defaults(ModelArguments.fusion, is_tiny=not Path(KEMDY20_DIR).is_dir(), given={}))
    left = parser._actions[1:]
    parser._optionals._group_actions = parser._actions[:1]  # --help
    everything = {action.dest for action in left}
    model, data = ({field.name for field in fields(cls)} for cls in CLASSES[:2])
    groups = {"model": model, "data": data, "training": MOST_USED, "all other TrainingArguments": everything}
    for title, names in groups.items():
        parser.add_argument_group(title)._group_actions = [action for action in left if action.dest in names]
        left = [action for action in left if action.dest not in names]
    return parser


def read_given(arguments: list[str]) -> dict:
    """What a command line gives, which may start with a JSON file; what is given after it wins."""
    if arguments and arguments[0].endswith(".json"):
        recipe, legal = read_json(find_recipe(arguments[0])), [field.name for cls in CLASSES for field in fields(cls)]
        if unknown := [argument for argument in recipe if argument not in legal]:
            raise InputError(f"{arguments[0]} has {unknown_arguments(unknown, [f'--{name}' for name in legal])}")
        # As they would stand on the command line, so that they are checked alike.
        arguments = [*as_command_line(recipe), *arguments[1:]]
    parser = make_parser()
    nothing = argparse.Namespace(**{action.dest: NOT_GIVEN for action in parser._actions})
    namespace, unknown = parser.parse_known_args(arguments, nothing)
    if unknown:
        raise InputError(unknown_arguments(unknown, parser._option_string_actions))
    given = {name: value for name, value in vars(namespace).items() if value is not NOT_GIVEN}
    for name, legal in READ.items():
        path = given.get(name) or ""
        is_path = name == "predict_file" or path.startswith((".", "/")) or "://" not in path and path.count("/") > 1
        if path and is_path and not os.path.exists(path):
            raise InputError(f"--{name} {writable(path)} isn't there; give {legal}")
    return given


def parse_arguments(arguments: list[str]) -> tuple:
    """Read and check the command line → [`ModelArguments`], [`DataArguments`] and [`RsaCfnTrainingArguments`]."""
    given = read_given(arguments)
    from training.arguments import RsaCfnTrainingArguments  # late, as --help doesn't need torch
    from training.checks import check_arguments

    values, warning = resolve(given)
    try:
        model_args, data_args, training_args = (
            cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
            for cls in (*CLASSES[:2], RsaCfnTrainingArguments)
        )
    except Exception as error:  # whatever TrainingArguments make of a value, often in several lines
        raise InputError(" ".join(str(error).split())) from error
    if warning is not None and training_args.local_process_index == 0:
        logger.warning(warning)
    check_arguments(model_args, data_args, training_args, given)
    return model_args, data_args, training_args


def resolve(given: dict) -> tuple[dict, str | None]:
    """The value of every argument that was given, that a saved model brings along, or whose default depends on others;
    all others have the defaults of their classes. And a line for the log if the device hasn't the precision asked
    for."""
    from fusion_rsa_cfn import FUSION_CLASSES
    from training.checks import check_saved_model
    from training.model import read_config, read_saved
    from training.precision import choose_precision, find_device

    defaults = {"dataset_name": KEMDY20_DIR} if Path(KEMDY20_DIR).is_dir() else {}
    if given.get("model_name_or_path") is None:
        is_demo = (defaults | given).get("dataset_name", DEMO_DIR) == DEMO_DIR
        backbones = (TINY, TINY) if is_demo else (AUDIO_MODEL, TEXT_MODEL)
        defaults |= dict(zip(("audio_model", "text_model"), backbones))
    else:
        if "audio_model" in given or "text_model" in given:
            raise InputError("--model_name_or_path brings its own backbones; leave out --audio_model and --text_model")
        config = read_config(given["model_name_or_path"], given.get("trust_remote_code", False))
        saved = read_saved(given["model_name_or_path"], config)
        check_saved_model(given, saved, config)
        defaults |= saved
    values = defaults | given
    is_tiny = TINY in (values.get("audio_model"), values.get("text_model"))
    values = training_defaults(values.get("fusion", ModelArguments.fusion), is_tiny, given) | values
    if values.get("cache_features"):
        for name in ("freeze_audio_encoder", "freeze_text_encoder"):
            if given.get(name) is False:
                raise InputError(f"--cache_features freezes both backbones; leave out --{name} false, or it")
            values[name] = True
    if values.get("lora_rank") is not None:
        modalities = FUSION_CLASSES[values.get("fusion", ModelArguments.fusion)].modalities
        targets = values["lora_targets"] = values.get("lora_targets") or list(modalities)
        values |= {f"freeze_{modality}_encoder": True for modality in modalities if modality not in targets}
    if str(values.get("resume_from_checkpoint")).lower() == "false":
        del values["resume_from_checkpoint"]
    warning = None
    if given.get("fp16") or given.get("bf16"):
        fp16, bf16 = given.get("fp16", False), given.get("bf16", False)
        precision, warning = choose_precision(fp16, bf16, find_device(values["use_cpu"]))
        values |= {"fp16": precision == "fp16", "bf16": precision == "bf16"}
    return values, warning


def as_command_line(given: dict) -> list[str]:
    """Names and values of arguments → what would stand on the command line; those that are `None` are left out."""
    arguments = []
    for argument, value in given.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{argument}", *(item if isinstance(item, str) else json.dumps(item) for item in values)]
    return arguments
