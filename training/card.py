"""The card of a trained model, README.md on the Hub: what it is, how well it does, where from, and how to load it.
Every number in it comes from the run's own files and rows, so that it can be walked back to them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import TrainingArguments

from corpora.card import CorpusFacts
from corpora.folds import find_groups
from metrics.intervals import bootstrap_intervals
from metrics.scores import SCORES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor
from training.arguments import ModelArguments
from training.card_sections import (
    command_section,
    data_section,
    limits_section,
    loading_section,
    model_section,
    results_section,
    training_section,
)
from training.checkpoints import FINISHED
from training.curves import draw_training_curve, training_steps
from training.data import Splits
from training.hub import CARD_FILE, CURVE_FILE
from training.origins import Backbone, find_backbones, find_corpus, is_hub_id
from training.report import ScoredPart


PAPER = (
    "*Residual Self-Attention Cross Fusion Network* (RSA-CFN), 2023 Human Understanding AI paper competition: emotion "
    "recognition from the speech and text of KEMDy20."
)


@dataclass
class TrainedModel:
    """
    What a card is about, when a run has ended.

    Args:
        model ([`RsaCfnForSequenceClassification`]), processor ([`RsaCfnProcessor`]): As saved in the run's folder.
        splits ([`Splits`]): The rows.
        scores (`list[ScoredPart]`): The test part, once for each choice of modalities.
        validation (`dict[str, float]`): Scores on the validation part; empty where there is none.
        model_args ([`ModelArguments`]), training_args ([`TrainingArguments`]): Of the run.
        recipe (`dict`): From `make_recipe`.
        command (`list[str]`, *optional*): What was given to run_classification.py.
    """

    model: RsaCfnForSequenceClassification
    processor: RsaCfnProcessor
    splits: Splits
    scores: list[ScoredPart]
    validation: dict[str, float]
    model_args: ModelArguments
    training_args: TrainingArguments
    recipe: dict
    command: list[str] | None = None
    backbones: list[Backbone] = field(init=False)
    corpus: str = field(init=False)
    facts: CorpusFacts = field(init=False)
    intervals: dict[str, tuple[float, float]] = field(init=False, default_factory=dict)
    state: dict | None = field(init=False, default=None)

    def __post_init__(self):
        self.backbones = find_backbones(self.model_args, self.model.config)
        self.corpus, self.facts = find_corpus(self.dataset_name)
        if self.scores:
            scored = self.scores[0]
            groups = find_groups(scored.table)
            predictions = np.argmax(scored.logits, axis=1)
            values = None if groups is None else groups[1]
            self.intervals = bootstrap_intervals(scored.labels, predictions, self.splits.label_names, values)
        record = Path(self.training_args.output_dir) / FINISHED
        if record.is_file():
            self.state = json.loads(record.read_text(encoding="utf-8"))

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


def write_card(trained: TrainedModel, revision: str = "main") -> None:
    """
    README.md and the curve of the training, in the folder of the run.

    Args:
        trained ([`TrainedModel`]): What it is about.
        revision (`str`): The one that its example loads.
    """
    folder = Path(trained.training_args.output_dir)
    steps = [] if trained.state is None else training_steps(trained.state["log_history"])
    if steps:
        draw_training_curve(folder / CURVE_FILE, steps, trained.state["best_global_step"])
    (folder / CARD_FILE).write_text(str(model_card(trained, steps, revision)), encoding="utf-8")


def model_card(trained: TrainedModel, steps: list[dict], revision: str = "main") -> ModelCard:
    """
    Args:
        trained ([`TrainedModel`]): What it is about.
        steps (`list[dict]`): From `training_steps`; empty for a model that was only scored.
        revision (`str`): The one that its example loads.
    """
    fusion = trained.model.config.fusion
    inputs = {"audio": "speech", "text": "transcripts"}.get(fusion, "speech and its transcript")
    parts = [f"---\n{card_metadata(trained).to_yaml()}\n---", f"# {trained.name}"]
    if trained.corpus == "demo":
        parts.append(
            "> **Trained on synthetic sounds, to try software.** No human speaks in them, and a generator made up the "
            "labels: what this model answers, and every score below, means nothing about emotion."
        )
    classes = ", ".join(trained.splits.label_names)
    parts.append(f"Emotion recognition from {inputs}: one of {classes}.")
    sections = {
        "Load it": loading_section(trained, revision),
        "Model": model_section(trained),
        "Data": data_section(trained),
        "Results": results_section(trained),
        "Training": training_section(trained, steps),
        "The same again": command_section(trained),
        "Limits": limits_section(trained),
        "Citation": "\n".join(f"- {line}" for line in (PAPER, trained.facts.citation) if line is not None),
    }
    for heading, text in sections.items():
        parts += [f"## {heading}", text]
    return ModelCard("\n\n".join(parts) + "\n")


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
        tags=["emotion-recognition", "speech", "multimodal", "rsa_cfn", trained.model.config.fusion],
        base_model=bases or None,
        datasets=[dataset],
        metrics=["f1", "recall", "accuracy"],
        model_name=trained.name,
        eval_results=eval_results(trained, dataset) or None,
    )


def eval_results(trained: TrainedModel, dataset: str) -> list[EvalResult]:
    """The scores with all modalities, or the first that were scored."""
    if not trained.scores:
        return []
    scored, results = trained.scores[0], []
    for name, kind in SCORES.items():
        results.append(
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
        )
    return results
