"""The card of a trained model, README.md on the Hub: what it is, how well it does, where from, and how to load it.
Every number in it comes from the run's own files and rows, so that it can be walked back to them."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import TrainingArguments

from corpora.catalogue import KnownCorpus
from corpora.folds import find_groups
from foundation.files import read_json, write_whole
from foundation.templates import fill_template
from foundation.versions import made_with, repository_address
from foundation.words import cell, counted, escape_markdown, first_names, without_folders, writable
from metrics.intervals import FEW_GROUPS, MIN_GROUPS, NUM_RESAMPLES, bootstrap_intervals
from metrics.scores import SCORES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor
from training.arguments import ModelArguments
from training.checkpoints import FINISHED, is_finished
from training.curves import COLUMNS, draw_training_curve, training_steps
from training.data import Splits
from training.hub import CARD_FILE, CURVE_FILE
from training.origins import Backbone, find_backbones, find_corpus, is_hub_id
from training.scoring import ScoredPart


TEMPLATE = Path(__file__).with_name("card.md.jinja")
ROWS_OF_LOG = 30
SYNTHETIC = "synthetic"  # the tag of a model of the demo corpus
# How many times as frequent the most frequent class is as the rarest where the card warns of mistakes.
IMBALANCE = 3
UNKNOWN_SPEAKERS = "nobody knows how many speakers are in its training rows"


@dataclass
class TrainedModel:
    """What a card is about, when a run has ended."""

    model: RsaCfnForSequenceClassification
    processor: RsaCfnProcessor
    splits: Splits
    scores: list[ScoredPart]  # of the test part, once for each choice of modalities
    validation: dict[str, float]  # scores on the validation part; empty where there is none
    model_args: ModelArguments
    training_args: TrainingArguments
    recipe: dict  # from make_recipe
    command: list[str] | None = None  # what was given to run_classification.py
    backbones: list[Backbone] = field(init=False)
    corpus: str = field(init=False)
    facts: KnownCorpus = field(init=False)
    groups: tuple[str, list] | None = field(init=False, default=None)
    intervals: dict[str, tuple[float, float]] = field(init=False, default_factory=dict)
    state: dict | None = field(init=False, default=None)

    def __post_init__(self):
        self.backbones = find_backbones(self.model_args, self.model.config)
        self.corpus, self.facts = find_corpus(self.dataset_name)
        if self.scores:
            scored = self.scores[0]
            self.groups = find_groups(scored.table)
            predictions = np.argmax(scored.logits, axis=1)
            values = None if self.groups is None else self.groups[1]
            self.intervals = bootstrap_intervals(scored.labels, predictions, self.splits.label_names, values)
        if is_finished(Path(self.training_args.output_dir)):
            self.state = read_json(Path(self.training_args.output_dir) / FINISHED)

    @property
    def dataset_name(self) -> str:
        return self.splits.record["dataset"]["name"]

    @property
    def repo_id(self) -> str | None:
        """On the Hub, if it goes there."""
        return self.training_args.hub_model_id if self.training_args.push_to_hub else None

    @property
    def name(self) -> str:
        return (self.repo_id or str(Path(self.training_args.output_dir).resolve())).split("/")[-1]

    def interval(self, name: str) -> str:
        """Both ends for a score; nothing where groups are too few, or all of them give one number."""
        low, high = self.intervals.get(name, (0, 0))
        return f"{low:.3f} to {high:.3f}" if low < high else ""


def write_card(trained: TrainedModel, revision: str = "main") -> None:
    """README.md and the curve of the training, in the folder of the run; the card's example loads `revision`."""
    folder = Path(trained.training_args.output_dir)
    steps = [] if trained.state is None else training_steps(trained.state["log_history"])
    if steps:
        draw_training_curve(folder / CURVE_FILE, steps, trained.state["best_global_step"])
    write_whole(folder / CARD_FILE, str(model_card(trained, steps, revision)))


def _as_text(name: str) -> str:
    """A name from the data in a line or a cell of Markdown, which shows it and does nothing else."""
    return re.sub(r"([\[\]|])", r"\\\1", escape_markdown(writable(name)))


def _as_code(name: str) -> str:
    inside = cell(writable(without_folders(name))).replace("`", "'")
    return f"`{inside}`"


def model_card(trained: TrainedModel, steps: list[dict], revision: str = "main") -> ModelCard:
    """The template `card.md.jinja`, filled in; `steps` are from `training_steps`, none for a model only scored."""
    args, command = trained.training_args, trained.command or ["recipe.json"]
    text = fill_template(
        TEMPLATE,
        text=_as_text,
        code=_as_code,
        SCORES=SCORES,
        NUM_RESAMPLES=NUM_RESAMPLES,
        FEW_GROUPS=FEW_GROUPS,
        MIN_GROUPS=MIN_GROUPS,
        repository=repository_address(),
        run=trained,
        metadata=card_metadata(trained).to_yaml(),
        model=trained.model,
        config=trained.model.config,
        processor=trained.processor,
        labels=trained.splits.label_names,
        source=json.dumps(trained.repo_id or without_folders(args.output_dir), ensure_ascii=False),
        pin="" if trained.repo_id is None else f', revision="{revision}"',
        revision=revision,
        record=trained.splits.record,
        facts=trained.facts,
        args=args,
        command=shlex.join(["run_classification.py", *(writable(without_folders(part)) for part in command)]),
        recipe=json.dumps(trained.recipe, ensure_ascii=False, indent=2),
        **training_facts(trained, steps),
        **training_rows(trained),
    )
    return ModelCard(text)


def training_facts(trained: TrainedModel, steps: list[dict]) -> dict:
    args, state = trained.training_args, trained.state
    logged = [] if state is None else state["log_history"]
    seconds = next((entry["train_runtime"] for entry in reversed(logged) if "train_runtime" in entry), None)
    # The kind of device, without the name of the machine.
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type.upper()
    trained_weights = trained.model.num_parameters(only_trainable=True)
    if trained.model_args.lora is not None and state is not None:
        # Merged, they can't be counted any more.
        trained_weights = read_json(Path(args.output_dir, "train_results.json"))["train_parameters"]
    return {
        "trained_weights": trained_weights,
        "state": state,
        "steps": steps,
        # A longer log is thinned out; the picture has all of it.
        "every": max(-(-len(steps) // ROWS_OF_LOG), 1),
        "columns": {name: title for name, title in COLUMNS.items() if any(name in entry for entry in steps)},
        "CURVE_FILE": CURVE_FILE,
        "minutes": None if seconds is None else seconds / 60,
        "rows_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "device": device if args.world_size == 1 else f"{args.world_size} processes ({device})",
        "made": made_with(),
    }


def training_rows(trained: TrainedModel) -> dict[str, str]:
    """Whom and what the model has heard in training."""
    if "train" not in trained.splits.tables:
        return {
            "speakers": "this run, which didn't train the model, doesn't know whom it has heard",
            "classes": "how often each was in its training rows isn't known here; rare ones may be missed.",
        }
    train, classes = trained.splits.tables["train"], trained.splits.record["parts"]["train"]["classes"]
    heard = [
        counted(len({value for value in train[name][:] if value is not None}), f"{name}s")
        for name in ("speaker", "session")
        if name in train.column_names
    ]
    total = max(sum(classes.values()), 1)
    frequent, rare = max(classes, key=classes.get), min(classes, key=classes.get)
    shares = f"{classes[frequent] / total:.1%} of the training rows are {frequent}, {classes[rare] / total:.1%} {rare}."
    if classes[frequent] > IMBALANCE * classes[rare]:
        shares += " Rare classes are the ones to expect mistakes in."
    missing = [label for label, count in classes.items() if not count]
    if missing:
        shares += f" It has never seen {first_names(missing)}."
    return {
        "speakers": f"trained on {' in '.join(heard)}" if heard else UNKNOWN_SPEAKERS,
        "classes": shares,
    }


def card_metadata(trained: TrainedModel) -> ModelCardData:
    """What the Hub reads: task, language, data, licence and scores."""
    dataset = trained.dataset_name if is_hub_id(trained.dataset_name) else trained.corpus
    bases = [backbone.name for backbone in trained.backbones if backbone.is_on_hub]
    is_our_own = trained.corpus == "demo" and trained.model_args.is_tiny
    return ModelCardData(
        language=trained.facts.metadata.get("language"),
        # Anything else combines several licences, which the section on the model names.
        license="apache-2.0" if is_our_own else None,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["emotion-recognition", "speech", "multimodal", "rsa_cfn", trained.model.config.fusion]
        + [SYNTHETIC] * (trained.corpus == "demo"),
        base_model=bases or None,
        datasets=[dataset] if is_hub_id(dataset) else None,
        metrics=["f1", "recall", "accuracy"],
        model_name=trained.name,
        eval_results=eval_results(trained, dataset) or None,
    )


def eval_results(trained: TrainedModel, dataset: str) -> list[EvalResult]:
    """The scores with all modalities, or the first that were scored."""
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Emotion recognition",
            dataset_type=dataset,
            dataset_name=trained.facts.pretty_name or Path(trained.dataset_name).name,
            dataset_split="test",
            metric_type=kind.hub_metric,
            metric_name=kind.title,
            metric_value=round(scored.metrics[f"{scored.prefix}_{name}"], 4),
        )
        for scored in trained.scores[:1]
        for name, kind in SCORES.items()
    ]
