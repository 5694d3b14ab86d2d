"""From a command line to checked arguments: what is wrong is said in one line, before any work."""

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import is_tensorboard_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from configuration_rsa_cfn import FUSIONS, POOLING_MODES, RsaCfnConfig
from corpora.folds import ALL, SPLITS, check_folds
from foundation.errors import InputError
from foundation.files import holds_code
from training.arguments import (
    AUDIO_MODEL,
    COMPARED_ON,
    KEMDY20_DIR,
    TEXT_MODEL,
    TINY,
    TRAINING_CROPS,
    DataArguments,
    ModelArguments,
    default_training_arguments,
)
from training.checkpoints import LAST, is_finished
from training.labels import CLASS_WEIGHTS, LABEL_TARGETS, TIES
from training.precision import PrecisionArguments, choose_precision, find_device
from training.trainer import MODALITIES


logger = logging.getLogger(__name__)


class OneLineArgumentParser(HfArgumentParser):
    """Reports a wrong argument in one line: the usage of 150 arguments would bury it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def parse_arguments(arguments: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """
    Read the command line, which may start with a JSON file; what is given after it wins.

    The defaults of the training arguments depend on the model, so the model's arguments are read first.

    Raises:
        InputError: An argument is unknown or has an illegal value.
    """
    if arguments and arguments[0].endswith(".json"):
        arguments = [*_read_recipe(arguments[0]), *arguments[1:]]
    first = OneLineArgumentParser((ModelArguments, DataArguments), allow_abbrev=False, add_help=False)
    parser = OneLineArgumentParser((ModelArguments, DataArguments, TrainingArguments), allow_abbrev=False)
    try:
        model_args, data_args, _ = first.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
        _complete(model_args, data_args)
        defaults = default_training_arguments(model_args.fusion, model_args.is_tiny)
        if data_args.streaming:
            defaults["train_sampling_strategy"] = "random"
        if data_args.predict_file is not None:
            defaults |= {"output_dir": "predictions", "do_train": False, "do_eval": False}
        if _is_scored_only(arguments):
            defaults["do_train"] = False
        parser.set_defaults(**defaults)
        precision, fallback = _precision(arguments, defaults["use_cpu"])
        *_, training_args, unknown = parser.parse_args_into_dataclasses(
            [*arguments, *precision], return_remaining_strings=True
        )
    except (ValueError, ImportError) as error:
        # TrainingArguments has errors of several lines.
        raise InputError(" ".join(str(error).split())) from error
    if unknown:
        raise InputError(f"unknown arguments: {' '.join(unknown)} (see --help)")
    if fallback is not None and training_args.local_process_index == 0:
        logger.warning(fallback)
    if str(training_args.resume_from_checkpoint).lower() == "false":
        training_args.resume_from_checkpoint = None
    check_arguments(model_args, data_args, training_args)
    return model_args, data_args, training_args


@dataclass
class _TaskArguments:
    """What a run does, as far as it is said."""

    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False


def _is_scored_only(arguments: list[str]) -> bool:
    """Whether scoring is asked for, and training isn't: without any of them, a run does both."""
    parser = OneLineArgumentParser(_TaskArguments, allow_abbrev=False, add_help=False)
    (asked,) = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)[:1]
    return (asked.do_eval or asked.do_predict) and not asked.do_train


def _precision(arguments: list[str], use_cpu: bool) -> tuple[list[str], str | None]:
    """Arguments that replace a precision which the device hasn't, and the line that says so."""
    parser = OneLineArgumentParser(PrecisionArguments, allow_abbrev=False, add_help=False)
    parser.set_defaults(use_cpu=use_cpu)
    asked, _ = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    if not (asked.fp16 or asked.bf16):
        return [], None
    precision, fallback = choose_precision(asked, find_device(asked.use_cpu))
    if fallback is None:
        return [], None
    return ["--fp16", str(precision == "fp16"), "--bf16", str(precision == "bf16")], fallback


def _read_recipe(name: str) -> list[str]:
    """The arguments in a JSON file as they would stand on the command line, so that they are checked alike."""
    given = read_json(name)
    legal = {
        field.name for arguments in (ModelArguments, DataArguments, TrainingArguments) for field in fields(arguments)
    }
    unknown = [argument for argument in given if argument not in legal]
    if unknown:
        raise InputError(f"{name} has unknown arguments: {', '.join(unknown)}; give names that --help lists")
    return as_command_line(given)


def read_json(file: str | Path) -> dict:
    """
    Raises:
        InputError: The file can't be read, or holds no JSON object.
    """
    try:
        given = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read as JSON ({error})") from error
    if not isinstance(given, dict):
        raise InputError(f"{file} holds no JSON object; give one of argument names and values")
    return given


def as_command_line(given: dict) -> list[str]:
    """Names and values of arguments → what would stand on the command line; those that are `None` are left out."""
    arguments = []
    for argument, value in given.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{argument}", *(item if isinstance(item, str) else json.dumps(item) for item in values)]
    return arguments


def _complete(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Fill in what depends on other arguments, and check what the defaults of training depend on."""
    _check_choice("--fusion", model_args.fusion, FUSIONS)
    if data_args.dataset_name is None and Path(KEMDY20_DIR).is_dir():
        data_args.dataset_name = KEMDY20_DIR
    if model_args.model_name_or_path is None:
        model_args.audio_model = model_args.audio_model or (TINY if data_args.is_demo else AUDIO_MODEL)
        model_args.text_model = model_args.text_model or (TINY if data_args.is_demo else TEXT_MODEL)
    elif model_args.audio_model or model_args.text_model:
        raise InputError("--model_name_or_path brings its own backbones; leave out --audio_model and --text_model")
    else:
        model_args.fusion = _saved_fusion(model_args)
    if model_args.cache_features:
        model_args.freeze_audio_encoder = model_args.freeze_text_encoder = True


def _saved_fusion(model_args: ModelArguments) -> str:
    """The fusion of the saved model, after a look that nothing else was asked for that it can't change."""
    for name in ("pooling_mode", "cross_fusion_rank", "use_weighted_layer_sum"):
        default = next(field.default for field in fields(ModelArguments) if field.name == name)
        if getattr(model_args, name) != default:
            raise InputError(f"--model_name_or_path brings its own {name}; leave out --{name}")
    try:
        config = RsaCfnConfig.from_pretrained(model_args.model_name_or_path)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise InputError(
            f"--model_name_or_path {model_args.model_name_or_path} can't be loaded; give a folder or Hub id of a saved "
            f"RSA-CFN model ({' '.join(str(error).split())})"
        ) from error
    _check_version(model_args.model_name_or_path, config)
    if model_args.cache_features:
        _check_cacheable(config)
    return config.fusion


def _check_version(name: str, config: RsaCfnConfig) -> None:
    """A field that came later would be passed over in silence, and the model be another one than was saved."""
    saved, _ = RsaCfnConfig.get_config_dict(name)
    # The Trainer writes fields of language models, such as use_cache, into any configuration.
    known = {"transformers_version", "quantization_config", *config.text_config.to_dict(), *RsaCfnConfig().to_dict()}
    unknown = [field for field in saved if field not in known and not field.startswith("_")]
    if unknown:
        raise InputError(
            f"--model_name_or_path {name} has fields in config.json that this version doesn't know: "
            f"{', '.join(unknown)}; update this repository and transformers (saved with "
            f"{saved.get('transformers_version', 'an unknown version')}, here is {transformers.__version__})"
        )


def _check_cacheable(config: RsaCfnConfig) -> None:
    """What frozen backbones make of a row has to be the same in every batch and after every step."""
    if config.use_weighted_layer_sum:
        raise InputError(
            "--cache_features can't go with use_weighted_layer_sum, whose weights of layers train; leave out one of "
            "them, or freeze by --freeze_audio_encoder and --freeze_text_encoder"
        )
    if not config.mask_padding:
        raise InputError(
            "--cache_features needs mask_padding=True, without it the features of a row depend on its batch; freeze by "
            "--freeze_audio_encoder and --freeze_text_encoder instead"
        )


def check_arguments(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    _check_choice("--pooling_mode", model_args.pooling_mode, POOLING_MODES)
    _check_model(model_args)
    for modality in data_args.eval_modalities:
        _check_choice("--eval_modalities", modality, MODALITIES)
        unimodal = model_args.fusion if model_args.fusion in ("audio", "text") else None
        if model_args.cache_features and unimodal and modality not in ("both", unimodal):
            raise InputError(
                f"--eval_modalities {modality} can't be scored from features: --fusion {unimodal} has none of it"
            )
    if data_args.class_weights is not None:
        _check_choice("--class_weights", data_args.class_weights, tuple(CLASS_WEIGHTS))
    _check_choice("--label_target", data_args.label_target, LABEL_TARGETS)
    _check_choice("--ties", data_args.ties, TIES)
    if data_args.split is not None:
        _check_choice("--split", data_args.split, (*SPLITS, ALL))
        if data_args.split == ALL and training_args.do_train:
            raise InputError(f"--split {ALL} leaves nothing to train on; give --do_eval, which alone doesn't train")
        try:
            check_folds(data_args.split, data_args.num_folds, data_args.fold)
        except InputError as error:
            raise InputError(str(error)) from error
    _check_choice("--compare_epochs_on", data_args.compare_epochs_on, COMPARED_ON)
    if data_args.compare_epochs_on == "test" and training_args.eval_strategy == "no":
        raise InputError("--compare_epochs_on test compares no epochs by itself; give --eval_strategy epoch, or steps")
    if data_args.audio_crop is not None:
        _check_choice("--audio_crop", data_args.audio_crop, TRAINING_CROPS)
    if not data_args.max_audio_seconds > 0:
        raise InputError(f"--max_audio_seconds {data_args.max_audio_seconds} is not above 0; the paper's value is 6")
    if data_args.max_text_tokens < 3:
        raise InputError(f"--max_text_tokens {data_args.max_text_tokens} is less than 3; the paper's value is 256")
    _check_prediction(model_args, data_args, training_args)
    if not training_args.do_train and model_args.model_name_or_path is None:
        raise InputError("without training there is nothing to evaluate; give a saved model by --model_name_or_path")
    if training_args.label_smoothing_factor:
        raise InputError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} would replace the model's own loss; "
            "give --label_smoothing"
        )
    if training_args.dataloader_persistent_workers and not training_args.dataloader_num_workers:
        raise InputError("--dataloader_persistent_workers needs workers; give --dataloader_num_workers")
    if training_args.hub_token is not None:
        raise InputError("--hub_token would be written into training_args.bin; run `hf auth login`, or set HF_TOKEN")
    for reporter in training_args.report_to:
        _check_choice("--report_to", reporter, tuple(INTEGRATION_TO_CALLBACK))
    if "tensorboard" in training_args.report_to and not is_tensorboard_available():
        raise InputError("--report_to tensorboard needs a package that isn't installed; pip install tensorboard")
    if data_args.streaming:
        _check_streaming(data_args, training_args)
        if model_args.cache_features:
            raise InputError("--cache_features looks rows up by their number, which --streaming can't; leave out one")
    _check_early_stopping(model_args.early_stopping_patience, training_args)
    _check_output_dir(Path(training_args.output_dir), training_args.resume_from_checkpoint)


def _check_early_stopping(patience: int | None, training_args: TrainingArguments) -> None:
    if patience is None:
        return
    if patience < 1:
        raise InputError(f"--early_stopping_patience {patience} is too small; give 1 or more")
    if training_args.eval_strategy == "no":
        raise InputError(
            f"--early_stopping_patience {patience} has no scores to look at; give --eval_strategy epoch or steps"
        )
    if not training_args.load_best_model_at_end:
        raise InputError(
            f"--early_stopping_patience {patience} would leave the model of the last step, not the best; give "
            "--load_best_model_at_end"
        )


def _check_model(model_args: ModelArguments) -> None:
    """Let the configuration refuse what it can without the backbones."""
    try:
        config = RsaCfnConfig(**model_args.config_fields)
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"--{' '.join(str(error).split())}") from error
    if model_args.cache_features:
        _check_cacheable(config)
    for modality in ("audio", "text"):
        learning_rate = getattr(model_args, f"{modality}_learning_rate")
        if learning_rate is not None and learning_rate < 0:
            raise InputError(f"--{modality}_learning_rate {learning_rate} is below 0; give 0 or more")
        if learning_rate is not None and model_args.fusion in ("audio", "text") and model_args.fusion != modality:
            raise InputError(
                f"--{modality}_learning_rate has no use: --fusion {model_args.fusion} has no such backbone"
            )
        if learning_rate is not None and getattr(model_args, f"freeze_{modality}_encoder"):
            frozen_by = "--cache_features" if model_args.cache_features else f"--freeze_{modality}_encoder"
            raise InputError(f"--{modality}_learning_rate has no use: {frozen_by} keeps that backbone from training")


def _check_prediction(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> None:
    if data_args.predict_file is None:
        if data_args.asr_model is not None:
            raise InputError("--asr_model transcribes recordings of --predict_file; give that too, or leave it out")
        return
    if model_args.model_name_or_path is None:
        raise InputError("--predict_file needs a model to predict with; give a saved one with --model_name_or_path")
    if training_args.do_train or training_args.do_eval or not training_args.do_predict:
        raise InputError("--predict_file is predicted for and nothing else; leave out --do_train and --do_eval")
    if not Path(data_args.predict_file).exists():
        raise InputError(
            f"--predict_file {data_args.predict_file} isn't there; give a csv, a folder of recordings, or a recording"
        )


def _check_streaming(data_args: DataArguments, training_args: TrainingArguments) -> None:
    if training_args.do_train and training_args.max_steps <= 0:
        raise InputError("--streaming needs --max_steps, since the end of a stream isn't known; give a number of steps")
    if data_args.batch_weighted_sampler:
        raise InputError("--streaming can't draw rows by --batch_weighted_sampler; give --class_weights instead")
    if training_args.train_sampling_strategy != "random":
        raise InputError(
            f"--streaming can't order rows by --train_sampling_strategy {training_args.train_sampling_strategy}, only "
            "by a shuffle buffer; leave it out"
        )


def _check_output_dir(output_dir: Path, resume_from_checkpoint: str | None) -> None:
    resolved = output_dir.expanduser().resolve()
    if holds_code(resolved):
        raise InputError(f"--output_dir {output_dir} is or holds the code of this repository; give a new folder")
    if resolved.is_file():
        raise InputError(f"--output_dir {output_dir} is a file; give a new folder")
    if resume_from_checkpoint or not resolved.is_dir() or not any(resolved.iterdir()):
        return
    if is_finished(resolved):
        raise InputError(
            f"--output_dir {output_dir} already holds a finished run; give a new folder, remove this one, or score it "
            f"again by --resume_from_checkpoint {LAST}"
        )
    raise InputError(
        f"--output_dir {output_dir} already holds files, and no finished run; give a new folder, remove this one, or "
        f"go on with an interrupted run by --resume_from_checkpoint {LAST}"
    )


def _check_choice(name: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise InputError(f"{name} {value} is unknown; give one of {', '.join(legal)}")
