"""The arguments of run_classification.py: model and data beside all TrainingArguments. `parse_arguments` gives each the
value that is in force: what was given, what the saved model says, or a default that fits the run."""

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points, version
from math import inf
from typing import Literal

from transformers.hf_argparser import HfArg

from corpora.folds import ALL, NUM_FOLDS, SPLITS
from foundation.errors import InputError
from training.definitions import FUSIONS, POOLING_MODES, Fusion, PoolingMode
from training.labels import CLASS_WEIGHTS


TINY = "tiny"
MAX_TURNS = 100
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


@dataclass
class ModelArguments:
    """Which model is trained."""

    fusion: Fusion = HfArg(default="rsa_cfn", help=f"How the modalities are joined: {', '.join(FUSIONS)}.")
    audio_model: str | None = HfArg(
        default=None,
        help=f"Model of the wav2vec2 family, Whisper or w2v-BERT 2.0: Hub id, folder, or '{TINY}', small and random "
        f"(default {AUDIO_MODEL}; '{TINY}' on the demo corpus).",
    )
    text_model: str | None = HfArg(
        default=None,
        help=f"Text encoder, such as a RoBERTa or E5: Hub id, folder, or '{TINY}' for a small random one with a "
        f"tokenizer built from the training transcripts (default {TEXT_MODEL}; '{TINY}' on the demo corpus).",
    )
    model_name_or_path: str | None = HfArg(
        default=None,
        help="A saved RSA-CFN model to go on with or to evaluate, instead of a fusion and two backbones; what "
        "isn't given is as it was saved.",
    )
    trust_remote_code: bool = HfArg(
        default=False, help="Run the code that comes with a text model, its tokenizer, or a saved model made of them."
    )
    ignore_mismatched_sizes: bool = HfArg(
        default=False,
        help="Train --model_name_or_path on other classes: the weights of its classifier start anew.",
    )
    pooling_mode: PoolingMode = HfArg(
        default="mean", help=f"How hidden states become one vector: {', '.join(POOLING_MODES)}."
    )

    cross_fusion_rank: int | None = HfArg(
        default=None, help="Rank of the weights over the cross features of rsa_cfn and hybrid_fusion (default: full)."
    )
    modality_dropout: float = HfArg(default=0.0, help="Probability that a training row loses its audio or its text.")
    freeze_feature_encoder: bool | None = HfArg(
        default=None, help="Keep the audio backbone's convolutions from training (default: if pretrained)."
    )
    freeze_audio_encoder: bool = HfArg(
        default=False, aliases=["--freeze_audio"], help="Keep the audio backbone from training."
    )
    freeze_text_encoder: bool = HfArg(
        default=False, aliases=["--freeze_text"], help="Keep the text backbone from training."
    )
    freeze_audio_layers: int = HfArg(
        default=0, help="Keep this many of its lowest layers, and all below them, from training."
    )
    freeze_text_layers: int = HfArg(
        default=0, help="Keep this many of its lowest layers, and all below them, from training."
    )
    audio_learning_rate: float | None = HfArg(
        default=None, help="Learning rate of the audio backbone (default: --learning_rate)."
    )
    text_learning_rate: float | None = HfArg(
        default=None, help="Learning rate of the text backbone (default: --learning_rate)."
    )
    early_stopping_patience: int | None = HfArg(
        default=None, help="Stop training after this many evaluations in a row without a better score."
    )
    ema_decay: float = HfArg(
        default=0.0, help="Score and save the weights' moving average, of which a step keeps this share, such as 0.999."
    )
    use_weighted_layer_sum: bool = HfArg(
        default=False, help="Pool a learned weighted sum of all layers of each backbone."
    )
    cache_features: bool = HfArg(
        default=False,
        help="Freeze both backbones, run them once over the dataset, and train the fusion on what they gave, "
        "which is kept in the cache of `datasets` for other fusions, folds and seeds.",
    )
    label_smoothing: float = HfArg(default=0.0, help="Label smoothing in the model's loss, below 1.")
    attributes: list[str] | None = HfArg(
        default=None, help="Columns of numbers to learn beside the classes, such as valence and arousal."
    )
    attribute_loss: Literal["ccc", "mse"] = HfArg(
        default="ccc", help="Of the attributes. ccc: 1 - concordance correlation; mse: mean squared error."
    )
    attribute_weight: float = HfArg(default=1.0, help="How much that loss weighs beside that of the classes.")
    int8: bool = HfArg(
        default=False, help="Score or predict with a saved model on a CPU by encoders that multiply in 8 bits."
    )
    lora_rank: int | None = HfArg(
        default=None, help="Train updates (LoRA) of this rank of the backbones, and the fusion whole; needs peft."
    )
    lora_alpha: float | None = HfArg(default=None, help="Updates are scaled by this over the rank (default: 2 ranks).")
    lora_targets: list[str] = HfArg(
        default_factory=list,
        metadata={"choices": ("audio", "text")},
        help="The backbones that get updates, others are frozen (default: all).",
    )
    lora_save: Literal["merged", "adapter"] = HfArg(
        default="merged",
        help="merged: the weights hold the updates; adapter: the folder adapter also has them as peft saves them.",
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

    dataset_name: str | None = HfArg(
        default=None,
        help=f"A folder from prepare_dataset.py, or any dataset that `datasets` loads (default {KEMDY20_DIR} "
        f"where that exists, otherwise the demo corpus in {DEMO_DIR}, which is made if it isn't there).",
    )
    dataset_config_name: str | None = HfArg(default=None, help="The dataset's configuration on the Hub.")
    audio_column_name: str = HfArg(default="audio", help="Column with the recordings.")
    text_column_name: str = HfArg(default="text", help="Column with the transcripts.")
    label_column_name: str = HfArg(default="label", help="Column with the classes.")
    speaker_column_name: str = HfArg(default="speaker", help="Column with the speakers, if there is one.")
    session_column_name: str = HfArg(default="session", help="Column with the sessions, if there is one.")
    split: str | None = HfArg(
        default=None,
        metadata={"choices": (*SPLITS, ALL)},
        help="session, speaker: a fold of whole sessions or speakers is held out; paper: a stratified 80/20 "
        "that mixes speakers; predefined: the dataset's own splits; all: nothing is trained, and all labelled rows "
        "are scored (default: the first of predefined, session, speaker and paper that the dataset allows).",
    )
    num_folds: int | None = HfArg(
        default=None,
        help=f"Folds that the sessions or speakers are divided into, in their order (default: {NUM_FOLDS}).",
    )
    fold: int | None = HfArg(default=None, help="The fold that is held out, from 1 to --num_folds (default: the last).")
    compare_epochs_on: Literal["validation", "test"] = HfArg(
        default="validation",
        help="validation: with --eval_strategy, rows kept out of training and apart from those that are "
        "reported; test: the reported rows themselves, as in the paper, which flatters and is there to be compared "
        "with published numbers.",
    )
    label_target: Literal["majority", "soft"] = HfArg(
        default="majority",
        help="What a row trains on. majority: the class that most raters chose; soft: the share of the raters' "
        "votes that each class has.",
    )
    ties: Literal["drop", "transform", "soft"] | None = HfArg(
        default=None,
        help="Training rows whose raters tie. drop: they are left out; transform: those between neutral and one "
        "other emotion train as that other one; soft: they train on the shares of their votes (default: soft with "
        "--label_target soft, otherwise drop).",
    )
    label_transform: bool = HfArg(default=False, help="The paper's name for --ties transform.")
    batch_weighted_sampler: bool = HfArg(
        default=False, help="Draw training rows with replacement, each class as often as any other."
    )
    class_weights: str | None = HfArg(
        default=None,
        metadata={"choices": tuple(CLASS_WEIGHTS)},
        help="Weights of the classes in the loss. balanced: 1 / count; effective: 1 / effective number of rows, "
        "which tells frequent classes less apart (default: all alike; a saved model keeps its own).",
    )
    augment: list[str] = HfArg(
        default_factory=list,
        metadata={"choices": AUGMENTATIONS},
        help="Change training clips, anew in each epoch: speed, gain, noise, reverberation, telephone; mix adds "
        "another clip of the batch and its share of the label, mixup another's features; raters leaves half of them "
        "out of soft targets.",
    )
    augment_probability: float = HfArg(default=0.5, help="Of each way of --augment, for each clip.")
    eval_conditions: list[str] = HfArg(
        default_factory=list,
        metadata={"choices": CONDITIONS},
        help="Score the clips under these too: noise of 20, 10 and 0 dB, and a telephone.",
    )
    calibrate: Literal["validation"] | None = HfArg(
        default=None, help="Fit a temperature of the probabilities on the validation rows when training is over."
    )
    eval_modalities: list[str] = HfArg(
        default_factory=lambda: ["both"],
        metadata={"choices": ("both", "audio", "text")},
        help="What the model is given where it is scored, one or more of both, audio and text.",
    )
    max_audio_seconds: float = HfArg(default=6.0, help="Longer clips are cropped, in seconds.")
    audio_crop: Literal["random", "head"] = HfArg(
        default="random",
        help="What is kept of them. random: a random place in training, the centre where they are scored; "
        "head: the head, as in the paper.",
    )
    max_text_tokens: int = HfArg(default=256, help="Longer transcripts are cut, in tokens.")
    text_prefix: str = HfArg(
        default="", help="What every transcript begins with, where the text model was trained so: 'query: ' for E5."
    )
    context_turns: int = HfArg(
        default=0,
        help="Read so many turns before an utterance with its transcript: those of column context, or those before it "
        "in its dialogue (columns dialogue, speaker and start).",
    )
    predict_file: str | None = HfArg(
        default=None,
        help="Predict for these instead of a dataset, with --model_name_or_path: a csv with the columns audio "
        "(a path, from the csv's folder) or text or both, a folder of recordings, or one recording.",
    )
    unsure_below: float = HfArg(default=0.0, help="Predict 'unsure' where no emotion is as probable.")
    asr_model: str | None = HfArg(
        default=None,
        help="Speech recogniser that writes a transcript for recordings of --predict_file without one: Hub id "
        "or folder, such as openai/whisper-small.",
    )
    asr_language: str | None = HfArg(
        default=None,
        help="What --asr_model hears, such as ko; left out, Whisper guesses it each time.",
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
