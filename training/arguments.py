"""The arguments of run_classification.py: model and data beside all TrainingArguments, with fitting defaults."""

import json
import logging
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import is_tensorboard_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from configuration_rsa_cfn import FUSIONS, POOLING_MODES, RsaCfnConfig
from corpora import CorpusError, holds_code
from corpora.folds import NUM_FOLDS, SPLITS, check_folds
from training import InputError
from training.checkpoints import LAST, is_finished
from training.labels import CLASS_WEIGHTS, LABEL_TARGETS, TIES
from training.precision import PrecisionArguments, choose_precision, find_device
from training.trainer import MODALITIES


logger = logging.getLogger(__name__)

TINY = "tiny"
KEMDY20_DIR = "data/kemdy20"
DEMO_DIR = "data/demo"
TRAINING_CROPS = ("random", "head")
AUDIO_MODEL = "facebook/wav2vec2-large-960h-lv60-self"
TEXT_MODEL = "klue/roberta-base"
# Of the original's main.py where they differ from 6.
PAPER_BATCH_SIZES = {"audio": 16, "text": 16, "rsa_cfn": 4, "hybrid_fusion": 4}


@dataclass
class ModelArguments:
    """Which model is trained."""

    fusion: str = field(default="rsa_cfn", metadata={"help": f"How the modalities are joined: {', '.join(FUSIONS)}."})
    audio_model: str | None = field(
        default=None,
        metadata={
            "help": f"wav2vec2-family model: Hub id, folder, or '{TINY}' for a small random one "
            f"(default {AUDIO_MODEL}; '{TINY}' on the demo corpus)."
        },
    )
    text_model: str | None = field(
        default=None,
        metadata={
            "help": f"RoBERTa- or BERT-family model: Hub id, folder, or '{TINY}' for a small random one with a "
            f"tokenizer built from the training transcripts (default {TEXT_MODEL}; '{TINY}' on the demo corpus)."
        },
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A saved RSA-CFN model to go on with or to evaluate, instead of a fusion and two backbones."},
    )
    pooling_mode: str = field(
        default="mean", metadata={"help": f"How hidden states become one vector: {', '.join(POOLING_MODES)}."}
    )

    cross_fusion_rank: int | None = field(
        default=None,
        metadata={"help": "Rank of the weights over the cross features of rsa_cfn and hybrid_fusion (default: full)."},
    )
    modality_dropout: float = field(
        default=0.0, metadata={"help": "Probability that a training row loses its audio or its text."}
    )
    freeze_feature_encoder: bool | None = field(
        default=None,
        metadata={"help": "Keep the audio backbone's convolutions from training (default: if pretrained)."},
    )
    freeze_audio_encoder: bool = field(
        default=False, metadata={"aliases": ["--freeze_audio"], "help": "Keep the audio backbone from training."}
    )
    freeze_text_encoder: bool = field(
        default=False, metadata={"aliases": ["--freeze_text"], "help": "Keep the text backbone from training."}
    )
    freeze_audio_layers: int = field(
        default=0, metadata={"help": "Keep this many of its lowest layers, and all below them, from training."}
    )
    freeze_text_layers: int = field(
        default=0, metadata={"help": "Keep this many of its lowest layers, and all below them, from training."}
    )
    audio_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the audio backbone (default: --learning_rate)."}
    )
    text_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the text backbone (default: --learning_rate)."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop training after this many evaluations in a row without a better score."},
    )
    use_weighted_layer_sum: bool = field(
        default=False, metadata={"help": "Pool a learned weighted sum of all layers of each backbone."}
    )
    cache_features: bool = field(
        default=False,
        metadata={
            "help": "Freeze both backbones, run them once over the dataset, and train the fusion on what they gave, "
            "which is kept in the cache of `datasets` for other fusions, folds and seeds."
        },
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "Label smoothing in the model's loss, below 1."})

    @property
    def is_tiny(self) -> bool:
        return TINY in (self.audio_model, self.text_model)

    @property
    def config_fields(self) -> dict:
        """The arguments that are fields of [`RsaCfnConfig`], those of the backbones' layers apart."""
        names = ("fusion", "pooling_mode", "cross_fusion_rank", "modality_dropout", "label_smoothing")
        return {name: getattr(self, name) for name in (*names, "use_weighted_layer_sum")}

    @property
    def saved_model_fields(self) -> dict:
        """What was asked for and a saved model can change: how it trains, as fields of [`RsaCfnConfig`]."""
        fields = {
            "modality_dropout": self.modality_dropout,
            "label_smoothing": self.label_smoothing,
            **self.freeze_fields,
        }
        fields = {name: value for name, value in fields.items() if value and name != "freeze_feature_encoder"}
        if self.freeze_feature_encoder is not None:
            fields["freeze_feature_encoder"] = self.freeze_feature_encoder
        return fields

    @property
    def freeze_fields(self) -> dict:
        """The arguments that say what doesn't train, as fields of [`RsaCfnConfig`]."""
        modalities = [f"freeze_{modality}_{part}" for modality in ("audio", "text") for part in ("encoder", "layers")]
        convolutions = not self.is_tiny if self.freeze_feature_encoder is None else self.freeze_feature_encoder
        return {"freeze_feature_encoder": convolutions, **{name: getattr(self, name) for name in modalities}}


@dataclass
class DataArguments:
    """What it is trained on and how that is divided."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": f"A folder from prepare_dataset.py, or any dataset that `datasets` loads (default {KEMDY20_DIR} "
            f"where that exists, otherwise the demo corpus in {DEMO_DIR}, which is made if it isn't there)."
        },
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "The dataset's configuration on the Hub."})
    audio_column_name: str = field(default="audio", metadata={"help": "Column with the recordings."})
    text_column_name: str = field(default="text", metadata={"help": "Column with the transcripts."})
    label_column_name: str = field(default="label", metadata={"help": "Column with the classes."})
    split: str | None = field(
        default=None,
        metadata={
            "help": "session, speaker: a fold of whole sessions or speakers is held out; paper: a stratified 80/20 "
            "that mixes speakers; predefined: the dataset's own splits (default: the first of predefined, session, "
            "speaker and paper that the dataset allows)."
        },
    )
    num_folds: int | None = field(
        default=None,
        metadata={
            "help": f"Folds that the sessions or speakers are divided into, in their order (default: {NUM_FOLDS})."
        },
    )
    fold: int | None = field(
        default=None, metadata={"help": "The fold that is held out, from 1 to --num_folds (default: the last)."}
    )
    label_target: str = field(
        default="majority",
        metadata={
            "help": "What a row trains on. majority: the class that most raters chose; soft: the share of the raters' "
            "votes that each class has."
        },
    )
    ties: str | None = field(
        default=None,
        metadata={
            "help": "Training rows whose raters tie. drop: they are left out; transform: those between neutral and one "
            "other emotion train as that other one; soft: they train on the shares of their votes (default: soft with "
            "--label_target soft, otherwise drop)."
        },
    )
    label_transform: bool = field(default=False, metadata={"help": "The paper's name for --ties transform."})
    batch_weighted_sampler: bool = field(
        default=False, metadata={"help": "Draw training rows with replacement, each class as often as any other."}
    )
    class_weights: str | None = field(
        default=None,
        metadata={
            "help": "Weights of the classes in the loss. balanced: 1 / count; effective: 1 / effective number of rows, "
            "which tells frequent classes less apart (default: all alike)."
        },
    )
    eval_modalities: list[str] = field(
        default_factory=lambda: ["both"],
        metadata={"help": "What the model is given where it is scored, one or more of both, audio and text."},
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read the recordings as they come, from disk or the Hub; needs --max_steps."},
    )
    max_audio_seconds: float = field(default=6.0, metadata={"help": "Longer clips are cropped, in seconds."})
    audio_crop: str | None = field(
        default=None,
        metadata={
            "help": "What is kept of them. random: a random place in training, the centre where they are scored; "
            "head: the head, as in the paper (default: random; a saved model keeps its own)."
        },
    )
    max_text_tokens: int = field(default=256, metadata={"help": "Longer transcripts are cut, in tokens."})
    predict_file: str | None = field(
        default=None,
        metadata={
            "help": "Predict for these instead of a dataset, with --model_name_or_path: a csv with the columns audio "
            "(a path, from the csv's folder) or text or both, a folder of recordings, or one recording."
        },
    )
    asr_model: str | None = field(
        default=None,
        metadata={
            "help": "Speech recogniser that writes a transcript for recordings of --predict_file without one: Hub id "
            "or folder, such as openai/whisper-small."
        },
    )

    def __post_init__(self):
        if self.label_transform and self.ties not in (None, "transform"):
            raise InputError(f"--label_transform means --ties transform, not --ties {self.ties}; give one of them")
        if self.ties is None:
            untold = "soft" if self.label_target == "soft" else "drop"
            self.ties = "transform" if self.label_transform else untold

    @property
    def is_demo(self) -> bool:
        return self.dataset_name in (None, DEMO_DIR)


class OneLineArgumentParser(HfArgumentParser):
    """Reports a wrong argument in one line: the usage of 150 arguments would bury it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def default_training_arguments(fusion: str, is_tiny: bool) -> dict:
    """
    Defaults of TrainingArguments for a run: the paper's recipe, or one under which tiny random backbones learn.

    Args:
        fusion (`str`): One of `FUSIONS`.
        is_tiny (`bool`): Whether a backbone is tiny and random.
    """
    defaults = {
        "output_dir": f"models/{fusion}",
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "per_device_eval_batch_size": 16,
        "metric_for_best_model": "macro_f1",
        "logging_strategy": "epoch",
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "duration",
        # Beside an accelerator the cores are free to decode, crop and tokenize; alone they are the model's. Workers are
        # not persistent: a resumed run starts fresh ones, which would draw other crops than those that went on.
        "dataloader_num_workers": min(4, os.cpu_count()) if torch.accelerator.is_available() else 0,
        # Pushes in the middle of training would lack the code that the checkpoint needs.
        "hub_strategy": "end",
        # bf16 and two processes on a machine without an accelerator need it said.
        "use_cpu": not torch.accelerator.is_available(),
    }
    if is_tiny:
        return defaults | {
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "num_train_epochs": 8,
            "per_device_train_batch_size": 16,
            "save_strategy": "no",
        }
    return defaults | {
        "learning_rate": 1e-4 if fusion == "audio" else 1e-5,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 10,
        "per_device_train_batch_size": PAPER_BATCH_SIZES.get(fusion, 6),
        "max_grad_norm": 0.0,
        "seed": 2023,
        "save_strategy": "epoch",
        "save_total_limit": 1,
    }


def parse_arguments(arguments: list[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """
    Read the command line, which may start with a JSON file; what is given after it wins.

    The defaults of the training arguments depend on the model, so the model's arguments are read first.

    Raises:
        InputError: An argument is unknown or has an illegal value.
    """
    if arguments and arguments[0].endswith(".json"):
        arguments = [*_read_json(arguments[0]), *arguments[1:]]
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


def _read_json(name: str) -> list[str]:
    """The arguments in a JSON file as they would stand on the command line, so that they are checked alike."""
    try:
        given = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{name} can't be read as JSON ({error})") from error
    if not isinstance(given, dict):
        raise InputError(f"{name} holds no JSON object; give one of argument names and values")
    legal = {
        field.name for arguments in (ModelArguments, DataArguments, TrainingArguments) for field in fields(arguments)
    }
    unknown = [argument for argument in given if argument not in legal]
    if unknown:
        raise InputError(f"{name} has unknown arguments: {', '.join(unknown)}; give names that --help lists")
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
        _check_choice("--split", data_args.split, tuple(SPLITS))
        try:
            check_folds(data_args.split, data_args.num_folds, data_args.fold)
        except CorpusError as error:
            raise InputError(str(error)) from error
    if data_args.audio_crop is not None:
        _check_choice("--audio_crop", data_args.audio_crop, TRAINING_CROPS)
    if not data_args.max_audio_seconds > 0:
        raise InputError(f"--max_audio_seconds {data_args.max_audio_seconds} is not above 0; the paper's value is 6")
    if data_args.max_text_tokens < 3:
        raise InputError(f"--max_text_tokens {data_args.max_text_tokens} is less than 3; the paper's value is 256")
    _check_prediction(model_args, data_args, training_args)
    if not training_args.do_train and model_args.model_name_or_path is None:
        raise InputError("--do_train false leaves nothing to evaluate; give a saved model with --model_name_or_path")
    if training_args.label_smoothing_factor:
        raise InputError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} would replace the model's own loss; "
            "give --label_smoothing"
        )
    if training_args.dataloader_persistent_workers and not training_args.dataloader_num_workers:
        raise InputError("--dataloader_persistent_workers needs workers; give --dataloader_num_workers")
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
