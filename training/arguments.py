"""The arguments of run_classification.py: model and data beside all TrainingArguments. `parse_arguments` gives each the
value that is in force: what was given, what the saved model says, or a default that fits the run."""

import os
import sys
from dataclasses import Field, dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points, version
from math import inf, isfinite
from typing import Literal

from transformers.hf_argparser import HfArg

from corpora.folds import ALL, NUM_FOLDS, SPLITS
from foundation.errors import InputError
from training.definitions import FUSIONS, POOLING_MODES, Fusion, PoolingMode
from training.labels import CLASS_WEIGHTS


TINY = "tiny"
MAX_TURNS = 100
MODALITIES = ("audio", "text")
KEMDY20_DIR = "data/kemdy20"
DEMO_DIR = "data/demo"
# Of [`training.augmentation`]: ways to change training clips, and conditions that clips are scored under.
AUGMENTATIONS = ("speed", "gain", "noise", "reverberation", "telephone", "mix", "mixup", "raters")
CONDITIONS = ("noise20", "noise10", "noise0", "telephone")
AUDIO_MODEL = "facebook/wav2vec2-large-960h-lv60-self"
TEXT_MODEL = "klue/roberta-base"
# In the original's main.py; 6 for all other fusions.
PAPER_BATCH_SIZES = {"audio": 16, "text": 16, "rsa_cfn": 4, "hybrid_fusion": 4}
# Fields of RsaCfnConfig: those that decide which weights a model has, and those that a saved model can change.
OF_THE_WEIGHTS = ("fusion", "pooling_mode", "cross_fusion_rank", "use_weighted_layer_sum", "attributes")
OF_THE_TRAINING = ("modality_dropout", "label_smoothing", "freeze_feature_encoder", "freeze_audio_encoder")
OF_THE_TRAINING += ("freeze_text_encoder", "freeze_audio_layers", "freeze_text_layers")
OF_THE_TRAINING += ("attribute_loss", "attribute_weight")
# How the processor cuts clips and transcripts, and begins the latter.
LIMITS = ("max_audio_seconds", "max_text_tokens", "audio_crop", "text_prefix", "context_turns")
ABOVE_ZERO, BELOW_ONE = sys.float_info.min, 1 - sys.float_info.epsilon
# The least and the most of numbers; the default is legal too, and the configuration looks at its own.
RANGES = {
    (0, 2**32 - 1): "seed data_seed",
    (0, BELOW_ONE): "adam_beta1 adam_beta2 ema_decay",
    (0, inf): "learning_rate audio_learning_rate text_learning_rate weight_decay warmup_steps max_grad_norm "
    "adam_epsilon dataloader_num_workers freeze_audio_layers freeze_text_layers",
    (ABOVE_ZERO, inf): "lora_alpha num_train_epochs max_audio_seconds logging_steps eval_steps save_steps",
    (1, inf): "lora_rank per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps max_steps "
    "early_stopping_patience save_total_limit eval_accumulation_steps",
    (3, inf): "max_text_tokens",
    (0, MAX_TURNS): "context_turns",
    (0, 1): "augment_probability unsure_below",
}
RANGES = {name: bounds for bounds, names in RANGES.items() for name in names.split()}


def _arg(help: str, default=None, choices: tuple[str, ...] | None = None, **options) -> Field:
    """An argument; one whose default is a list takes several values."""
    options |= {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return HfArg(help=help, metadata=choices and {"choices": choices}, **options)


@dataclass
class ModelArguments:
    """Which model is trained."""

    fusion: Fusion = _arg(f"How the modalities are joined: {', '.join(FUSIONS)}.", "rsa_cfn")
    audio_model: str | None = _arg(
        f"Model of the wav2vec2 family, Whisper or w2v-BERT 2.0: Hub id, folder, or '{TINY}', small and random "
        f"(default {AUDIO_MODEL}; '{TINY}' on the demo corpus)."
    )
    text_model: str | None = _arg(
        f"Text encoder, such as a RoBERTa or E5: Hub id, folder, or '{TINY}' for a small random one with a "
        f"tokenizer built from the training transcripts (default {TEXT_MODEL}; '{TINY}' on the demo corpus)."
    )
    model_name_or_path: str | None = _arg(
        "A saved RSA-CFN model to go on with or to evaluate, instead of a fusion and two backbones; what "
        "isn't given is as it was saved."
    )
    trust_remote_code: bool = _arg("Run the code that comes with a text model, its tokenizer, or a saved model.", False)
    ignore_mismatched_sizes: bool = _arg(
        "Train --model_name_or_path on other classes: the weights of its classifier start anew.", False
    )
    pooling_mode: PoolingMode = _arg(f"How hidden states become one vector: {', '.join(POOLING_MODES)}.", "mean")

    cross_fusion_rank: int | None = _arg("Rank of weights over cross features (rsa_cfn, hybrid_fusion; default: full).")
    modality_dropout: float = _arg("Probability that a training row loses its audio or its text.", 0.0)
    freeze_feature_encoder: bool | None = _arg("Keep the audio's convolutions from training (default: if pretrained).")
    freeze_audio_encoder: bool = _arg("Keep the audio backbone from training.", False, aliases=["--freeze_audio"])
    freeze_text_encoder: bool = _arg("Keep the text backbone from training.", False, aliases=["--freeze_text"])
    freeze_audio_layers: int = _arg("Keep this many of its lowest layers, and all below them, from training.", 0)
    freeze_text_layers: int = _arg("Keep this many of its lowest layers, and all below them, from training.", 0)
    audio_learning_rate: float | None = _arg("Learning rate of the audio backbone (default: --learning_rate).")
    text_learning_rate: float | None = _arg("Learning rate of the text backbone (default: --learning_rate).")
    early_stopping_patience: int | None = _arg("Stop after this many evaluations in a row without a better score.")
    ema_decay: float = _arg("Score and save the moving average of the weights, of which a step keeps this share.", 0.0)
    use_weighted_layer_sum: bool = _arg("Pool a learned weighted sum of all layers of each backbone.", False)
    cache_features: bool = _arg(
        "Freeze both backbones, run them once over the dataset, and train the fusion on what they gave, "
        "which is kept in the cache of `datasets` for other fusions, folds and seeds.",
        False,
    )
    label_smoothing: float = _arg("Label smoothing in the model's loss, below 1.", 0.0)
    attributes: list[str] | None = _arg("Columns of numbers to learn beside the classes, such as valence and arousal.")
    attribute_loss: Literal["ccc", "mse"] = _arg(
        "Of the attributes. ccc: 1 - concordance correlation; mse: mean squared error.", "ccc"
    )
    attribute_weight: float = _arg("How much that loss weighs beside that of the classes.", 1.0)
    int8: bool = _arg("Score or predict with a saved model on a CPU by encoders that multiply in 8 bits.", False)
    lora_rank: int | None = _arg("Train updates (LoRA) of this rank of backbones, and the fusion whole; needs peft.")
    lora_alpha: float | None = _arg("Updates are scaled by this over the rank (default: 2 ranks).")
    lora_targets: list[str] = _arg("The backbones that get updates, others are frozen (default: all).", [], MODALITIES)
    lora_save: Literal["merged", "adapter"] = _arg(
        "merged: the weights hold the updates; adapter: the folder adapter also has them as peft saves them.", "merged"
    )

    def __post_init__(self):
        if self.freeze_feature_encoder is None:
            self.freeze_feature_encoder = not self.is_tiny

    @property
    def is_tiny(self) -> bool:
        return TINY in (self.audio_model, self.text_model)

    @property
    def lora(self) -> dict | None:
        """Rank, scale and targets of LoRA, `None` without it."""
        if self.lora_rank is None:
            return None
        return {"alpha": self.lora_alpha or 2 * self.lora_rank, "rank": self.lora_rank, "targets": self.lora_targets}

    @property
    def config_fields(self) -> dict:
        """The arguments that are fields of [`RsaCfnConfig`]."""
        return {name: getattr(self, name) for name in (*OF_THE_WEIGHTS, *OF_THE_TRAINING)}


@dataclass
class DataArguments:
    """What it is trained on and how that is divided."""

    dataset_name: str | None = _arg(
        f"A folder from prepare_dataset.py, or any dataset that `datasets` loads (default {KEMDY20_DIR} "
        f"where that exists, otherwise the demo corpus in {DEMO_DIR}, which is made if it isn't there)."
    )
    dataset_config_name: str | None = _arg("The dataset's configuration on the Hub.")
    audio_column_name: str = _arg("Column with the recordings.", "audio")
    text_column_name: str = _arg("Column with the transcripts.", "text")
    label_column_name: str = _arg("Column with the classes.", "label")
    speaker_column_name: str = _arg("Column with the speakers, if there is one.", "speaker")
    session_column_name: str = _arg("Column with the sessions, if there is one.", "session")
    split: str | None = _arg(
        "session, speaker: a fold of whole sessions or speakers is held out; paper: a stratified 80/20 "
        "that mixes speakers; predefined: the dataset's own splits; all: nothing is trained, and all labelled rows "
        "are scored (default: the first of predefined, session, speaker and paper that the dataset allows).",
        choices=(*SPLITS, ALL),
    )
    num_folds: int | None = _arg(f"Folds that the sessions or speakers are divided into (default: {NUM_FOLDS}).")
    fold: int | None = _arg("The fold that is held out, from 1 to --num_folds (default: the last).")
    compare_epochs_on: Literal["validation", "test"] = _arg(
        "validation: with --eval_strategy, rows kept out of training and apart from those that are "
        "reported; test: the reported rows themselves, as in the paper, which flatters and is there to be compared "
        "with published numbers.",
        "validation",
    )
    label_target: Literal["majority", "soft"] = _arg(
        "What a row trains on. majority: the class that most raters chose; soft: the share of the raters' "
        "votes that each class has.",
        "majority",
    )
    ties: Literal["drop", "transform", "soft"] | None = _arg(
        "Training rows whose raters tie. drop: they are left out; transform: those between neutral and one "
        "other emotion train as that other one; soft: they train on the shares of their votes (default: soft with "
        "--label_target soft, otherwise drop)."
    )
    label_transform: bool = _arg("The paper's name for --ties transform.", False)
    batch_weighted_sampler: bool = _arg("Draw training rows with replacement, each class as often as any other.", False)
    class_weights: str | None = _arg(
        "Weights of the classes in the loss. balanced: 1 / count; effective: 1 / effective number of rows, "
        "which tells frequent classes less apart (default: all alike; a saved model keeps its own).",
        choices=tuple(CLASS_WEIGHTS),
    )
    augment: list[str] = _arg(
        "Change training clips, anew in each epoch: speed, gain, noise, reverberation, telephone; mix adds "
        "another clip of the batch and its share of the label, mixup another's features; raters leaves half of them "
        "out of soft targets.",
        [],
        choices=AUGMENTATIONS,
    )
    augment_probability: float = _arg("Of each way of --augment, for each clip.", 0.5)
    eval_conditions: list[str] = _arg(
        "Score the clips under these too: noise of 20, 10 and 0 dB, and a telephone.", [], choices=CONDITIONS
    )
    calibrate: Literal["validation"] | None = _arg(
        "Fit a temperature of the probabilities on the validation rows when training is over."
    )
    eval_modalities: list[str] = _arg(
        "What the model is given where it is scored, one or more of both, audio and text.",
        ["both"],
        ("both", *MODALITIES),
    )
    max_audio_seconds: float = _arg("Longer clips are cropped, in seconds.", 6.0)
    audio_crop: Literal["random", "head"] = _arg(
        "What is kept of them. random: a random place in training, the centre where they are scored; "
        "head: the head, as in the paper.",
        "random",
    )
    max_text_tokens: int = _arg("Longer transcripts are cut, in tokens.", 256)
    text_prefix: str = _arg("What every transcript begins with, where the text model needs it: 'query: ' for E5.", "")
    context_turns: int = _arg(
        "Read so many turns before an utterance with its transcript: those of column context, or those before it "
        "in its dialogue (columns dialogue, speaker and start).",
        0,
    )
    predict_file: str | None = _arg(
        "Predict for these instead of a dataset, with --model_name_or_path: a csv with the columns audio "
        "(a path, from the csv's folder) or text or both, a folder of recordings, or one recording."
    )
    unsure_below: float = _arg("Predict 'unsure' where no emotion is as probable.", 0.0)
    asr_model: str | None = _arg(
        "Speech recogniser that writes a transcript for recordings of --predict_file without one: Hub id "
        "or folder, such as openai/whisper-small."
    )
    asr_language: str | None = _arg("What --asr_model hears, such as ko; left out, Whisper guesses it each time.")

    def __post_init__(self):
        if self.label_transform and self.ties not in (None, "transform"):
            raise InputError(f"--label_transform means --ties transform, not --ties {self.ties}; give one of them")
        if self.ties is None:
            untold = "soft" if self.label_target == "soft" else "drop"
            self.ties = "transform" if self.label_transform else untold

    @property
    def is_demo(self) -> bool:
        return self.dataset_name in (None, DEMO_DIR)


def check_ranges(args) -> None:
    """Refuse numbers that are out of range, or not finite."""
    for field in fields(args):
        value = getattr(args, field.name)
        if not isinstance(value, (int, float)) or value == field.default:
            continue
        least, most = RANGES.get(field.name, (-inf, inf))
        if not (isfinite(value) and least <= value <= most):
            told = {-inf: "a finite number", ABOVE_ZERO: "more than 0"}.get(least, f"{least} or more")
            told += {inf: "", BELOW_ONE: ", below 1"}.get(most, f", at most {most}")
            raise InputError(f"--{field.name} {value} is out of range; give {told}")


def has_accelerator() -> bool:
    # A build for CPUs to which no package adds a device has none; torch itself takes seconds to say so.
    is_for_cpus = version("torch").endswith("+cpu") and not entry_points(group="torch.backends")
    return not is_for_cpus and import_module("torch").accelerator.is_available()


def __getattr__(name: str):
    # Where the training_args.bin of a run looks for them.
    if name != "RsaCfnTrainingArguments":
        raise AttributeError(name)
    from training.training_arguments import RsaCfnTrainingArguments

    return RsaCfnTrainingArguments


def training_defaults(fusion: str, is_tiny: bool, given: dict) -> dict:
    """The defaults that depend on other arguments or the machine: the paper's recipe, or one for tiny backbones."""
    # Given none of the three, a run trains and scores.
    is_scored_only = (given.get("do_eval") or given.get("do_predict")) and not given.get("do_train")
    is_prediction = "predict_file" in given
    defaults = {
        "output_dir": "predictions" if is_prediction else f"models/{fusion}",
        "do_train": not (is_scored_only or is_prediction),
        "do_eval": not is_prediction,
        "do_predict": True,
        # Beside an accelerator the cores are free to decode, crop and tokenize; alone they are the model's. Workers are
        # not persistent: a resumed run starts fresh ones, which would draw other crops than those that went on.
        "dataloader_num_workers": min(4, os.cpu_count()) if has_accelerator() else 0,
        # bf16 and several processes on a CPU need it.
        "use_cpu": not has_accelerator(),
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
        "learning_rate": 1e-4 if fusion == "audio" or "lora_rank" in given else 1e-5,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 10,
        "per_device_train_batch_size": PAPER_BATCH_SIZES.get(fusion, 6),
        "max_grad_norm": 0.0,
        "seed": 2023,
        "save_strategy": "epoch",
        "save_total_limit": 1,
    }
