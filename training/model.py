"""The processor and the model of a run: pretrained backbones, tiny random ones, or a saved RSA-CFN model."""

import logging
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME, has_file

from audio_rsa_cfn import SAMPLING_RATE
from configuration_rsa_cfn import RsaCfnConfig, register_own_code
from encoders_rsa_cfn import AUDIO_FAMILIES, audio_family
from foundation.errors import InputError
from foundation.files import read_json
from foundation.words import first_names
from fusion_rsa_cfn import FUSION_CLASSES
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor
from training.arguments import (
    AUDIO_MODEL,
    LIMITS,
    OF_THE_TRAINING,
    OF_THE_WEIGHTS,
    TEXT_MODEL,
    TINY,
    DataArguments,
    ModelArguments,
)


logger = logging.getLogger(__name__)

# --audio_crop → the processor's own crop: nothing random decides a score.
SCORED_CROPS = {"random": "center", "head": "head"}
VOCAB_SIZE = 800
# Whose code --trust_remote_code lets run; no other argument's is run.
TRUSTING = ("--model_name_or_path", "--text_model")
SAVED = "a folder or Hub id of a saved RSA-CFN model"
RECOGNISER = "a folder or Hub id of a speech recogniser, such as openai/whisper-small"
MAY_BE_RANDOM = re.compile(r"masked_spec_embed|(^|\.)pooler\.|position_ids")  # of SpecAugment alone, or not used
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
# They learn on two cores in minutes. At this size it matters to have no SpecAugment, no layerdrop, a hop of 20 ms, and
# clips that keep their level (macro F1 on the demo corpus falls by .2 where each is normalised).
TINY_AUDIO = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
TINY_AUDIO |= {"conv_dim": (32, 64, 96), "conv_kernel": (64, 8, 4), "conv_stride": (16, 5, 4), "conv_bias": True}
TINY_AUDIO |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "do_stable_layer_norm": True}
TINY_AUDIO |= {"feat_extract_norm": "layer", "feat_proj_dropout": 0.0, "layerdrop": 0.0, "apply_spec_augment": False}
TINY_AUDIO |= {"mask_time_prob": 0.0}
TINY_TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TINY_FUSION = {"projection_size": 16, "cross_residual_size": 64, "mixer_size": 64, "mixer_classifier_size": 128}


@contextmanager
def loading(argument: str, name: str, legal: str):
    """A context that loads a model; what goes wrong is an InputError, weights that are missing not a table."""
    report = logging.getLogger("transformers.modeling_utils")
    report.addFilter(_is_error)
    try:
        yield
    except Exception as error:  # whatever the libraries make of a file
        message = f"can't be loaded; give {legal} ({type(error).__name__}: {' '.join(str(error).split())})"
        if isinstance(error.__cause__, LocalEntryNotFoundError):
            message = (
                "is no folder here and can't be reached: there is no network, or HF_HUB_OFFLINE is set, and it isn't "
                f"in the cache of huggingface_hub; download it first by `hf download {name}`, or give {legal}"
            )
        elif "trust_remote_code" in str(error) and argument in TRUSTING:
            message = f"brings code of its own; read it, then give --trust_remote_code, or give {legal}"
        raise InputError(f"{argument} {name} {message}") from error
    finally:
        report.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def check_models(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuse by an InputError models that can't be loaded, before rows are read; no weights are downloaded."""
    if data_args.asr_model is not None:
        with loading("--asr_model", data_args.asr_model, RECOGNISER):
            AutoConfig.from_pretrained(data_args.asr_model, trust_remote_code=False)
            AutoFeatureExtractor.from_pretrained(data_args.asr_model, trust_remote_code=False)
            _check_weights(data_args.asr_model)
    if model_args.model_name_or_path is not None:
        with loading("--model_name_or_path", model_args.model_name_or_path, SAVED):
            _check_weights(model_args.model_name_or_path)
    elif model_args.is_tiny:
        if model_args.audio_model != model_args.text_model:
            raise InputError(
                f"--audio_model {model_args.audio_model} and --text_model {model_args.text_model} don't go together: "
                f"give {TINY} for both or for neither"
            )
    else:
        _read_backbones(model_args, data_args.max_text_tokens)
        is_own = not data_args.is_demo and "kemdy" not in data_args.dataset_name.lower()
        if is_own and (model_args.audio_model, model_args.text_model) == (AUDIO_MODEL, TEXT_MODEL):
            logger.info(
                f"Default backbones: {AUDIO_MODEL} hears English and {TEXT_MODEL} reads Korean; for another language "
                "give --audio_model and --text_model, such as facebook/wav2vec2-xls-r-300m and "
                "FacebookAI/xlm-roberta-base."
            )


def _check_weights(name: str) -> None:
    if not any(has_file(name, file) for file in WEIGHTS_FILES):
        hint = f"of a Hub id, `hf download {name}` brings what there is"
        raise FileNotFoundError(f"there is no {SAFE_WEIGHTS_NAME}, nor weights of another name; {hint}")


def read_config(name: str, trust_remote_code: bool = False) -> RsaCfnConfig:
    """The configuration of a saved model, whose own code is known from then on; an InputError if there is none."""
    with loading("--model_name_or_path", name, SAVED):
        return RsaCfnConfig.from_pretrained(name, trust_remote_code=trust_remote_code)


def read_saved(name: str, config: RsaCfnConfig) -> dict:
    """The arguments that a saved model brings along: fields of its configuration, and the limits of its processor."""
    saved = {field: getattr(config, field) for field in (*OF_THE_WEIGHTS, *OF_THE_TRAINING)}
    with loading("--model_name_or_path", name, SAVED):
        limits, _ = RsaCfnProcessor.get_processor_dict(name)
    if limits:
        # A processor from before the field existed crops the head, as from_pretrained knows.
        limits["audio_crop"] = "random" if limits.get("audio_crop") == SCORED_CROPS["random"] else "head"
    return saved | {field: limits[field] for field in LIMITS if field in limits}


def saved_classes(model_args: ModelArguments) -> list[str] | None:
    """The classes of the saved model that a run starts from, in its order; `None` where it makes a new one,
    or takes those of the dataset."""
    if model_args.model_name_or_path is None or model_args.ignore_mismatched_sizes:
        return None
    config = read_config(model_args.model_name_or_path)
    return [config.id2label[index] for index in range(config.num_labels)]


def load_model(
    model_args: ModelArguments, data_args: DataArguments, label_names: list[str], texts: list[str], **of_the_rows
) -> tuple[RsaCfnForSequenceClassification, RsaCfnProcessor]:
    """The model and its processor, ready to train; the tokenizer of a tiny one is built from `texts`. What the
    configuration has of the training rows, if it is given, are `class_weights` and `attribute_ranges`."""
    of_the_rows = {name: value for name, value in of_the_rows.items() if value is not None}
    if model_args.model_name_or_path is not None:
        fields = {name: getattr(model_args, name) for name in OF_THE_TRAINING} | of_the_rows
        fields |= {"trust_remote_code": model_args.trust_remote_code, "int8": model_args.int8}
        if model_args.ignore_mismatched_sizes:
            fields |= {"id2label": dict(enumerate(label_names)), "ignore_mismatched_sizes": True}
        model, processor = load_saved(model_args.model_name_or_path, **fields)
        saved = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if saved != label_names:
            name = model_args.model_name_or_path
            raise InputError(
                f"--model_name_or_path {name} knows the classes {', '.join(saved)}; the dataset "
                f"has {', '.join(label_names)}, give one with the same classes in the same order, or "
                "--ignore_mismatched_sizes to train a new classifier"
            )
        set_limits(model.config, processor, data_args)
        return model, processor
    fields = model_args.config_fields | of_the_rows
    fields |= {"max_text_tokens": data_args.max_text_tokens, "id2label": dict(enumerate(label_names))}
    fields["label2id"] = {name: index for index, name in enumerate(label_names)}
    if model_args.is_tiny:
        return _tiny_model(texts, fields, _limits(data_args))
    return _pretrained_model(model_args, fields, _limits(data_args))


def _limits(data_args: DataArguments) -> dict:
    """The arguments that a processor has, in its own words."""
    return {name: getattr(data_args, name) for name in LIMITS} | {"audio_crop": SCORED_CROPS[data_args.audio_crop]}


def load_saved(
    name: str, argument: str = "--model_name_or_path", trust_remote_code: bool = False, int8: bool = False, **fields
) -> tuple[RsaCfnForSequenceClassification, RsaCfnProcessor]:
    """A saved model, with `fields` in place of those of its configuration, and its processor, which have been tried on
    a second of silence and the longest and a padded text; else an InputError."""
    with loading(argument, name, SAVED):
        if Path(name, TOKENIZER_FILE).is_file():
            read_json(Path(name, TOKENIZER_FILE))  # tokenizers ends the process where one is nested too deeply
        model = RsaCfnForSequenceClassification.from_pretrained(name, trust_remote_code=trust_remote_code, **fields)
        if int8:
            model.to_int8()
        processor = RsaCfnProcessor.from_pretrained(name, trust_remote_code=trust_remote_code)
        silence = np.zeros(processor.feature_extractor.sampling_rate, dtype=np.float32)
        texts = ["a " * processor.max_text_tokens, "a"]
        with torch.no_grad():
            model(**processor(audio=[silence, silence], text=texts, return_tensors="pt"))
        return model, processor


def set_limits(config: RsaCfnConfig, processor: RsaCfnProcessor, data_args: DataArguments) -> None:
    """Have a saved model cut clips and transcripts where the arguments say, which `check_limits` has looked at."""
    changed = {name: limit for name, limit in _limits(data_args).items() if limit != getattr(processor, name)}
    for name, limit in changed.items():
        setattr(processor, name, limit)
    if config.fusion == "mlp_mixer":  # which pads to those that it was made for
        return
    if "max_text_tokens" in changed:
        config.max_text_tokens = data_args.max_text_tokens
    if "max_audio_seconds" in changed:
        rate = processor.feature_extractor.sampling_rate
        config.max_audio_frames = max_audio_frames(config.audio_config, data_args.max_audio_seconds, rate)


def max_audio_frames(audio_config: PretrainedConfig, seconds: float, sampling_rate: int = SAMPLING_RATE) -> int:
    """Frames of the longest clip the processor lets through: the length `mlp_mixer` is made for."""
    family = audio_family(audio_config)
    return max(family.num_frames(family.input_length(round(seconds * sampling_rate))), 1)


def max_text_positions(text_config: PretrainedConfig) -> float:
    """Tokens of the longest transcript that a text backbone takes."""
    with torch.device("meta"):
        modules = AutoModel.from_config(text_config).named_modules()
    # Where pad tokens have a position, as in the families of RoBERTa, those of the text begin behind it.
    pads = [module.padding_idx for name, module in modules if name.endswith("position_embeddings")]
    limit = getattr(text_config, "max_position_embeddings", None) or -1  # XLNet, without a limit, says -1
    return (np.inf if limit < 0 else limit) - (pads[0] + 1 if pads and pads[0] is not None else 0)


def _tiny_model(texts, fields, limits) -> tuple[RsaCfnForSequenceClassification, RsaCfnProcessor]:
    options = {"sampling_rate": SAMPLING_RATE, "do_normalize": False, "return_attention_mask": True}
    feature_extractor = Wav2Vec2FeatureExtractor(**options)
    tokenizer = train_tokenizer(texts)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}
    positions = limits["max_text_tokens"] + tokenizer.pad_token_id + 1  # see max_text_positions
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": positions, "type_vocab_size": 1}
    text_config = RobertaConfig(**TINY_TEXT, **sizes, **ids)
    audio_config = Wav2Vec2Config(**TINY_AUDIO)
    fields["max_audio_frames"] = max_audio_frames(audio_config, limits["max_audio_seconds"])
    try:
        config = RsaCfnConfig(audio_config=audio_config, text_config=text_config, **TINY_FUSION, **fields)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    if config.fusion == "text":
        # Uses up the random numbers of an audio backbone, so that a seed gives the same text backbone in every fusion.
        AutoModel.from_config(audio_config)
    return RsaCfnForSequenceClassification(config), RsaCfnProcessor(feature_extractor, tokenizer, **limits)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of at most `VOCAB_SIZE` tokens; the same transcripts give the same one."""
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=list(special.values()), show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _read_backbones(model_args: ModelArguments, max_text_tokens: int):
    """What is small of pretrained backbones: the configuration and the feature extractor of one, the tokenizer of the
    other. An InputError where it isn't there, is of another kind, or has no weights."""
    name, modalities = model_args.audio_model, FUSION_CLASSES[model_args.fusion].modalities
    with loading("--audio_model", name, f"a model of the wav2vec2 family, Whisper or w2v-BERT 2.0, or {TINY}"):
        untrusted = {"trust_remote_code": False}
        audio_config = RsaCfnConfig(audio_config=AutoConfig.from_pretrained(name, **untrusted)).audio_config
        feature_extractor = AutoFeatureExtractor.from_pretrained(name, return_attention_mask=True, **untrusted)
        if "audio" in modalities:
            _check_weights(name)
    name = model_args.text_model
    with loading("--text_model", name, f"a text encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT, or {TINY}"):
        trust = model_args.trust_remote_code
        register_own_code(PretrainedConfig.get_config_dict(name)[0], name, trust)
        text_config = AutoConfig.from_pretrained(name, **untrusted)
        if text_config.model_type in AUDIO_FAMILIES or text_config.is_encoder_decoder:
            raise ValueError(f"model_type={text_config.model_type!r} is no encoder of text alone")
        own = get_tokenizer_config(name)
        is_own = isinstance(own.get("auto_map"), list) or "AutoTokenizer" in own.get("auto_map", {})
        if is_own and not trust and tokenizer_class_from_name(own.get("tokenizer_class") or "") is None:
            raise ValueError("its tokenizer needs trust_remote_code")
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust)
        tokenizer.padding_side = "right"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # it is masked: any does
        if "text" in modalities:
            _check_weights(name)
        limit = min(tokenizer.model_max_length, max_text_positions(text_config))
    if max_text_tokens > limit:
        raise InputError(f"--max_text_tokens {max_text_tokens} is more than {name} takes; give at most {limit}")
    return audio_config, feature_extractor, tokenizer


def _pretrained_model(model_args, fields, limits) -> tuple[RsaCfnForSequenceClassification, RsaCfnProcessor]:
    audio_config, feature_extractor, tokenizer = _read_backbones(model_args, limits["max_text_tokens"])
    names = (model_args.audio_model, model_args.text_model)
    rate = feature_extractor.sampling_rate
    fields["max_audio_frames"] = max_audio_frames(audio_config, limits["max_audio_seconds"], rate)
    fields["output_loading_info"] = True
    with loading("--audio_model and --text_model", " and ".join(names), "models whose weights are there"):
        model, infos = RsaCfnForSequenceClassification.from_audio_text_pretrained(*names, **fields)
    for argument, info in infos.items():
        name, total = getattr(model_args, argument), len(model.get_submodule(argument).state_dict())
        if random := sorted(key for key in info["missing_keys"] if not MAY_BE_RANDOM.search(key)):
            told = f"lacks {len(random)} of the {total} tensors of its model, which would be random"
            raise InputError(f"--{argument} {name} {told}: {first_names(random)}; give a whole checkpoint")
        logger.info(f"--{argument} {name}: {total - len(info['missing_keys'])} of {total} tensors loaded.")
    return model, RsaCfnProcessor(feature_extractor, tokenizer, **limits)
