"""Train, evaluate and save a fusion of speech and transcript for emotion recognition.

accelerate launch run_classification.py --fusion rsa_cfn
accelerate launch run_classification.py --fusion rsa_cfn --dataset_name data/kemdy20 --output_dir runs/first
accelerate launch run_classification.py recipes/rsa_cfn.json --seed 7
accelerate launch run_classification.py --do_predict --model_name_or_path models/rsa_cfn --predict_file recordings
"""

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from foundation.errors import InputError, PushError, RunStopped
from foundation.words import first_names
from training.arguments import DEMO_DIR, DataArguments, ModelArguments
from training.checkpoints import FINISHED, LAST, find_checkpoint, is_finished, remove_half_written, writing
from training.checks import check_rows, check_same_run
from training.data import Splits, load_splits
from training.features import read_features_instead
from training.hub import check_destination
from training.labels import class_weights, target_shares
from training.model import load_model, saved_classes
from training.parsing import parse_arguments
from training.precision import LogitsDtypeCallback
from training.progress import log_scores, show_progress
from training.recipe import make_recipe
from training.report import (
    ScoredPart,
    draw_confusion_matrix,
    format_closing,
    format_line,
    format_summary,
    write_predictions,
    write_split,
)
from training.stopping import StopOnSignalCallback
from training.streams import IGNORED
from training.trainer import FirstStepCallback, RsaCfnDataCollator, RsaCfnTrainer


logger = logging.getLogger("run_classification")


def main(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    command: list[str] | None = None,
) -> dict[str, float]:
    """
    One run: from rows to a folder with the checkpoint, scores, predictions, a confusion matrix and a card.

    Args:
        command (`list[str]`, *optional*): What the arguments were parsed from, for the card.

    Returns:
        The metrics of the evaluation, as in `all_results.json`.

    Raises:
        InputError: Something given can't be used; nothing was trained.
        PushError: The Hub doesn't take the model; a trained one is kept.
        RunStopped: A signal, a loss that isn't finite or a full disk stopped the run.
    """
    run_start = time.perf_counter()
    set_seed(training_args.seed)
    for name in ("run_classification", "training"):
        logging.getLogger(name).setLevel(logging.INFO if training_args.local_process_index == 0 else logging.ERROR)
    if data_args.predict_file is not None:
        # Imported where it is needed: the pipelines of transformers would hold up the first training step.
        from training.prediction import predict

        metrics = predict(model_args, data_args, training_args)
        if training_args.process_index == 0:
            print(format_closing(metrics, training_args.output_dir, time.perf_counter() - run_start))
        return metrics
    if data_args.is_demo:
        reason = "No dataset given and no data/kemdy20 found: running" if data_args.dataset_name is None else "Running"
        logger.info(
            f"{reason} on the demo corpus in {DEMO_DIR} (synthetic speech); its scores mean nothing about emotion."
        )
    output_dir = Path(training_args.output_dir)
    if training_args.push_to_hub and training_args.process_index == 0:
        check_destination(training_args)
    recipe = make_recipe(model_args, data_args, training_args)
    checkpoint = find_start(training_args)
    with training_args.main_process_first(desc="preparing the dataset"):
        splits = load_splits(
            data_args,
            with_validation=training_args.eval_strategy != "no",
            seed=training_args.seed,
            eval_batch_size=training_args.eval_batch_size * training_args.world_size,
            classes=saved_classes(model_args),
        )
    tables = splits.tables
    training_rows = f"{len(tables['train'])} rows train, " if "train" in tables else ""
    logger.info(f"{training_rows}{len(tables['test'])} are scored: {splits.description}.")
    weights = None
    if data_args.class_weights is not None and "train" in tables:
        weights = class_weights(data_args.class_weights, target_shares(tables["train"], len(splits.label_names)))
    if training_args.do_train:
        check_rows(splits, data_args, training_args)
    if checkpoint is not None:
        check_same_run(checkpoint, model_args, data_args, splits, weights)
    if checkpoint == output_dir:
        # Its training is over: what is left is to score the model there.
        model_args.model_name_or_path, training_args.do_train = str(output_dir), False
    texts = tables["train"]["text"][:] if "train" in tables else []
    start = time.perf_counter()
    model, processor = load_model(model_args, data_args, splits.label_names, texts, weights)
    model_seconds = time.perf_counter() - start
    trainer = build_trainer(model, processor, splits, model_args, data_args, training_args)
    trainer.add_callback(FirstStepCallback(model_seconds))
    if model_args.cache_features:
        crop = (
            "" if processor.audio_crop == "head" else ", and longer clips are cropped to their centre in training too"
        )
        logger.info(f"--cache_features: the backbones are frozen{crop}.")
        splits = read_features_instead(trainer, splits, data_args)
    if trainer.is_world_process_zero():
        write_split(output_dir, splits.record, splits.membership)
    metrics, scores = {}, []
    if training_args.do_train:
        train(trainer, model_args, checkpoint)
    is_trained = training_args.do_train or checkpoint == output_dir
    if is_trained and splits.validation is not None and not data_args.streaming:
        metrics |= validate(trainer, splits)
    if training_args.do_eval or training_args.do_predict:
        for modality in dict.fromkeys(data_args.eval_modalities):
            scores.append(score(trainer, splits, modality))
            metrics |= scores[-1].metrics
    if is_trained or training_args.push_to_hub:
        if not is_trained:
            trainer.save_model(_internal_call=True)
        if trainer.is_world_process_zero():
            publish(trainer, splits, scores, metrics, model_args, recipe, command)
    if trainer.is_world_process_zero():
        print(format_closing(metrics, training_args.output_dir, time.perf_counter() - run_start))
    return metrics


def find_start(training_args: TrainingArguments) -> Path | None:
    """The checkpoint that training goes on from, or the folder of the run where nothing is left to train."""
    resume, output_dir = training_args.resume_from_checkpoint, Path(training_args.output_dir)
    if not training_args.do_train or resume is None:
        return None
    if training_args.process_index == 0:
        remove_half_written(output_dir)
    if resume.lower() in (LAST, "true") and is_finished(output_dir):
        logger.info(f"The run in {output_dir} is finished: nothing is left to train, and its model is scored.")
        return output_dir
    checkpoint = find_checkpoint(resume, output_dir)
    num_processes = 0 if checkpoint is None else len(list(checkpoint.glob("rng_state*.pth")))
    if checkpoint is not None and num_processes != training_args.world_size:
        logger.warning(
            f"{checkpoint} is of {num_processes} processes, this run has {training_args.world_size}: it goes on with "
            "other batches and random numbers than it would have."
        )
    return checkpoint


def train(trainer: RsaCfnTrainer, model_args: ModelArguments, checkpoint: Path | None) -> None:
    """Train from a checkpoint or from the beginning, and save the model; the last file says that the run finished."""
    output_dir = Path(trainer.args.output_dir)
    stop_on_signal = StopOnSignalCallback()
    trainer.add_callback(LogitsDtypeCallback())
    if model_args.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(model_args.early_stopping_patience))
    trainer.add_callback(stop_on_signal)
    if trainer.is_world_process_zero():
        (output_dir / FINISHED).unlink(missing_ok=True)
    with stop_on_signal.listening():
        trained = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    with writing(output_dir):
        # Pushed when there are scores and a card to go with it.
        trainer.save_model(_internal_call=True)
        trainer.save_metrics("train", trained.metrics)
        trainer.save_state()


def build_trainer(
    model,
    processor,
    splits: Splits,
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
) -> RsaCfnTrainer:
    """The Trainer of a run."""

    def compute_metrics(scored) -> dict[str, float]:
        # Imported with the first score: scikit-learn and evaluate would hold up the first step for seconds.
        from metrics.emotion_metric import EmotionMetric

        is_scored = scored.label_ids != IGNORED
        predictions = scored.predictions[is_scored].argmax(axis=1)
        metric = EmotionMetric(splits.label_names)
        return metric.compute(predictions=predictions, references=scored.label_ids[is_scored])

    if data_args.streaming:
        # Each process reads for itself: dispatched batches would have to be of one length.
        training_args.accelerator_config.dispatch_batches = False
    # The collator makes the model's inputs out of columns that aren't any.
    training_args.remove_unused_columns = False
    training_args.label_names = ["labels"]
    trainer = RsaCfnTrainer(
        model=model,
        args=training_args,
        data_collator=RsaCfnDataCollator(processor),
        train_data_collator=RsaCfnDataCollator(
            processor, audio_crop="head" if processor.audio_crop == "head" else "random"
        ),
        # A stream to train on would want to know for how many steps.
        train_dataset=splits.train if training_args.do_train else None,
        eval_dataset=splits.compared,
        processing_class=processor,
        compute_metrics=compute_metrics,
        batch_weighted_sampler=data_args.batch_weighted_sampler,
        learning_rates={
            name: rate
            for name, rate in (
                ("audio_model", model_args.audio_learning_rate),
                ("text_model", model_args.text_learning_rate),
            )
            if rate is not None
        },
    )
    show_progress(trainer)
    return trainer


def validate(trainer: RsaCfnTrainer, splits: Splits) -> dict[str, float]:
    """Scores on the validation part, by which settings are chosen, so that the test part is read for the last one."""
    scored = _predict(trainer, splits, "validation", "validation")
    line = format_line(scored.metrics, "validation")
    logger.info(f"On the {scored.metrics['validation_rows']} validation rows: {line}.")
    return scored.metrics


def score(trainer: RsaCfnTrainer, splits: Splits, modality: str) -> ScoredPart:
    """
    One pass over the test part gives the scores, the predictions and the confusion matrix. Nothing else reads that
    part, but for a run that is told to compare its epochs on it.

    Args:
        modality (`str`): `"both"`, or the one the model is given: names of scores and files then say which.
    """
    suffix = "" if modality == "both" else f"_{modality}"
    prefix = f"eval{suffix}"
    trainer.data_collator = replace(trainer.data_collator, modality=modality)
    scored = replace(_predict(trainer, splits, "test", prefix), modality=modality)
    if trainer.is_world_process_zero():
        folder, names = Path(trainer.args.output_dir), splits.label_names
        write_predictions(folder / f"predictions{suffix}.csv", scored.table, scored.logits, names)
        picture = f"confusion_matrix{suffix}.png"
        draw_confusion_matrix(folder / picture, scored.labels, np.argmax(scored.logits, axis=1), names)
        print(f"\nScored on {'audio and text' if modality == 'both' else f'{modality} alone'}:")
        print(format_summary(scored.metrics, names, prefix))
        print(f"\nWritten to {folder}: the model, all_results.json, predictions{suffix}.csv and {picture}")
    return scored


def publish(
    trainer: RsaCfnTrainer,
    splits: Splits,
    scores: list[ScoredPart],
    metrics: dict[str, float],
    model_args: ModelArguments,
    recipe: dict,
    command: list[str] | None,
) -> None:
    """Write the model's card, and push both where that was asked for."""
    from training.card import TrainedModel, write_card  # see compute_metrics

    trained = TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        processor=trainer.processing_class,
        splits=splits,
        scores=scores,
        validation=metrics,
        model_args=model_args,
        training_args=trainer.args,
        recipe=recipe,
        command=command,
    )
    write_card(trained)
    if trainer.args.push_to_hub:
        # The card can name the commit of the model only when there is one.
        commit = trainer.push_to_hub()
        write_card(trained, revision=commit.oid)
        print(f"Uploaded to {trainer.push_card()}, the model as revision {commit.oid}")


def _predict(trainer: RsaCfnTrainer, splits: Splits, part: str, prefix: str) -> ScoredPart:
    """Score a part and save its metrics, named `prefix`."""
    output = trainer.predict(getattr(splits, part), metric_key_prefix=prefix)
    table = splits.tables[part]
    is_scored = output.label_ids != IGNORED
    lost = [str(name) for name, scored in zip(table["segment_id"], is_scored) if not scored]
    if lost:
        logger.warning(
            f"{len(lost)} of {len(table)} rows of {part} can't be read and are not scored: {first_names(lost)}"
        )
        table = table.select(np.flatnonzero(is_scored))
    logits, labels = output.predictions[is_scored], output.label_ids[is_scored]
    metrics = {**output.metrics, f"{prefix}_rows": len(table)}
    if "votes" in table.column_names:
        from metrics.raters import rater_scores  # see compute_metrics

        votes_before = splits.tables["train"]["votes"][:] if "train" in splits.tables else None
        scores = rater_scores(table["votes"][:], logits, votes_before)
        metrics |= {f"{prefix}_{name}": score for name, score in scores.items()}
    trainer.save_metrics(prefix, metrics)
    log_scores(trainer, metrics, prefix)
    return ScoredPart(table, logits, labels, metrics, prefix)


def run(arguments: list[str]) -> int:
    """
    The script.

    Returns:
        0 after a whole run; 2 if something given can't be used; 1 if something can't be written, be it here or on the
        Hub; 3 for a loss that isn't finite; 143 after SIGTERM and 130 after SIGINT.
    """
    try:
        main(*parse_arguments(arguments), command=arguments)
    except InputError as error:
        print(f"run_classification.py: {error}", file=sys.stderr)
        return 2
    except PushError as error:
        print(f"run_classification.py: {error}", file=sys.stderr)
        return 1
    except RunStopped as stopped:
        if str(stopped):
            print(f"run_classification.py: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("run_classification.py: interrupted; what was saved before is as it was", file=sys.stderr)
        return 130
    if torch.distributed.is_initialized():
        # Its threads, still there when the process ends, now and then end it by SIGABRT.
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    sys.exit(run(sys.argv[1:]))
