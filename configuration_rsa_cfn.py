"""RSA-CFN configuration: an audio and a text backbone, nested, and the fusion that joins them."""

import copy
from math import inf
from typing import Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModel, PretrainedConfig, __version__
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME as DYNAMIC
from transformers.utils import logging


try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError as error:
    raise ImportError(
        f"RSA-CFN needs transformers 5.23 or later, here is {__version__}; pip install -U transformers"
    ) from error

try:
    from .encoders_rsa_cfn import Waveforms, audio_family
except ImportError:
    if __package__:
        raise
    from encoders_rsa_cfn import Waveforms, audio_family


logger = logging.get_logger(__name__)

EMOTIONS = ("neutral", "happy", "angry", "surprise", "sad", "fear", "disgust")
"""The seven emotions of KEMDy20, in the order of the paper; the order of labels, votes and logits everywhere."""

Fusion = Literal[
    "audio",
    "text",
    "early_fusion",
    "late_fusion",
    "mlp_mixer",
    "stack",
    "residual",
    "rsa",
    "rsa_cfn",
    "hybrid_fusion",
    "cross_attention",
]
FUSIONS = get_args(Fusion)

PoolingMode = Literal["mean", "sum", "max", "attentive_statistics"]
POOLING_MODES = get_args(PoolingMode)

SIZE_FIELDS = ("max_text_tokens", "max_audio_frames", "multi_sample_draws", "residual_size", "attention_size")
SIZE_FIELDS += ("projection_size", "cross_attention_size", "cross_residual_size", "cross_fusion_rank", "mixer_size")
SIZE_FIELDS += ("mixer_classifier_size", "cross_attention_layers")
# They came later, and are left out where they have no effect: earlier versions refuse a field that they don't know.
LATER_FIELDS = ("attributes", "attribute_ranges", "attribute_loss", "attribute_weight", "temperature", "members")
LATER_FIELDS += ("cross_attention_layers",)
LABEL_FIELDS = ("num_labels", "id2label", "label2id")
DROPOUT_FIELDS = ("multi_sample_dropout", "residual_dropout", "mixer_dropout")

AUTO_MAP = {
    "AutoConfig": "configuration_rsa_cfn.RsaCfnConfig",
    "AutoModel": "modeling_rsa_cfn.RsaCfnForSequenceClassification",
    "AutoModelForAudioClassification": "modeling_rsa_cfn.RsaCfnForSequenceClassification",
    "AutoModelForSequenceClassification": "modeling_rsa_cfn.RsaCfnForSequenceClassification",
    "AutoProcessor": "processing_rsa_cfn.RsaCfnProcessor",
}
# The Hub's name of the task, so that the snippet on a model's page finds the pipeline too.
CUSTOM_PIPELINES = {
    "audio-classification": {
        "impl": "processing_rsa_cfn.RsaCfnPipeline",
        "pt": ["AutoModelForAudioClassification"],
        "type": "multimodal",
    }
}


def register_own_code(config_dict: dict, name: str, trust_remote_code: bool, **kwargs):
    """Have the Auto classes know a text backbone that transformers doesn't, by the code that lies with its weights in
    the folder or Hub repository `name`; it runs where it is trusted, and is a ValueError where it isn't."""
    auto_map = config_dict.get("auto_map") or {}
    if "AutoConfig" not in auto_map or config_dict.get("model_type") in CONFIG_MAPPING:
        return
    if not trust_remote_code:
        raise ValueError(f"{name} has code of its own, which runs as you; read it, then give trust_remote_code=True.")
    config_class = get_class_from_dynamic_module(auto_map["AutoConfig"], name, **kwargs)
    AutoConfig.register(config_class.model_type, config_class)
    AutoModel.register(config_class, get_class_from_dynamic_module(auto_map["AutoModel"], name, **kwargs))


@strict
class RsaCfnConfig(PretrainedConfig):
    r"""Configuration of [`RsaCfnForSequenceClassification`].

    Sizes default to those of the paper "Residual Self-Attention Cross Fusion Network" (2023 Human Understanding AI
    paper competition). Types and defaults stand below. Symbols: A is `audio_config.hidden_size`, T is
    `text_config.hidden_size`.

    Args:
        audio_config: A wav2vec2-family encoder of raw waveforms (wav2vec2, HuBERT, WavLM, ...), Whisper, of which the
            encoder alone is made, or w2v-BERT 2.0; found by its `model_type`.
        text_config: A RoBERTa- or BERT-family encoder, found by its `model_type`.
        fusion: How the modalities are joined; one of `FUSIONS`.
        pooling_mode: How hidden states become one vector; one of `POOLING_MODES`. `mlp_mixer` has a mean of its own.
        mask_padding: Keep padding out of attention and pooling. `False` is the original code, whose logits depend on
            how much a row is padded. (A wav2vec2-conformer backbone convolves over its padding all the same.)
        freeze_feature_encoder: Keep the convolutional feature encoder of the audio backbone at its loaded weights.
        freeze_audio_encoder, freeze_text_encoder: Keep the whole backbone at its loaded weights. It then runs as in
            evaluation, without dropout, layerdrop and SpecAugment, and no gradient is computed for it.
        freeze_audio_layers, freeze_text_layers: Keep the lowest layers of the backbone, this many, and all that is
            below them (feature encoder and projection, or embeddings) at their loaded weights. Their dropout stays on.
        use_weighted_layer_sum: Pool a learned weighted sum of all layers of each backbone rather than the last one, as
            in SUPERB. A layer left out at random would shift the others, so this sets `audio_config.layerdrop` to 0.
        modality_dropout: Probability, from 0 to 1, that a training row loses one of its modalities: half of it for the
            audio, half for the text, never both. A model trained with it can do without one.
        max_text_tokens: The length that `mlp_mixer` pads every transcript to, and with `mask_padding=False` every
            fusion.
        max_audio_frames: The length in frames of the audio encoder, 6 s at 16 kHz, that `mlp_mixer` pads every clip to.
        multi_sample_dropout: Dropout before the classifier of `stack`.
        multi_sample_draws: Dropout masks that `stack` averages its logits over in training.
        residual_size: Width of the residual block of `residual`, `rsa` and that branch of `hybrid_fusion`.
        attention_size: Query and key size of the self-attention of `rsa`; width of the attention of
            `attentive_statistics`.
        class_weights: Weight of each class in the loss, in the order of the labels. Scale them to a mean of 1 over the
            training rows: the loss is divided by the number of rows, not by their weights.
        label_smoothing: ε, from 0 to below 1: targets q become (1 - ε) q + ε / num_labels.
        attributes: Numbers that a linear head tells beside the classes, such as `["valence", "arousal"]`.
        attribute_ranges: What an output of the head of -1 and of 1 is for each of them: the least and the greatest
            training value.
        attribute_loss: `"ccc"`, 1 - the concordance correlation coefficient (Lin 1989), or `"mse"`, squared errors of
            such outputs.
        attribute_weight: Of that loss, the mean over the attributes, beside the cross entropy.
        projection_size: Width P that `rsa_cfn` projects each modality to before the (P + 1)² cross features. This field
            and the next two also size the `rsa_cfn` branch of `hybrid_fusion`.
        cross_attention_size: Query and key size of the two self-attentions of `rsa_cfn`.
        cross_residual_size: Width of the residual block and of the classifier over the cross features of `rsa_cfn`.
        cross_fusion_rank: Hold the weights over the cross features of `rsa_cfn` to this rank, which leaves a small part
            of them; in full when left out, as in the paper.
        residual_dropout: Dropout in every residual block, and in the classifier of `rsa_cfn`.
        mixer_size: Width that `mlp_mixer` and `cross_attention` project the frames and tokens to.
        mixer_classifier_size: Width of the hidden layer in the classifier of `mlp_mixer`.
        mixer_dropout: Dropout in the MLPs and the classifier of `mlp_mixer`, and in the layers of `cross_attention`.
        cross_attention_layers: Layers of `cross_attention`, in each of which frames attend to tokens and tokens to
            frames.
        temperature: Logits are divided by it, but in training, so that probabilities are as sure as they are right.
        members: Configurations of other models of the same inputs and labels, which make this one an ensemble with
            them: its probabilities are the mean of those of all.

    Raises:
        ValueError: The audio backbone is of another family; `num_labels` contradicts `id2label`; `problem_type` isn't
            one class for a row; or a size, a probability, a weight or the number of attention heads of a backbone is
            outside its legal range.
        huggingface_hub.errors.StrictDataclassFieldValidationError: A field has a value outside its legal set.
    """

    model_type = "rsa_cfn"
    sub_configs_defaults = {
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="wav2vec2"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="roberta"),
    }
    keys_to_ignore_at_inference = ["audio_embeds", "text_embeds", "audio_hidden_states", "text_hidden_states"]
    keys_to_ignore_at_inference += ["attentions", "audio_attentions", "text_attentions"]

    audio_config: dict | PretrainedConfig | None = None
    text_config: dict | PretrainedConfig | None = None
    fusion: Fusion = "rsa_cfn"
    pooling_mode: PoolingMode = "mean"
    mask_padding: bool = True
    freeze_feature_encoder: bool = False
    freeze_audio_encoder: bool = False
    freeze_text_encoder: bool = False
    freeze_audio_layers: int = 0
    freeze_text_layers: int = 0
    use_weighted_layer_sum: bool = False
    modality_dropout: float | int = 0.0
    max_text_tokens: int = 256
    max_audio_frames: int = 299
    multi_sample_dropout: float | int = 0.5
    multi_sample_draws: int = 5
    residual_size: int = 512
    attention_size: int = 256
    class_weights: list[float | int] | None = None
    label_smoothing: float | int = 0.0
    attributes: list[str] | None = None
    attribute_ranges: list[list[float | int]] | None = None
    attribute_loss: Literal["ccc", "mse"] = "ccc"
    attribute_weight: float | int = 1.0
    projection_size: int = 128
    cross_attention_size: int = 96
    cross_residual_size: int = 1024
    cross_fusion_rank: int | None = None
    residual_dropout: float | int = 0.3
    mixer_size: int = 256
    mixer_classifier_size: int = 512
    mixer_dropout: float | int = 0.1
    cross_attention_layers: int = 1
    temperature: float | int = 1.0
    members: list[dict] | None = None

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in [`PretrainedConfig`], and what is given beside the saved fields is checked as they are. Other labels
        replace the saved ones, and their class weights are dropped."""
        fields = {*cls.__annotations__, *LABEL_FIELDS, "problem_type"} - {"audio_config", "text_config"}
        given = {name: kwargs.pop(name) for name in fields & {*kwargs}}
        labels = {name: given.pop(name) for name in LABEL_FIELDS if given.get(name) is not None}
        saved = {int(index): label for index, label in (config_dict.get("id2label") or {}).items()}
        if labels and labels != {"num_labels": len(saved)}:
            names = labels.get("label2id") or {f"LABEL_{index}": index for index in range(labels.get("num_labels", 0))}
            labels = {"id2label": {index: name for name, index in names.items()}, "label2id": None, **labels}
            is_kept = {int(index): label for index, label in labels["id2label"].items()} == saved
            if config_dict.get("class_weights") is not None and not is_kept:
                given.setdefault("class_weights", None)
                logger.warning("class_weights of the saved labels are dropped with these labels.")
            given |= labels
        return super().from_dict({**config_dict, **given}, **kwargs)

    def __post_init__(self, **kwargs):
        num_labels = kwargs.get("num_labels")
        if None not in (num_labels, self.id2label) and num_labels != len(self.id2label):
            problem = f"num_labels={num_labels} contradicts id2label, which names {len(self.id2label)} labels"
            raise ValueError(f"{problem}; give one of the two, or make them agree.")
        # A save names only the class being saved; the full map makes every Auto class find the checkpoint.
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        # A copy, because loading a pipeline writes into it.
        kwargs["custom_pipelines"] = copy.deepcopy(CUSTOM_PIPELINES)
        if self.id2label is None and kwargs.get("num_labels") in (None, len(EMOTIONS)):
            self.id2label = dict(enumerate(EMOTIONS))
        super().__post_init__(**kwargs)
        if not self.label2id:
            self.label2id = {label: index for index, label in self.id2label.items()}
        if self.attributes and self.attribute_ranges is None:
            self.attribute_ranges = [[-1.0, 1.0] for _ in self.attributes]
        self._check_ranges()
        if self.use_weighted_layer_sum:
            setattr(self.audio_config, self.audio_family.layerdrop_field, 0.0)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, trust_remote_code=False, **kwargs):
        """As in [`PretrainedConfig`]; the code of a backbone is run if it is trusted."""
        config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        # An Auto class that was told to trust a folder runs this code from there, and hands nothing on.
        trusted = trust_remote_code or (kwargs.get("_from_auto") and __name__.startswith(DYNAMIC))
        register_own_code(config_dict.get("text_config") or {}, pretrained_model_name_or_path, trusted, **kwargs)
        return config_dict, unused

    def to_diff_dict(self):
        """As in [`PretrainedConfig`], without `LATER_FIELDS` that have their defaults."""
        saved = super().to_diff_dict()
        return {n: value for n, value in saved.items() if n not in LATER_FIELDS or value != getattr(type(self), n)}

    def save_pretrained(self, save_directory, **kwargs):
        """As in [`PretrainedConfig`], and the code of a text backbone that has its own."""
        own = type(self.text_config)
        if not own.__module__.startswith(DYNAMIC):
            return super().save_pretrained(save_directory, **kwargs)
        files = self.text_config.auto_map  # of a repository on the Hub with its name before them
        self.text_config.auto_map = {name: files[name].rpartition("--")[2] for name in ("AutoConfig", "AutoModel")}
        super().save_pretrained(save_directory, **kwargs)
        for code in (own, AutoModel._model_mapping[own]):
            custom_object_save(code, save_directory)

    def _check_ranges(self):
        family = self.audio_family
        names = [self.id2label.get(index) for index in range(self.num_labels)]
        if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
            raise ValueError(f"id2label={self.id2label!r} names no {len(names)} labels; give one name for each number.")
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(f"problem_type={self.problem_type!r} isn't learnt; leave it out: a row has one class.")
        for fields, is_legal, legal in (
            (SIZE_FIELDS, lambda value: value is None or value >= 1, "an integer of at least 1"),
            (DROPOUT_FIELDS, lambda value: 0 <= value < 1, "a number in [0, 1)"),
            (("label_smoothing",), lambda value: 0 <= value < 1, "0 to below 1"),
            (("modality_dropout",), lambda value: 0 <= value <= 1, "0 to 1"),
            (("temperature", "attribute_weight"), lambda value: 0 < value < inf, "more than 0"),
        ):
            for name in fields:
                if not is_legal(getattr(self, name)):
                    raise ValueError(f"{name}={getattr(self, name)} is out of range; give {legal}.")
        for name, backbone in (("audio_config", self.audio_config), ("text_config", self.text_config)):
            size, heads = backbone.hidden_size, backbone.num_attention_heads
            if heads < 1 or size % heads:
                problem = f"{name}.num_attention_heads={heads} doesn't divide {name}.hidden_size={size}"
                raise ValueError(f"{problem}; give a positive divisor of it.")
        weights = self.class_weights
        if weights is not None and (len(weights) != self.num_labels or min(weights) < 0):
            problem = f"class_weights={weights!r} doesn't fit num_labels={self.num_labels}"
            raise ValueError(f"{problem}; give one weight of 0 or more for each label, in their order.")
        names, ranges = self.attributes or [], self.attribute_ranges or []
        is_range = [len(ends) == 2 and -inf < ends[0] < ends[1] < inf for ends in ranges]
        if len({*names}) < len(names) or len(ranges) != len(names) or not all(is_range):
            told = f"attributes={names!r} don't fit attribute_ranges={ranges!r}"
            raise ValueError(f"{told}; give each once, and a number and a greater one for it.")
        for modality, backbone in (("audio", self.audio_config), ("text", self.text_config)):
            value = getattr(self, f"freeze_{modality}_layers")
            if not 0 <= value <= backbone.num_hidden_layers:
                raise ValueError(
                    f"freeze_{modality}_layers={value!r} is out of range; {modality}_config has "
                    f"{backbone.num_hidden_layers} layers, give 0 to {backbone.num_hidden_layers}."
                )
        if self.use_weighted_layer_sum and family.num_adapter_layers:
            raise ValueError("use_weighted_layer_sum needs layers of one length; give audio_config.add_adapter=False.")
        if family.num_adapter_layers and self.audio_config.output_hidden_size != self.audio_config.hidden_size:
            raise ValueError(
                f"audio_config.output_hidden_size={self.audio_config.output_hidden_size} isn't its hidden_size, "
                f"{self.audio_config.hidden_size}; give an adapter of that width, or audio_config.add_adapter=False."
            )

    @property
    def audio_family(self) -> Waveforms:
        """What is known of the audio backbone's family."""
        return audio_family(self.audio_config)

    @property
    def audio_input(self) -> str:
        """What the audio backbone reads: `"input_values"`, waveforms, or `"input_features"`."""
        return self.audio_family.input_name


RsaCfnConfig.register_for_auto_class("AutoConfig")

__all__ = ["EMOTIONS", "FUSIONS", "POOLING_MODES", "RsaCfnConfig"]
