"""One pass over a part of the rows: its scores, and of the test part the files and tables that go with them."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas
from datasets import Dataset
from transformers import EvalPrediction
from transformers.utils import CONFIG_NAME

from corpora.folds import find_groups
from foundation.errors import InputError
from foundation.files import write_csv
from foundation.words import first_names
from training.callbacks import log_scores
from training.checkpoints import writing
from training.data import Splits
from training.labels import IGNORED
from training.run_folder import draw_confusion_matrix, format_line, format_summary, write_predictions
from training.trainer import RsaCfnTrainer


logger = logging.getLogger(__name__)


@dataclass
class ScoredPart:
    """A part that was scored."""

    table: Dataset  # its rows without audio
    logits: np.ndarray  # (N, C)
    labels: np.ndarray  # (N,)
    metrics: dict[str, float]  # all scores, whose names start with `prefix`
    prefix: str  # "validation", or "eval" and what the model was given where that isn't both modalities
    modality: str = "both"  # what the model was given, or "audio" or "text"
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # what is so and what is told: (2, N)
    condition: str | None = None  # what the clips were scored under, as --eval_conditions has it
    slices: pandas.DataFrame | None = None  # of `slice_scores`, for both modalities


def compute_metrics(scored: EvalPrediction, label_names: list[str]) -> dict[str, float]:
    """The scores of all rows but those that can't be read, or that the model makes nothing finite of."""
    # Imported late: scikit-learn and evaluate would delay the first training step by seconds.
    from metrics.emotion_metric import EmotionMetric

    is_scored, is_finite = scored.label_ids != IGNORED, np.isfinite(scored.predictions).all(axis=1)
    if not is_finite.any():
        raise InputError(
            f"the model's outputs are NaN or infinite for all {len(is_finite)} rows that would be scored: its weights "
            "are damaged, or overflow in half precision; give another model, or leave out --fp16 and --bf16"
        )
    if not is_scored.any():
        raise InputError("not one row that would be scored can be read; look whether the recordings are still there")
    if not is_finite.all():
        logger.warning(f"{(~is_finite).sum()} of {len(is_finite)} rows have outputs that aren't finite; none is scored")
    predictions = scored.predictions[is_scored, : len(label_names)].argmax(axis=1)
    return EmotionMetric(label_names).compute(predictions=predictions, references=scored.label_ids[is_scored])


def validate(trainer: RsaCfnTrainer, splits: Splits, calibrates: bool) -> dict[str, float]:
    """Scores on the validation part, by which settings are chosen, so that the test part is read for the last one; and
    the model's temperature by it, if that is asked for."""
    scored = _score_part(trainer, splits, "validation", "validation")
    metrics, config = scored.metrics, trainer.accelerator.unwrap_model(trainer.model).config
    if calibrates:
        from training.calibration import fit_temperature  # late, as in compute_metrics

        config.temperature *= fit_temperature(scored.logits, scored.labels)
        logger.info(f"The temperature of the probabilities is {config.temperature:.3f}, by the validation rows.")
        if trainer.is_world_process_zero():
            with writing(Path(trainer.args.output_dir)):
                config.save_pretrained(trainer.args.output_dir)
    logger.info(f"On the {metrics['validation_rows']} validation rows: {format_line(metrics, 'validation')}.")
    return metrics


def score(trainer: RsaCfnTrainer, splits: Splits, modality: str, condition: str | None = None) -> ScoredPart:
    """Score the test part with one or both modalities, and write the predictions and the confusion matrix."""
    suffix = "".join(f"_{what}" for what in (modality, condition) if what not in ("both", None))
    prefix = f"eval{suffix}"
    trainer.data_collator = replace(trainer.data_collator, modality=modality, condition=condition)
    scored = replace(_score_part(trainer, splits, "test", prefix), modality=modality, condition=condition)
    if trainer.is_world_process_zero():
        folder, names = Path(trainer.args.output_dir), splits.label_names
        picture = f"confusion_matrix{suffix}.png"
        with writing(folder):
            file = folder / f"predictions{suffix}.csv"
            write_predictions(file, scored.table, scored.logits, names, scored.attributes)
            draw_confusion_matrix(folder / picture, scored.labels, np.argmax(scored.logits, axis=1), names)
            if not suffix:
                write_csv(folder / "slices.csv", scored.slices)
        given = "audio and text" if modality == "both" else f"{modality} alone"
        print(f"\nScored on {given}{f', {condition}' if condition else ''}:")
        print(format_summary(scored.metrics, names, prefix))
        model = "the model, " if (folder / CONFIG_NAME).is_file() else ""
        print(f"\nWritten to {folder}: {model}all_results.json, predictions{suffix}.csv and {picture}")
    return scored


def _score_part(trainer: RsaCfnTrainer, splits: Splits, part: str, prefix: str) -> ScoredPart:
    output = trainer.predict(getattr(splits, part), metric_key_prefix=prefix)
    table = splits.tables[part]
    is_scored, is_finite = output.label_ids != IGNORED, np.isfinite(output.predictions).all(axis=1)
    for why, rows in (("can't be read", ~is_scored & is_finite), ("have outputs that aren't finite", ~is_finite)):
        if lost := [str(name) for name, is_lost in zip(table["segment_id"], rows) if is_lost]:
            logger.warning(f"{len(lost)} of {len(table)} rows of {part} {why} and are not scored: {first_names(lost)}")
    table = table if is_scored.all() else table.select(np.flatnonzero(is_scored))
    logits, told = np.split(output.predictions[is_scored], [len(splits.label_names)], axis=1)
    labels, names = output.label_ids[is_scored], trainer.model.config.attributes or ()
    metrics = {**output.metrics, f"{prefix}_rows": len(table)}
    attributes = {name: np.array([table[name][:], column], float) for name, column in zip(names, told.T)}
    if attributes:
        from metrics.concordance import concordance_scores

        scores = concordance_scores(attributes, (find_groups(table) or [None])[-1])
        metrics |= {f"{prefix}_{name}": score for name, score in scores.items()}
    if "votes" in table.column_names:
        from metrics.raters import rater_scores  # late, as in compute_metrics

        votes_before = splits.tables["train"]["votes"][:] if "train" in splits.tables else None
        scores = rater_scores(table["votes"][:], logits, votes_before)
        metrics |= {f"{prefix}_{name}": score for name, score in scores.items()}
    slices = None
    if prefix == "eval":
        from metrics.slices import DIVIDING, divide, slice_scores

        columns = {name: table[name][:] for name in DIVIDING if name in table.column_names}
        slices = slice_scores(labels, logits.argmax(axis=1), divide(columns), len(splits.label_names))
        worst = slices.groupby("by").macro_f1.min()
        metrics |= {f"eval_worst_{name}_macro_f1": float(score) for name, score in worst.items()}
    with writing(Path(trainer.args.output_dir)):
        trainer.save_metrics(prefix, metrics)
    log_scores(trainer, metrics, prefix)
    return ScoredPart(table, logits, labels, metrics, prefix, attributes=attributes, slices=slices)
