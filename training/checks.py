"""What is refused before a model is loaded: arguments that don't fit each other, the saved model or the rows."""

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from configuration_rsa_cfn import RsaCfnConfig
from corpora.folds import ALL, check_folds
from foundation.errors import InputError
from foundation.files import check_output_dir, holds_files, read_json
from fusion_rsa_cfn import FUSION_CLASSES
from metrics.scores import SCORES
from training.arguments import LIMITS, OF_THE_TRAINING, OF_THE_WEIGHTS, DataArguments, ModelArguments, check_ranges
from training.checkpoints import FILE_LIST, LAST, TRAINING_WEIGHTS, is_finished
from training.data import Splits
from training.model import TINY_AUDIO, TINY_TEXT, max_audio_frames, max_text_positions, read_config, read_saved
from training.run_folder import owned_by_run


logger = logging.getLogger(__name__)

# Scores of one class, whose name follows.
OF_A_CLASS = ("f1_", "recall_")
CROSSING = ("rsa_cfn", "hybrid_fusion")
OF_THE_BEST = ("load_best_model_at_end", "early_stopping_patience")
IN_TRAINING = ("ignore_mismatched_sizes", "lora_rank", "ema_decay", "augment", "calibrate")
# Without effect they are said and not refused: a plan or a recipe gives them to many runs.
SAID = ("cross_fusion_rank", "pooling_mode", "warmup_steps", "attribute_loss", "attribute_weight")
# Of a backbone's configuration, what its weights and their meaning depend on.
BACKBONE_FIELDS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
BACKBONE_FIELDS += ("vocab_size", "conv_dim", "conv_kernel", "conv_stride", "feat_extract_norm")


def check_saved_model(given: dict, saved: dict, config: RsaCfnConfig) -> None:
    """Refuse by an InputError what was given and a saved model can't do; `saved` is what `read_saved` says of it."""
    name = given["model_name_or_path"]
    for field in OF_THE_WEIGHTS:
        if given.get(field, saved[field]) != saved[field]:
            own = f"its own {field}, {saved[field]}, not {given[field]}"
            raise InputError(f"--model_name_or_path brings {own}; leave out --{field}")
    _check_version(name, config)
    # The values have to be in range, too.
    changed = {field: given[field] for field in OF_THE_TRAINING if field in given}
    _check_config(lambda: RsaCfnConfig.from_dict({**config.to_dict(), **changed}))
    for modality in ("audio", "text"):
        _check_frozen(modality, given, saved)
    _check_limits(given, saved, config)


def _check_version(name: str, config: RsaCfnConfig) -> None:
    """A field that came later would be passed over in silence, and the model be another one than was saved."""
    saved, _ = RsaCfnConfig.get_config_dict(name)
    # The Trainer writes fields of language models, such as use_cache, into any configuration.
    if "lora" in saved:
        raise InputError(f"--model_name_or_path {name} holds LoRA's updates apart; give the folder of its finished run")
    known = {"transformers_version", "quantization_config", *config.text_config.to_dict(), *RsaCfnConfig().to_dict()}
    if unknown := [field for field in saved if field not in known and not field.startswith("_")]:
        raise InputError(
            f"--model_name_or_path {name} has fields in config.json that this version doesn't know: "
            f"{', '.join(unknown)}; update this repository and transformers (saved with "
            f"{saved.get('transformers_version', 'an unknown version')}, here is {transformers.__version__})"
        )


def _check_config(make_config) -> RsaCfnConfig:
    """Let the configuration refuse what it can."""
    try:
        return make_config()
    except (ValueError, StrictDataclassError) as error:
        raise InputError(f"--{' '.join(str(error).split())}") from error


def _check_frozen(modality: str, given: dict, saved: dict) -> None:
    """Refuse what has no effect, because the saved model freezes more of a backbone than it is about."""
    encoder, layers = f"freeze_{modality}_encoder", f"freeze_{modality}_layers"
    names = [f"{modality}_learning_rate", layers] + ["freeze_feature_encoder"] * (modality == "audio")
    useless = [name for name in names if name in given and given[name] != saved.get(name)]
    if saved[encoder] and encoder not in given and useless:
        problem = f"--{useless[0]} has no use: the saved model keeps its {modality} backbone from training"
        raise InputError(f"{problem}; give --{encoder} false too, or leave it out")
    if saved[layers] and layers not in given and "freeze_feature_encoder" in useless:
        raise InputError(
            f"--freeze_feature_encoder has no use: the saved model keeps {saved[layers]} layers of its audio backbone "
            f"and all below them from training; give --{layers} 0 too, or leave it out"
        )


def _check_limits(given: dict, saved: dict, config: RsaCfnConfig) -> None:
    """Refuse longer transcripts and clips than a saved model takes."""
    tokens, seconds = given.get("max_text_tokens"), given.get("max_audio_seconds")
    is_mixer = config.fusion == "mlp_mixer"
    if tokens is not None and tokens != saved.get("max_text_tokens"):
        limit = config.max_text_tokens if is_mixer else max_text_positions(config.text_config)
        if tokens > limit:
            raise InputError(f"--max_text_tokens {tokens} is more than the saved model takes; give at most {limit}")
    if is_mixer and seconds is not None and max_audio_frames(config.audio_config, seconds) > config.max_audio_frames:
        raise InputError(
            f"--max_audio_seconds {seconds:g} is more than the {config.max_audio_frames} frames that the saved "
            "mlp_mixer was made for; give less, or leave it out"
        )


def check_arguments(model_args: ModelArguments, data_args: DataArguments, training_args, given: dict) -> None:
    """Refuse what can be seen to be wrong before anything is loaded; `given` is what the user gave."""
    for args in (model_args, data_args, training_args):
        check_ranges(args)
    _check_model(model_args, data_args)
    if data_args.split is not None:
        if data_args.split == ALL and training_args.do_train:
            raise InputError(f"--split {ALL} leaves nothing to train on; give --do_eval, which alone doesn't train")
        if data_args.split == ALL and data_args.class_weights is not None:
            raise InputError(f"--class_weights are those of training rows, and --split {ALL} has none; leave it out")
        check_folds(data_args.split, data_args.num_folds, data_args.fold)
    if data_args.compare_epochs_on == "test" and training_args.eval_strategy == "no":
        raise InputError("--compare_epochs_on test compares no epochs by itself; give --eval_strategy epoch, or steps")
    if data_args.predict_file is not None:
        if model_args.model_name_or_path is None:
            raise InputError("--predict_file needs a model to predict with; give a saved one with --model_name_or_path")
        if training_args.do_train or training_args.do_eval or not training_args.do_predict:
            raise InputError("--predict_file is predicted for and nothing else; leave out --do_train and --do_eval")
    if not training_args.do_train and model_args.model_name_or_path is None:
        raise InputError("without training there is nothing to evaluate; give a saved model by --model_name_or_path")
    _check_training(training_args)
    _check_use(given, model_args, data_args, training_args)
    if data_args.predict_file is None:  # a prediction looks itself at what there is
        _check_output_dir(training_args)


def _check_use(given: dict, model_args: ModelArguments, data_args: DataArguments, training_args) -> None:
    """Refuse what was given and has no effect, or say so where a plan or a recipe may give it to many."""
    fusion, scheduler = model_args.fusion, training_args.lr_scheduler_type.value
    logs, saves, evaluates = (getattr(training_args, f"{what}_strategy").value for what in ("logging", "save", "eval"))
    workers, keeps_best = training_args.dataloader_num_workers, training_args.load_best_model_at_end
    strategy = training_args.hub_strategy.value
    files = ("dataset_dict.json", "state.json")
    is_prepared = data_args.is_demo or any(os.path.exists(Path(data_args.dataset_name, file)) for file in files)
    # Without steps of its own, evaluation takes those of the log.
    spares_clips = {*data_args.augment} <= {"mixup", "raters"}
    is_soft = "soft" in (data_args.label_target, data_args.ties)
    is_logged = "steps" in (logs, evaluates if "eval_steps" not in given else logs)
    for option, is_useful, instead in (
        ("logging_steps", is_logged, f"with --logging_strategy {logs}; give --logging_strategy steps"),
        ("save_steps", saves == "steps", f"with --save_strategy {saves}; give --save_strategy steps"),
        ("eval_steps", evaluates == "steps", f"with --eval_strategy {evaluates}; give --eval_strategy steps"),
        *((name, evaluates != "no", "without scores; give --eval_strategy epoch, or steps") for name in OF_THE_BEST),
        ("early_stopping_patience", keeps_best, "without the best; give --load_best_model_at_end"),
        ("dataloader_persistent_workers", workers, "without --dataloader_num_workers; give it"),
        ("ignore_mismatched_sizes", model_args.model_name_or_path, "without --model_name_or_path; give it"),
        *((name, training_args.do_train, "without training; leave out --do_train false") for name in IN_TRAINING),
        ("int8", not training_args.do_train, "in training; give --do_train false and a saved model"),
        ("int8", training_args.device.type == "cpu", "but on a CPU; give --use_cpu"),
        ("int8", not (training_args.bf16 or training_args.fp16), "with --bf16 and --fp16; give one of the three"),
        ("int8", not model_args.cache_features, "with --cache_features; give one of the two"),
        *((name, model_args.lora, "without --lora_rank; give it") for name in given if name[:5] == "lora_"),
        ("hub_strategy", strategy == "end", f"as {strategy}: a model is pushed with its scores and its card; give end"),
        ("augment", fusion != "text" or spares_clips, "with --fusion text, but mixup and raters"),
        ("augment", not model_args.cache_features or spares_clips, "with --cache_features, but mixup and raters"),
        ("augment", "mixup" not in data_args.augment or training_args.n_gpu < 2, "of mixup without accelerate launch"),
        ("augment", "raters" not in data_args.augment or is_soft, "of raters without --label_target soft; give it"),
        ("augment_probability", data_args.augment, "without --augment; give it"),
        ("eval_conditions", fusion != "text", "with --fusion text"),
        ("eval_conditions", not model_args.cache_features, "with --cache_features, whose clips are always the same"),
        ("context_turns", fusion != "audio", "with --fusion audio, which reads no text; give another"),
        ("unsure_below", data_args.predict_file, "without --predict_file; give it"),
        ("asr_language", data_args.asr_model, "without --asr_model; give it"),
        ("asr_model", data_args.predict_file, "without --predict_file; give it"),
        ("dataset_config_name", not is_prepared, "with a folder from prepare_dataset.py; give another --dataset_name"),
        *((name, training_args.push_to_hub, "without --push_to_hub; give it") for name in given if "hub_" in name[:4]),
        ("cross_fusion_rank", fusion in CROSSING, f"with --fusion {fusion}; give one of {', '.join(CROSSING)}"),
        *((name, model_args.attributes, "without --attributes; give it") for name in given if "attribute_" in name),
        ("pooling_mode", fusion != "mlp_mixer" or model_args.pooling_mode == "mean", "with mlp_mixer; give mean"),
        ("warmup_steps", scheduler != "constant", "with --lr_scheduler_type constant; give constant_with_warmup"),
    ):
        if is_useful or not given.get(option):
            continue
        message = f"--{option} has no use {instead}, or leave it out"
        if option not in SAID:
            raise InputError(message)
        if training_args.local_process_index == 0:
            logger.warning(message)


def _check_model(model_args: ModelArguments, data_args: DataArguments) -> None:
    if model_args.model_name_or_path is None:
        # Without the backbones: how many layers they have is seen later.
        given = {name: value for name, value in model_args.config_fields.items() if not name.startswith("freeze")}
        config = _check_config(lambda: RsaCfnConfig(**given))
    else:
        config = read_config(model_args.model_name_or_path)
    if model_args.lora is not None:
        _check_lora(model_args)
    unimodal = model_args.fusion if model_args.fusion in ("audio", "text") else None
    if model_args.cache_features:
        _check_cacheable(config)
        for modality in data_args.eval_modalities:
            if unimodal and modality not in ("both", unimodal):
                raise InputError(
                    f"--eval_modalities {modality} can't be scored from features: --fusion {unimodal} has none of it"
                )
    for modality in ("audio", "text"):
        learning_rate = getattr(model_args, f"{modality}_learning_rate")
        if learning_rate is None:
            continue
        if unimodal not in (None, modality):
            raise InputError(f"--{modality}_learning_rate has no use: --fusion {unimodal} has no such backbone")
        if getattr(model_args, f"freeze_{modality}_encoder"):
            frozen_by = "--cache_features" if model_args.cache_features else f"--freeze_{modality}_encoder"
            raise InputError(f"--{modality}_learning_rate has no use: {frozen_by} keeps that backbone from training")


def _check_lora(model_args: ModelArguments) -> None:
    if find_spec("peft") is None:
        raise InputError("--lora_rank needs peft; pip install peft")
    for modality in model_args.lora_targets:
        if modality not in FUSION_CLASSES[model_args.fusion].modalities:
            raise InputError(f"--lora_targets {modality} has no use: --fusion {model_args.fusion} has no such backbone")
        fields = ("cache_features", f"freeze_{modality}_encoder", f"freeze_{modality}_layers")
        if frozen := [field for field in fields if getattr(model_args, field)]:
            raise InputError(f"--lora_rank trains the {modality} backbone, and --{frozen[0]} doesn't; give one of them")
    if model_args.lora_save == "adapter" and (model_args.is_tiny or model_args.use_weighted_layer_sum):
        why = "new random backbones" if model_args.is_tiny else "weights of layers, which peft doesn't save"
        raise InputError(f"--lora_save adapter can't be loaded again: the model has {why}; leave it out")


def _check_cacheable(config: RsaCfnConfig) -> None:
    """What frozen backbones make of a row has to be the same in every batch and after every step."""
    of_means = FUSION_CLASSES[config.fusion].reads_pooled and config.pooling_mode in ("mean", "sum")
    if config.use_weighted_layer_sum and not of_means:
        raise InputError(
            f"--cache_features can't go with use_weighted_layer_sum for fusion={config.fusion} and pooling_mode="
            f"{config.pooling_mode}: it keeps no frames of all layers; give --freeze_audio --freeze_text instead"
        )
    if not config.mask_padding:
        problem = "--cache_features needs mask_padding=True, without it the features of a row depend on its batch"
        raise InputError(f"{problem}; freeze by --freeze_audio_encoder and --freeze_text_encoder instead")


def _check_training(training_args: TrainingArguments) -> None:
    if training_args.label_smoothing_factor:
        raise InputError(
            f"--label_smoothing_factor {training_args.label_smoothing_factor} would replace the model's own loss; "
            "give --label_smoothing"
        )
    if training_args.hub_token is not None:
        raise InputError("--hub_token would be written into training_args.bin; run `hf auth login`, or set HF_TOKEN")
    metric = training_args.metric_for_best_model.removeprefix("eval_")
    if metric not in ("loss", *SCORES) and not metric.startswith(OF_A_CLASS):
        legal = ", ".join((*SCORES, "loss", *(f"{name}CLASS" for name in OF_A_CLASS)))
        raise InputError(f"--metric_for_best_model {metric} is unknown; give one of {legal}")
    available = get_available_reporting_integrations()
    for reporter in training_args.report_to:
        if reporter not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"--report_to {reporter} is unknown; give one of {', '.join(INTEGRATION_TO_CALLBACK)}")
        # transformers doesn't tell of these two whether they are there.
        if reporter not in (*available, "flyte", "azure_ml"):
            raise InputError(f"--report_to {reporter} needs a package that isn't installed; pip install {reporter}")


def _check_output_dir(training_args: TrainingArguments) -> None:
    output_dir = training_args.output_dir
    check_output_dir(output_dir, f"--output_dir {output_dir}")
    if training_args.resume_from_checkpoint or not holds_files(Path(output_dir)):
        return
    held, instead = "files, and no finished run", "go on with an interrupted run"
    if is_finished(Path(output_dir)):
        held, instead = "a finished run", "score it again"
    with owned_by_run(training_args):  # of a run that is still going on, that is what to say
        raise InputError(
            f"--output_dir {output_dir} already holds {held}; give a new folder, remove this one, or {instead} by "
            f"--resume_from_checkpoint {LAST}"
        )


def check_rows(splits: Splits, training_args: TrainingArguments) -> None:
    """Check that there are enough training rows, of the classes that the arguments name."""
    rows, num_labels = splits.tables["train"], len(splits.label_names)
    num_rows = len(rows)
    if num_labels < 2:
        raise InputError(f"all rows are of the class {splits.label_names[0]}; give a dataset with at least two classes")
    if num_rows < num_labels:
        problem = f"{num_rows} training rows for {num_labels} classes are too few"
        raise InputError(f"{problem}; give a dataset or a split with at least one row of each class")
    metric = training_args.metric_for_best_model.removeprefix("eval_")
    if metric.startswith(OF_A_CLASS) and metric.partition("_")[2] not in splits.label_names:
        classes = ", ".join(splits.label_names)
        raise InputError(f"--metric_for_best_model {metric} is of no class; give one of {classes} after f1_")
    batch_size = training_args.per_device_train_batch_size
    if batch_size > num_rows:
        raise InputError(
            f"--per_device_train_batch_size {batch_size} is more than the {num_rows} training rows; give at most that"
        )


def check_same_run(folder: Path, model_args, data_args, splits: Splits, class_weights: list[float] | None) -> None:
    """Check that what was saved is of the model and the rows of this run; an InputError names what differs."""
    try:
        config = RsaCfnConfig.from_pretrained(folder)
        saved = read_saved(folder, config)
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--resume_from_checkpoint: {folder} holds no RSA-CFN model ({reason})") from error
    saved |= {"classes": [config.id2label[index] for index in range(config.num_labels)]}
    given = {"classes": splits.label_names, **model_args.config_fields}
    if (folder / FILE_LIST).is_file():
        saved["LoRA"], given["LoRA"] = getattr(config, "lora", None), model_args.lora
        saved["averaging"], given["averaging"] = (folder / TRAINING_WEIGHTS).is_file(), model_args.ema_decay > 0
    given |= {name: getattr(data_args, name) for name in LIMITS if name in saved}
    if model_args.model_name_or_path is None or class_weights is not None:
        saved["class_weights"], given["class_weights"] = config.class_weights, class_weights
    if model_args.model_name_or_path is None:
        for name, backbone in (("audio_model", config.audio_config), ("text_model", config.text_config)):
            for field, value in _backbone_fields(model_args, name).items():
                saved[f"{name}'s {field}"] = _as_json(getattr(backbone, field, None))
                given[f"{name}'s {field}"] = _as_json(value)
    for record in (folder / "split.json", folder.parent / "split.json"):
        if before := _read_split(record):
            now = _as_json(splits.record)
            for name in ("split", "num_folds", "fold"):
                saved[name], given[name] = before.get(name), now[name]
            for part in now["parts"]:
                saved[f"{part} rows"] = before["parts"].get(part, {}).get("rows")
                given[f"{part} rows"] = now["parts"][part]["rows"]
            break
    differences = [f"{name} {saved[name]}, now {given[name]}" for name in given if saved[name] != given[name]]
    if differences:
        problem = f"--resume_from_checkpoint: {folder} is of another run ({'; '.join(differences)})"
        raise InputError(f"{problem}; give the arguments it was started with, or a new --output_dir")


def _read_split(file: Path) -> dict | None:
    """How the rows were divided, where that was recorded and can still be read; the run writes it anew."""
    try:
        return {"parts": {}} | read_json(file) if file.is_file() else None
    except InputError as error:
        logger.warning(f"{error}: it is made anew, and not compared")


def _backbone_fields(model_args: ModelArguments, name: str) -> dict:
    if model_args.is_tiny:
        tiny = {"audio_model": TINY_AUDIO, "text_model": TINY_TEXT}[name]
        return {field: tiny[field] for field in BACKBONE_FIELDS if field in tiny}
    try:
        config = AutoConfig.from_pretrained(getattr(model_args, name))
    except (OSError, ValueError):
        return {}  # load_model reports this
    return {field: getattr(config, field) for field in BACKBONE_FIELDS if hasattr(config, field)}


def _as_json(value):
    return json.loads(json.dumps(value))
