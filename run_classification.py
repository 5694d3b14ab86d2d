"""Train, evaluate and save a fusion of speech and transcript for emotion recognition.

accelerate launch run_classification.py --fusion rsa_cfn
accelerate launch run_classification.py --fusion rsa --dataset_name data/kemdy20 --output_dir models/rsa_kemdy20
accelerate launch run_classification.py recipes/rsa_cfn.json --seed 7 --output_dir models/seed7
python run_classification.py --do_predict --model_name_or_path models/rsa_cfn --predict_file recordings \\
    --output_dir predictions/recordings
"""

if __name__ == "__main__":  # as imports take seconds
    from foundation.errors import run_script
    from training.parsing import read_given

    run_script("run_classification.py", read_given, is_early=True)

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from foundation.errors import InputError, PushError, RunStopped, complain, run_script
from fusion_rsa_cfn import FUSION_CLASSES
from training.arguments import DEMO_DIR, DataArguments, ModelArguments
from training.augmentation import Augmentation
from training.callbacks import FirstStepCallback, end_reports, show_progress
from training.checkpoints import FINISHED, LAST, find_checkpoint, is_finished, remove_half_written, writing
from training.checks import check_rows, check_same_run
from training.data import Splits, load_splits
from training.features import read_features_instead
from training.hub import check_destination
from training.labels import attribute_ranges, class_weights, target_shares
from training.lora import add_lora, merge_lora, save_adapter
from training.model import check_models, load_model, saved_classes
from training.opening import describe_run
from training.parsing import parse_arguments
from training.preflight import preflight
from training.recipe import make_recipe
from training.run_folder import format_closing, owned_by_run, write_split
from training.scoring import ScoredPart, compute_metrics, score, validate
from training.stopping import StopOnSignalCallback, stop_with_launcher
from training.trainer import RsaCfnDataCollator, RsaCfnTrainer


logger = logging.getLogger("run_classification")


def main(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    command: list[str] | None = None,
) -> dict[str, float]:
    """One run: from rows to a folder with the checkpoint, scores, predictions, a confusion matrix and a card.
    `command`, what the arguments were parsed from, goes into the card; the result is what `all_results.json` has.
    Raises InputError before anything is trained, PushError where a trained model is kept, or RunStopped."""
    start = time.perf_counter()
    set_seed(training_args.seed)
    for name in ("run_classification", "corpora", "training", "modeling_rsa_cfn", "configuration_rsa_cfn"):
        logging.getLogger(name).setLevel(logging.INFO if training_args.local_process_index == 0 else logging.ERROR)
    with owned_by_run(training_args):
        if data_args.predict_file is None:
            metrics = train_and_score(model_args, data_args, training_args, command)
        else:
            # Imported late: the pipelines of transformers would delay the first training step.
            from training.prediction import predict

            asked = f"{data_args.predict_file} by {model_args.model_name_or_path} on {training_args.device}"
            logger.info(f"Predicting for {asked}, into {training_args.output_dir}.")
            check_models(model_args, data_args)
            metrics = predict(model_args, data_args, training_args)
    if training_args.process_index == 0:
        print(format_closing(metrics, training_args.output_dir, time.perf_counter() - start))
    return metrics


def train_and_score(model_args, data_args, training_args, command: list[str] | None) -> dict[str, float]:
    """What `main` does of a run that isn't a prediction for files."""
    if data_args.is_demo:
        reason = "No dataset given and no data/kemdy20 found: running" if data_args.dataset_name is None else "Running"
        logger.info(f"{reason} on the demo corpus in {DEMO_DIR} (synthetic); its scores mean nothing about emotion.")
    output_dir = Path(training_args.output_dir)
    if training_args.push_to_hub and training_args.process_index == 0:
        check_destination(training_args)
    recipe = make_recipe(model_args, data_args, training_args)
    checkpoint = find_start(training_args)
    if checkpoint != output_dir:
        check_models(model_args, data_args)
    splits, weights = load_rows(model_args, data_args, training_args)
    if data_args.calibrate and splits.validation is None:
        needed = "validation rows; give --eval_strategy epoch, or a dataset or a split that has some"
        raise InputError(f"--calibrate {data_args.calibrate} needs {needed}")
    if training_args.do_train:
        check_rows(splits, training_args)
    if checkpoint is not None:
        check_same_run(checkpoint, model_args, data_args, splits, weights)
    if checkpoint == output_dir:
        # Its training is over, so its model is only scored.
        model_args.model_name_or_path, training_args.do_train = str(output_dir), False
    logger.info(describe_run(splits, model_args, data_args, training_args))
    trainer, splits = make_trainer(splits, weights, model_args, data_args, training_args)
    if trainer.is_world_process_zero():
        with writing(output_dir):
            write_split(output_dir, splits.record, splits.membership)
    metrics, scores = {}, []
    if training_args.do_train:
        train(trainer, model_args, checkpoint)
    is_trained = training_args.do_train or checkpoint == output_dir
    if is_trained and splits.validation is not None:
        metrics |= validate(trainer, splits, data_args.calibrate is not None)
    if training_args.do_eval or training_args.do_predict:
        conditions = [(modality, None) for modality in dict.fromkeys(data_args.eval_modalities)]
        conditions += [("both", condition) for condition in dict.fromkeys(data_args.eval_conditions)]
        for modality, condition in conditions:
            scores.append(score(trainer, splits, modality, condition))
            metrics |= scores[-1].metrics
    if is_trained or training_args.push_to_hub:
        if not is_trained:
            trainer.save_model(_internal_call=True)
        if trainer.is_world_process_zero():
            publish(trainer, splits, scores, metrics, model_args=model_args, recipe=recipe, command=command)
    end_reports(trainer)
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


def load_rows(model_args, data_args, training_args) -> tuple[Splits, list[float] | None]:
    """The rows of a run, and the weights of its classes if any are asked for."""
    with training_args.main_process_first(desc="preparing the dataset"):
        splits = load_splits(
            data_args,
            with_validation=training_args.eval_strategy != "no",
            classes=saved_classes(model_args),
            modalities=FUSION_CLASSES[model_args.fusion].modalities,
            attributes=model_args.attributes or (),
        )
    if data_args.class_weights is None:
        return splits, None
    return splits, class_weights(
        data_args.class_weights, target_shares(splits.tables["train"], len(splits.label_names))
    )


def make_trainer(splits: Splits, weights, model_args, data_args, training_args) -> tuple[RsaCfnTrainer, Splits]:
    """The Trainer of a run with its model, and the rows that it reads: features, where those are cached."""
    start = time.perf_counter()
    texts = [text for text in splits.tables["train"]["text"][:] if text is not None] if "train" in splits.tables else []
    if texts and data_args.context_turns:
        texts += [turn for turns in splits.tables["train"]["context"][:] for turn in turns]
    is_saved = model_args.model_name_or_path is not None  # and has its own ranges
    ranges = None if is_saved else attribute_ranges(splits.tables["train"], model_args.attributes)
    model, processor = load_model(
        model_args, data_args, splits.label_names, texts, class_weights=weights, attribute_ranges=ranges
    )
    if training_args.do_train:  # what is only scored, `load_model` has tried
        preflight(model, processor, texts, model_args, training_args)
    model_seconds = time.perf_counter() - start
    if model_args.lora is not None and training_args.do_train:
        add_lora(model, model_args.lora)
    rates = {"audio_model": model_args.audio_learning_rate, "text_model": model_args.text_learning_rate}
    collator, augmentation = RsaCfnDataCollator(processor, attributes=model.config.attributes or []), None
    if data_args.augment:
        augmentation = Augmentation(data_args.augment, data_args.augment_probability, len(splits.label_names))
    crop = "head" if processor.audio_crop == "head" else "random"
    trainer = RsaCfnTrainer(
        model=model,
        args=training_args,
        data_collator=collator,
        train_data_collator=replace(collator, audio_crop=crop, augmentation=augmentation),
        train_dataset=splits.train,
        eval_dataset=splits.compared,
        processing_class=processor,
        compute_metrics=partial(compute_metrics, label_names=splits.label_names),
        batch_weighted_sampler=data_args.batch_weighted_sampler,
        ema_decay=model_args.ema_decay,
        learning_rates={name: rate for name, rate in rates.items() if rate is not None},
    )
    show_progress(trainer)
    trainer.add_callback(FirstStepCallback(model_seconds))
    if model_args.cache_features:
        cropped = "" if crop == "head" else ", and longer clips are cropped to their centre in training too"
        logger.info(f"--cache_features: the backbones are frozen{cropped}.")
        splits = read_features_instead(trainer, splits, data_args)
    return trainer, splits


def train(trainer: RsaCfnTrainer, model_args: ModelArguments, checkpoint: Path | None) -> None:
    """Train from a checkpoint or from the beginning, and save the model; the last file says that the run finished."""
    output_dir = Path(trainer.args.output_dir)
    stop_on_signal = StopOnSignalCallback()
    if model_args.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(model_args.early_stopping_patience))
    trainer.add_callback(stop_on_signal)
    if trainer.is_world_process_zero():
        (output_dir / FINISHED).unlink(missing_ok=True)
    with stop_on_signal.listening():
        trained = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    with writing(output_dir):
        if model_args.lora is not None:
            trained.metrics["train_parameters"] = trainer.model.num_parameters(only_trainable=True)
            if model_args.lora_save == "adapter" and trainer.is_world_process_zero():
                save_adapter(trainer.model, output_dir / "adapter", model_args.model_name_or_path)
            merge_lora(trainer.model)
        # It is pushed later, with its scores and its card.
        trainer.save_model(_internal_call=True)
        trainer.save_metrics("train", trained.metrics)
        trainer.save_state()


def publish(trainer: RsaCfnTrainer, splits: Splits, scores: list[ScoredPart], metrics: dict, **of_the_run) -> None:
    """Write the model's card, and push both where that was asked for."""
    from training.card import TrainedModel, write_card  # late, as in compute_metrics

    trained = TrainedModel(
        model=trainer.accelerator.unwrap_model(trainer.model),
        processor=trainer.processing_class,
        splits=splits,
        scores=scores,
        validation=metrics,
        training_args=trainer.args,
        **of_the_run,
    )
    with writing(Path(trainer.args.output_dir)):
        write_card(trained)
    if trainer.args.push_to_hub:
        # The card can name the commit of the model only when there is one.
        commit = trainer.push_to_hub()
        write_card(trained, revision=commit.oid)
        print(f"Uploaded to {trainer.push_card()}, the model as revision {commit.oid}")


def run(arguments: list[str]) -> int:
    """The script: its exit code, as `EXIT_CODES` says, and in one line what ends it early."""
    try:
        metrics = main(*parse_arguments(arguments), command=arguments)
    except KeyboardInterrupt:
        message, exit_code = "interrupted; what was saved before is as it was", 130
    except InputError as error:
        message, exit_code = str(error), 2
    except PushError as error:
        message, exit_code = str(error), 1
    except RunStopped as stopped:
        message, exit_code = str(stopped), stopped.exit_code
    else:
        if torch.distributed.is_initialized():
            # Left to itself, its threads sometimes end the process by SIGABRT.
            torch.distributed.destroy_process_group()
        return int(0 < metrics.get("predict_rows", 0) == metrics["predict_errors"])
    if message:
        complain("run_classification.py", message)
    return exit_code


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    stop_with_launcher()
    run_script("run_classification.py", run)
