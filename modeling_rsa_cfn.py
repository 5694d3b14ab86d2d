"""RSA-CFN model: an audio and a text encoder → masked pooling → fusion → logits over emotions."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming, apply_renamings
from transformers.utils import ModelOutput, can_return_tuple, logging


try:
    from .configuration_rsa_cfn import RsaCfnConfig, register_own_code
    from .encoders_rsa_cfn import freeze_lowest_layers, round_layers, rows_of_similar_length
    from .fusion_rsa_cfn import FUSION_CLASSES, LowRankCrossLinear, Pooling, ScalarMap, ScalarSelfAttention, pool
except ImportError:
    if __package__:
        raise
    from configuration_rsa_cfn import RsaCfnConfig, register_own_code
    from encoders_rsa_cfn import freeze_lowest_layers, round_layers, rows_of_similar_length
    from fusion_rsa_cfn import FUSION_CLASSES, LowRankCrossLinear, Pooling, ScalarMap, ScalarSelfAttention, pool

logger = logging.get_logger(__name__)

# peft finds modules by the end of their names, also within one that it has found: none in the fusion may end in
# "fusion", "classifier" or "score". In files the names are those of old, without "_head".
RENAMINGS = [
    WeightRenaming(rf"^fusion\.(.*){name}\.", rf"^fusion\.\1{name}_head\.") for name in ("classifier", "_fusion")
]

if TYPE_CHECKING:
    # Never run: a save copies the files that are imported so, and processor and pipeline belong to every checkpoint.
    from .processing_rsa_cfn import RsaCfnPipeline  # noqa: F401


def weigh_layers(layers: tuple[torch.Tensor, ...], layer_weights: torch.Tensor) -> torch.Tensor:
    """Sum of the layers weighted by a softmax over `layer_weights`, as in SUPERB (https://arxiv.org/abs/2105.01051)."""
    # Added up one by one, because a stack would be a second copy of all the layers.
    return sum(weight.to(layer.dtype) * layer for weight, layer in zip(layer_weights.softmax(dim=0), layers))


def drop_modalities(
    audio_counts: torch.Tensor, text_counts: torch.Tensor, probability: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Take at most one modality from each row: audio with half of `probability`, text with the other half.

    Both counts are as [`pool`] takes them, and come back with zeros where a row lost the modality. A row that has only
    one modality keeps it.
    """
    has_both = (audio_counts != 0).any(dim=1) & (text_counts != 0).any(dim=1)  # (B,)
    draw = torch.rand(has_both.shape, device=has_both.device)
    lost_audio = has_both & (draw < probability / 2)
    lost_text = has_both & (draw >= probability / 2) & (draw < probability)
    return audio_counts.masked_fill(lost_audio[:, None], 0), text_counts.masked_fill(lost_text[:, None], 0)


@dataclass
class RsaCfnOutput(ModelOutput):
    """
    Output of [`RsaCfnForSequenceClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross entropy over the rows with a label, and that of the attributes; returned when either is given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Scores before the softmax.
        audio_embeds (`torch.FloatTensor` of shape `(batch_size, audio_hidden_size)`, *optional*):
            The pooled audio; `None` when the fusion has no audio encoder.
        text_embeds (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, *optional*):
            The pooled text; `None` when the fusion has no text encoder.
        audio_hidden_states, text_hidden_states (`tuple(torch.FloatTensor)`, *optional*):
            With `output_hidden_states=True`, the states of each backbone before its first layer and after each, of
            shape `(batch_size, sequence_length, hidden_size)`; `None` for a backbone that didn't run.
        attentions (`tuple(torch.FloatTensor)`, *optional*):
            With `output_attentions=True`, one map of shape `(batch_size, features, features)` for each self-attention
            of the fusion: `rsa` has one; `rsa_cfn` and `hybrid_fusion` have two, audio first.
        attributes (`torch.FloatTensor` of shape `(batch_size, num_attributes)`, *optional*):
            What `config.attributes` names, in the units of the columns that it was trained on.
        audio_attentions, text_attentions (`tuple(torch.FloatTensor)`, *optional*):
            With `output_attentions=True`, maps over frames and over tokens, `(batch_size, queries, length)`: of each
            layer of `cross_attention`, whose queries are of the other modality, or `attentive_statistics`, of 1 query.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    text_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    attributes: torch.FloatTensor | None = None
    audio_attentions: tuple[torch.FloatTensor, ...] | None = None
    text_attentions: tuple[torch.FloatTensor, ...] | None = None


class RsaCfnPreTrainedModel(PreTrainedModel):
    """Weight initialisation and the flags that transformers reads."""

    config_class = RsaCfnConfig
    base_model_prefix = "rsa_cfn"
    main_input_name = "input_values"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module):
        # As in the original, the fusions start from torch's own defaults; from the usual N(0, 0.02), the attention over
        # scalars would be flat. The backbones initialise themselves.
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (ScalarMap, LowRankCrossLinear)):
            module.reset_parameters()
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, RsaCfnForSequenceClassification) and self.config.use_weighted_layer_sum:
            for weights in (module.audio_layer_weights, module.text_layer_weights):
                if weights is not None:
                    init.constant_(weights, 1 / len(weights))


class RsaCfnForSequenceClassification(RsaCfnPreTrainedModel):
    """
    Emotion of an utterance from its waveform and its transcript.

    Source: "Residual Self-Attention Cross Fusion Network", 2023 Human Understanding AI paper competition.

    Args:
        config ([`RsaCfnConfig`]): Sizes, backbones and fusion. The backbones start random;
            [`~RsaCfnForSequenceClassification.from_audio_text_pretrained`] loads pretrained ones.
    """

    # Trainer then hands over the number of labels in the whole optimiser step, and the loss below divides by it.
    accepts_loss_kwargs = True
    # On a CPU, where a batch gains little, clips of unlike length are run without padding: in one row, or else apart.
    runs_lengths_apart = True

    def __init__(self, config: RsaCfnConfig):
        super().__init__(config)
        self.main_input_name = config.audio_input
        fusion_class = FUSION_CLASSES[config.fusion]
        self.audio_model = config.audio_family.make() if "audio" in fusion_class.modalities else None
        self.text_model = AutoModel.from_config(config.text_config) if "text" in fusion_class.modalities else None
        if getattr(self.text_model, "pooler", None) is not None:
            # Pooling is ours, so the backbone's pooler would be weights that never train.
            self.text_model.pooler = nn.Identity()
        if self.audio_model is not None and config.mask_padding:
            config.audio_family.mask_padding(self.audio_model)
        self.audio_layer_weights = self._make_layer_weights(self.audio_model)
        self.text_layer_weights = self._make_layer_weights(self.text_model)
        self.fusion = fusion_class(config)
        if fusion_class.reads_pooled:
            # Within the fusion, so that where that is trained or saved by itself, a learned pooling is too.
            sizes = {name: getattr(config, f"{name}_config").hidden_size for name in fusion_class.modalities}
            self.fusion.pooling = nn.ModuleDict({name: Pooling(size, config) for name, size in sizes.items()})
        self.members = nn.ModuleList(type(self)(RsaCfnConfig.from_dict(fields)) for fields in config.members or ())
        self.freeze_parameters()
        self.post_init()

    def _make_layer_weights(self, backbone):
        if backbone is None or not self.config.use_weighted_layer_sum:
            return None
        return nn.Parameter(torch.empty(backbone.config.num_hidden_layers + 1))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, output_loading_info=False, ignore_mismatched_sizes=False, **kwargs
    ):
        """
        As in [`PreTrainedModel`], but weights that are missing, unexpected or of another size are a `RuntimeError`:
        random ones in their place would answer too. Either of the two named arguments takes what there is.
        """
        if kwargs.get("trust_remote_code"):  # which PreTrainedModel doesn't hand on to the configuration
            cls.config_class.get_config_dict(pretrained_model_name_or_path, **kwargs)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
        wrong = {"missing": info["missing_keys"], "unexpected": info["unexpected_keys"]}
        wrong["of another size"] = {name for name, *_ in info["mismatched_keys"]}
        told = [f"{len(names)} {what} ({', '.join(sorted(names)[:3])})" for what, names in wrong.items() if names]
        if told and not (output_loading_info or ignore_mismatched_sizes):
            raise RuntimeError(
                f"{pretrained_model_name_or_path} holds other weights than its configuration asks for: "
                f"{', '.join(told)}; give a whole checkpoint, or ignore_mismatched_sizes=True to train these anew."
            )
        if wrong["of another size"] and not output_loading_info:
            names = ", ".join(sorted(wrong["of another size"]))
            logger.warning(f"These weights start anew, since their sizes differ: {names}")
        # Loading makes new parameters, so the frozen ones are frozen again.
        model.freeze_parameters()
        return (model, info) if output_loading_info else model

    @classmethod
    def from_audio_text_pretrained(
        cls,
        audio_model: str,
        text_model: str,
        trust_remote_code: bool = False,
        output_loading_info: bool = False,
        **kwargs,
    ):
        """
        Join two pretrained backbones under a new, random fusion.

        The convolutional feature encoder is frozen (pass `freeze_feature_encoder=False` to train it), and the text
        encoder's dropouts are 0, both as in the paper.

        Args:
            audio_model (`str`): Hub id or folder of a model of the wav2vec2 family, of Whisper or of w2v-BERT 2.0.
            text_model (`str`): Hub id or folder of a text encoder, such as BERT, RoBERTa, DeBERTa or ModernBERT.
            trust_remote_code (`bool`, defaults to `False`): Run the code that comes with a text model.
            output_loading_info (`bool`, defaults to `False`): Give the model and, under `"audio_model"` and
                `"text_model"`, what transformers tells of the loading of each that the fusion reads.
            kwargs: Fields of [`RsaCfnConfig`]; with the prefix `audio_` or `text_`, fields of the backbone's
                configuration (`audio_layerdrop=0.0`, `text_hidden_dropout_prob=0.1`).
        """
        config_class = cls.config_class
        config_kwargs = {name: value for name, value in kwargs.items() if hasattr(config_class, name)}
        backbone_kwargs = {name: value for name, value in kwargs.items() if name not in config_kwargs}
        register_own_code(PretrainedConfig.get_config_dict(text_model)[0], text_model, trust_remote_code)
        audio_config, text_config = (
            AutoConfig.from_pretrained(name, trust_remote_code=False) for name in (audio_model, text_model)
        )
        # In float32 whatever the files hold: a half-precision backbone would turn the whole model half on a reload.
        audio_config.dtype = text_config.dtype = torch.float32
        for name, value in text_config.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(text_config, name, 0.0)
        for name, value in backbone_kwargs.items():
            modality, _, field = name.partition("_")
            backbone_config = {"audio": audio_config, "text": text_config}.get(modality)
            if backbone_config is None or not hasattr(backbone_config, field):
                raise ValueError(
                    f"{name}={value!r} is no field of {config_class.__name__}; give one of its fields, or a field of "
                    "a backbone's configuration after 'audio_' or 'text_'."
                )
            setattr(backbone_config, field, value)
        config = config_class(
            audio_config=audio_config, text_config=text_config, **{"freeze_feature_encoder": True, **config_kwargs}
        )
        model, loading_info = cls(config), {}
        loads = (config.audio_family.load, partial(AutoModel.from_pretrained, config=config.text_config))
        options = {"dtype": torch.float32, "trust_remote_code": False, "output_loading_info": True}
        for name, path, load in zip(("audio_model", "text_model"), (audio_model, text_model), loads):
            if getattr(model, name) is not None:
                pretrained, info = load(path, **options)
                pretrained.pooler = None
                getattr(model, name).load_state_dict(pretrained.state_dict())
                missing = {key for key in info["missing_keys"] if not key.startswith("pooler.")}
                loading_info[name] = {**info, "missing_keys": missing}
        return (model, loading_info) if output_loading_info else model

    def freeze_feature_encoder(self):
        """Keep the convolutional feature encoder of the audio backbone from training; without one, do nothing."""
        if self.audio_model is not None:
            self.config.audio_family.freeze_feature_encoder(self.audio_model)

    def to_int8(self):
        """
        Let the encoders multiply in 8 bits from now on, in evaluation on a CPU; such a model can't be saved.

        Raises:
            ValueError: The model isn't in float32 on a CPU, its encoders have no layers that are known, or torch has no
                oneDNN.
        """
        if not torch.backends.mkldnn.is_available():
            raise ValueError("int8 needs oneDNN, which this build of torch lacks; leave it out.")
        if {(weight.device.type, weight.dtype) for weight in self.parameters()} != {("cpu", torch.float32)}:
            raise ValueError("int8 is for models in float32 on a CPU; leave int8 or the other device or dtype out.")
        if not sum(round_layers(backbone) for backbone in (self.audio_model, self.text_model) if backbone is not None):
            raise ValueError("int8 finds no layer above the first in the encoders of this model; leave it out.")
        for member in self.members:
            member.to_int8()
        return self.eval()

    def freeze_parameters(self):
        """
        Freeze what the configuration says, and what no gradient reaches: processes that train together wait for the
        gradient of every parameter. A backbone that is frozen whole also stays in evaluation mode.
        """
        config = self.config
        if config.freeze_feature_encoder or config.freeze_audio_encoder or config.freeze_audio_layers:
            self.freeze_feature_encoder()
        if self.audio_model is not None:
            if config.freeze_audio_layers:
                freeze_lowest_layers(self.audio_model, config.freeze_audio_layers)
            config.audio_family.freeze_fixed(self.audio_model)
        if self.text_model is not None and config.freeze_text_layers:
            freeze_lowest_layers(self.text_model, config.freeze_text_layers)
        for backbone in self._frozen_backbones():
            backbone.requires_grad_(False).eval()
        for module in self.fusion.modules():
            if isinstance(module, ScalarSelfAttention):
                module.key.bias.requires_grad = False  # it cancels in the softmax
        for member in self.members:
            member.freeze_parameters()

    def _frozen_backbones(self):
        audio = [self.audio_model] if self.config.freeze_audio_encoder else []
        text = [self.text_model] if self.config.freeze_text_encoder else []
        return [backbone for backbone in audio + text if backbone is not None]

    def train(self, mode: bool = True):
        """As in [`torch.nn.Module`]; a backbone that is frozen whole stays without dropout and SpecAugment."""
        super().train(mode)
        for backbone in self._frozen_backbones():
            backbone.eval()
        if mode and not any(parameter.requires_grad for parameter in self.fusion.parameters()):
            logger.warning_once("Nothing of the fusion trains; with peft, give modules_to_save=['fusion'] to train it.")
        return self

    def load_state_dict(self, state_dict, *args, **kwargs):
        """As in [`torch.nn.Module`], from the names in files too."""
        state_dict = {apply_renamings(name, RENAMINGS): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(state_dict, *args, **kwargs)

    def get_input_embeddings(self):
        return None if self.text_model is None else self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        audio_attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        audio_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        input_features: torch.Tensor | None = None,
        attributes: torch.Tensor | None = None,
        mixing: torch.Tensor | None = None,
        **kwargs,
    ) -> RsaCfnOutput:
        """The pooled vector of a missing modality is zeros.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`, *optional*):
                Waveforms at the sampling rate of the audio backbone (16 kHz), normalised as its feature extractor does.
                When left out, the audio of the whole batch is missing.
            audio_attention_mask (`torch.LongTensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for samples of the clip, 0 for padding at its end. All ones when left out. The audio of a row of
                zeros is missing. Of `input_features`, `(batch_size, num_frames)`.
            input_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                Tokens of the transcripts, padded at the end. When left out, the text of the whole batch is missing.
            attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for tokens of the transcript, 0 for padding. All ones when left out. The text of a row of zeros is
                missing. Beside audio alone, one of its shape is the audio's.
            audio_embeds (`torch.FloatTensor` of shape `(batch_size, audio_hidden_size)`, *optional*):
                In place of `input_values`, what [`~RsaCfnForSequenceClassification.get_audio_features`] made of them;
                the audio encoder doesn't run. A fusion that reads sequences, or `attentive_statistics`, takes what
                [`~RsaCfnForSequenceClassification.get_audio_states`] gives: hidden states of shape `(batch_size,
                frames, audio_hidden_size)`, and their mask as `audio_attention_mask`. With `use_weighted_layer_sum`
                either may be that of each layer, `(batch_size, num_layers, frames, audio_hidden_size)`; a mean or a
                sum over time, of 1 frame, is then weighed over its layers.
            text_embeds (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, *optional*):
                The same for `input_ids`, by `get_text_features` or `get_text_states`.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Class indices, or class shares of shape `(batch_size, num_labels)`; a row with -100 has no part in the
                loss. See [`~RsaCfnForSequenceClassification.loss_function`].
            output_attentions (`bool`, *optional*):
                Return the attention maps of the fusion and the pooling; `config.output_attentions` when left out.
            output_hidden_states (`bool`, *optional*):
                Return the states of all layers of the backbones; `config.output_hidden_states` when left out.
            num_items_in_batch (`torch.LongTensor` or `int`, *optional*):
                The number of labelled rows in the optimiser step, over accumulated batches and processes; given by
                the Trainer. The loss is a sum over it, so that accumulation changes nothing.
            input_features (`torch.FloatTensor` of shape `(batch_size, num_frames, num_features)`, *optional*):
                In place of `input_values`, for an audio backbone that reads features of frames
                (`config.audio_input`): what the feature extractor makes of each clip by itself, padded at the end.
            attributes (`torch.FloatTensor` of shape `(batch_size, num_attributes)`, *optional*):
                The values of `config.attributes` that are to be learnt, NaN where there is none.
            mixing (`torch.FloatTensor` of shape `(batch_size, batch_size)`, *optional*):
                The shares of each row's features that make up a row where `labels` are as mixed (mixup).

        Raises:
            ValueError: The audio backbone doesn't read the inputs that are given, or takes none as long; a row has
                neither audio nor text (the masks are looked at where that is cheap, on a CPU); a mask is of nothing
                that is given; or a modality comes as both inputs and embeds, or as pooled vectors where sequences are
                read.
        """
        if self.members and (audio_embeds is not None or text_embeds is not None):
            raise ValueError("embeds are those of one model, and this is an ensemble; give audio and text.")
        inputs = (input_values, audio_attention_mask, input_ids, attention_mask)
        audio_inputs = self._audio_inputs(input_values, input_features)
        self._check_embeds("audio_embeds", audio_embeds, self.config.audio_input, audio_inputs)
        self._check_embeds("text_embeds", text_embeds, "input_ids", input_ids)
        audio = audio_inputs if audio_embeds is None else audio_embeds
        text = input_ids if text_embeds is None else text_embeds
        audio_attention_mask, attention_mask = self._check_masks(
            audio_inputs, audio_attention_mask, text, attention_mask
        )
        self._check_every_row_has_a_modality(audio, audio_attention_mask, text, attention_mask)
        config = self.config
        if attributes is not None and attributes.shape[1:] != (len(config.attributes or ()),):
            raise ValueError(f"attributes are {tuple(attributes.shape)}; give one column each: {config.attributes}.")
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        given = (audio_inputs, audio_embeds, input_ids, text_embeds)
        # Not len(), which makes a constant of it where the model is exported.
        batch_size = next(inputs for inputs in given if inputs is not None).shape[0]
        audio_states, audio_counts, audio_layers = self._encode_audio(
            audio_inputs, audio_attention_mask, batch_size, audio_embeds, output_hidden_states
        )
        text_states, text_counts, text_layers = self._encode_text(
            input_ids, attention_mask, batch_size, text_embeds, output_hidden_states
        )
        if self.training and config.modality_dropout > 0 and len(self.fusion.modalities) == 2:
            audio_counts, text_counts = drop_modalities(audio_counts, text_counts, config.modality_dropout)
        audio_embeds, audio_maps = self._pool("audio", audio_states, audio_counts)  # (B, A)
        text_embeds, text_maps = self._pool("text", text_states, text_counts)  # (B, T)
        if self.fusion.reads_pooled:
            outputs, attentions = self.fusion(audio_embeds, text_embeds, output_attentions)
        else:
            audio, text = (audio_states, audio_counts), (text_states, text_counts)
            outputs, maps = self.fusion(audio, text, output_attentions)
            attentions, (audio_maps, text_maps) = (), maps or ((), ())
        logits, told, loss = outputs, None, None
        if config.attributes:
            logits, told = outputs[:, : config.num_labels], outputs[:, config.num_labels :]
            low, high = torch.tensor(config.attribute_ranges, dtype=torch.float32, device=told.device).unbind(dim=1)
            told = (low + high + (high - low) * told) / 2  # (B, K), float32 at least
        if mixing is not None:  # what a linear classifier tells of mixed features
            logits = mixing.to(logits.dtype) @ logits
        if config.temperature != 1 and not self.training:
            logits = logits / config.temperature
        if self.members:
            others = [member(*inputs, input_features=input_features) for member in self.members]
            log_shares = torch.stack([logits, *(other.logits for other in others)]).float().log_softmax(dim=-1)
            logits = log_shares.logsumexp(dim=0) - math.log(len(log_shares))  # (B, C), of the mean probabilities
            told = told if told is None else torch.stack([told, *(other.attributes for other in others)]).mean(dim=0)
        if labels is not None:
            loss = self.loss_function(logits, labels, num_items_in_batch, told, attributes)
        elif attributes is not None:
            loss = config.attribute_weight * self.attribute_loss(told, attributes, len(attributes))
        return RsaCfnOutput(
            loss=loss,
            logits=logits,
            audio_embeds=audio_embeds,
            text_embeds=text_embeds,
            audio_hidden_states=audio_layers if output_hidden_states else None,
            text_hidden_states=text_layers if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
            attributes=told,
            audio_attentions=audio_maps if output_attentions else None,
            text_attentions=text_maps if output_attentions else None,
        )

    def loss_function(self, logits, labels, num_items_in_batch=None, attributes=None, values=None):
        """
        Cross entropy in float32, with the class weights and the label smoothing of the configuration; and for `values`
        of the attributes `attribute_weight` times their loss, in which rows without a label have no part.

        The weighted terms of the labelled rows are summed and divided by `num_items_in_batch` or the rows' number. It
        isn't torch's weighted mean, whose divisor, the sum of the weights, would depend on how rows fall into batches;
        weights whose mean over the training rows is 1 keep the scale of the loss.

        Args:
            logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`): Scores before the softmax.
            labels (`torch.LongTensor` of shape `(batch_size,)` or `torch.FloatTensor` of shape `(batch_size,
                num_labels)`): Classes, or shares of the classes that add up to 1 in each row. A row of -100, and one
                whose shares are all 0, has no part; the Trainer counts the second kind, and not the first.
            num_items_in_batch (`torch.LongTensor` or `int`, *optional*): Labels that aren't -100 in the optimiser
                step, as the Trainer counts them: for shares, `num_labels` a row.
            attributes, values: As for [`~RsaCfnForSequenceClassification.attribute_loss`].
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = labels.to(logits.device)
        if torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(logits.device)
        if labels.is_floating_point():
            labels = labels.to(logits.dtype).clamp(min=0)  # (B, C)
            is_labelled = labels.sum(dim=1) > 0  # (B,)
            if num_items_in_batch is not None:
                num_items_in_batch = num_items_in_batch / labels.shape[1]
        else:
            is_labelled = labels != -100  # (B,)
        # A step may have no labelled row at all.
        num_items_in_batch = is_labelled.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        weights = self.config.class_weights
        losses = F.cross_entropy(
            logits,
            labels,
            weight=None if weights is None else logits.new_tensor(weights),
            label_smoothing=self.config.label_smoothing,
            reduction="none",
        )  # (B,)
        loss = (losses * is_labelled).sum()
        if values is not None:
            values, num_rows = values.masked_fill(~is_labelled[:, None], torch.nan), is_labelled.sum().clamp(min=1)
            loss = loss + self.config.attribute_weight * num_rows * self.attribute_loss(attributes, values, num_rows)
        return loss / num_items_in_batch.clamp(min=1)

    def attribute_loss(self, attributes, values, num_rows):
        """
        Of what is told and what is so, `(batch_size, num_attributes)` each, NaN for no value: the mean over the
        attributes of 1 - CCC of the rows with a value, 0 where these are all alike; or of the sum of their squared
        errors, in units of half the range, over `num_rows`.
        """
        low, high = torch.tensor(self.config.attribute_ranges, device=values.device).unbind(dim=1)  # (K,) each
        is_given = values.isfinite()
        values = values.where(is_given, attributes.detach())
        told, true = (2 * (numbers - low) / (high - low) - 1 for numbers in (attributes, values))
        errors = (told - true).square()  # (B, K)
        if self.config.attribute_loss == "mse":
            return errors.sum(dim=0).mean() / num_rows
        shares = is_given / is_given.sum(dim=0).clamp(min=1)
        true = true - (shares * true).sum(dim=0)
        distance, covariance = (shares * errors).sum(dim=0), (shares * told * true).sum(dim=0)  # (K,) each
        # 1 - CCC, by a variance and its mean that are in both.
        losses = distance / (distance + 2 * covariance).clamp(min=1e-8)
        return (losses * ((shares * true.square()).sum(dim=0) > 1e-8)).mean()  # less is rounding

    def _audio_inputs(self, input_values, input_features):
        """What is given of the two, and a ValueError if the audio backbone reads the other."""
        unread = input_features if self.config.audio_input == "input_values" else input_values
        if self.audio_model is not None and unread is not None:
            raise ValueError(
                f"audio_config.model_type={self.config.audio_config.model_type!r} reads {self.config.audio_input}; "
                "give what its own feature extractor makes, and nothing else of the audio."
            )
        return input_values if input_features is None else input_features

    def _check_embeds(self, name, embeds, inputs_name, inputs):
        if embeds is None:
            return
        if inputs is not None:
            raise ValueError(f"{inputs_name} and {name} are both given; give one of them.")
        if embeds.dim() == 4 and not self.config.use_weighted_layer_sum:
            raise ValueError(
                f"{name} has shape {tuple(embeds.shape)}, of layers; give those of one, or use_weighted_layer_sum=True."
            )
        if embeds.dim() == 2 and not self.takes_pooled:
            raise ValueError(
                f"{name} has shape {tuple(embeds.shape)}, but fusion={self.config.fusion!r} with pooling_mode="
                f"{self.config.pooling_mode!r} reads sequences; give hidden states of shape (batch_size, "
                "sequence_length, hidden_size) and their mask."
            )

    def _check_masks(self, audio_inputs, audio_attention_mask, text, attention_mask):
        """Both masks; a feature extractor by itself calls that of the audio `attention_mask` too."""
        if attention_mask is None or text is not None:
            return audio_attention_mask, attention_mask
        is_without = audio_attention_mask is None and audio_inputs is not None
        if is_without and attention_mask.shape == audio_inputs.shape[:2]:
            return attention_mask, None
        raise ValueError(
            f"attention_mask, of shape {tuple(attention_mask.shape)}, is the text's, and there are no input_ids; give "
            "the audio's as audio_attention_mask, or leave it out."
        )

    def _check_every_row_has_a_modality(self, audio_inputs, audio_attention_mask, input_ids, attention_mask):
        if audio_inputs is None and input_ids is None:
            raise ValueError(f"{self.config.audio_input}=None and input_ids=None; give at least one of them.")
        if self.audio_model is None or self.text_model is None:
            return
        missing = []
        for values, mask in ((audio_inputs, audio_attention_mask), (input_ids, attention_mask)):
            if values is not None and mask is None:
                return
            # Elsewhere, looking at the mask waits for the device or breaks a trace; the processor has checked it too.
            if values is not None and (mask.device.type != "cpu" or torch.compiler.is_compiling()):
                return
            missing.append(torch.tensor([True]) if values is None else mask.sum(dim=1) == 0)
        rows = (missing[0] & missing[1]).nonzero().flatten().tolist()
        if rows:
            raise ValueError(f"rows {rows} have neither audio nor text: both masks are 0; leave these rows out.")

    def get_audio_features(self, input_values=None, audio_attention_mask=None, input_features=None) -> torch.Tensor:
        """
        Pooled audio, `(batch_size, audio_hidden_size)`, of what [`~RsaCfnForSequenceClassification.forward`] takes.

        A clip that is too short for a frame of the encoder counts as one frame of itself and silence; a clip of no
        samples is missing, and its vector is zeros.
        """
        return self._pool("audio", *self.get_audio_states(input_values, audio_attention_mask, input_features))[0]

    def get_audio_states(
        self, input_values=None, audio_attention_mask=None, input_features=None, each_layer: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """
        Hidden states of the audio, `(batch_size, frames, audio_hidden_size)`, and how often each counts in pooling,
        `(batch_size, frames)`; with `each_layer`, those of all layers besides, a tuple.
        """
        inputs = self._audio_inputs(input_values, input_features)
        return self._encode_audio(inputs, audio_attention_mask, len(inputs), None, each_layer)[: 2 + each_layer]

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Pooled text, `(batch_size, text_hidden_size)`, of tokens and their mask, `(batch_size, num_tokens)`.

        A text of no tokens is missing, and its vector is zeros. With `mask_padding=False` every other row is pooled
        over `max_text_tokens` positions. All its padded positions share one hidden state (RoBERTa gives them one
        position, and the encoder has no dropout), so a single pad token is encoded and counted as often as it would
        have stood there.
        """
        return self._pool("text", *self.get_text_states(input_ids, attention_mask))[0]

    def get_text_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, each_layer: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """
        Hidden states of the text, `(batch_size, num_tokens, text_hidden_size)`, and how often each counts in pooling,
        `(batch_size, num_tokens)`; with `each_layer`, those of all layers besides, a tuple.
        """
        return self._encode_text(input_ids, attention_mask, len(input_ids), None, each_layer)[: 2 + each_layer]

    @property
    def takes_pooled(self) -> bool:
        """Whether a pooled vector stands in for a modality: the fusion reads it, and its pooling isn't learned."""
        return self.fusion.reads_pooled and self.config.pooling_mode != "attentive_statistics"

    def _pool(self, modality, hidden_states, counts):
        """The vector of a modality, and the maps of its attention over time."""
        if hidden_states is None:
            return None, ()
        if not self.fusion.reads_pooled:
            return pool(hidden_states, counts, self.config.pooling_mode).to(self.dtype), ()
        pooled, maps = self.fusion.pooling[modality](hidden_states, counts)
        return pooled.to(self.dtype), maps

    def _given_states(self, embeds, mask, layer_weights):
        """Features that were computed earlier, as an encoder gives them: a pooled vector is one position."""
        hidden_states = embeds.to(self.dtype).unsqueeze(1) if embeds.dim() == 2 else embeds.to(self.dtype)
        if embeds.dim() == 4:
            hidden_states = weigh_layers(hidden_states.unbind(dim=1), layer_weights)  # (B, S, H)
        if mask is None:
            mask = torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
        return hidden_states, mask, None

    def _missing_states(self, batch_size, hidden_size):
        """One position of zeros that counts 0 times: what a modality that the whole batch lacks comes to."""
        hidden_states = torch.zeros(batch_size, 1, hidden_size, dtype=self.dtype, device=self.device)
        return hidden_states, torch.zeros(batch_size, 1, dtype=torch.long, device=self.device), None

    def _run_backbone(self, backbone, layer_weights, inputs, output_hidden_states, **kwargs):
        """The backbone's hidden states, weighed over its layers if so configured, and those layers if asked for."""
        needs_layers = output_hidden_states or layer_weights is not None
        outputs = backbone(inputs, output_hidden_states=needs_layers, **kwargs)
        hidden_states, layers = outputs.last_hidden_state, None
        if needs_layers:
            # Where the encoder ends in a norm, its last layer is taken behind that norm.
            layers = (*outputs.hidden_states[:-1], hidden_states)
        if layer_weights is not None:
            hidden_states = weigh_layers(layers, layer_weights)
        return hidden_states, layers

    def _encode_audio(self, inputs, audio_attention_mask, batch_size, embeds=None, output_hidden_states=False):
        """Hidden states `(batch_size, frames, A)`, how often each counts `(batch_size, frames)`, and all layers."""
        if self.audio_model is None:
            return None, None, None
        if embeds is not None:
            return self._given_states(embeds, audio_attention_mask, self.audio_layer_weights)
        if inputs is None:
            return self._missing_states(batch_size, self.config.audio_config.hidden_size)
        if audio_attention_mask is None:
            audio_attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        family = self.config.audio_family
        lengths = audio_attention_mask.sum(dim=1, keepdim=True)  # (B, 1)
        is_present = lengths > 0
        padding = family.shortest - inputs.shape[1]
        # A number, a symbol where the model is exported, a tensor where it is traced.
        padding = padding.clamp(min=0) if torch.is_tensor(padding) else torch.sym_max(padding, 0)
        inputs = F.pad(inputs, (0, 0) * (inputs.dim() - 2) + (0, padding)).to(self.dtype)
        if not self.config.mask_padding:
            kwargs = self._spec_augment_arguments(*inputs.shape[:2])
            hidden_states, layers = self._run_backbone(
                self.audio_model, self.audio_layer_weights, inputs, output_hidden_states, **kwargs
            )  # (B, frames, A)
            return hidden_states, is_present.expand(hidden_states.shape[:2]), layers
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        # The one frame of a clip that is shorter than a frame ends in silence, whatever the padding holds.
        is_padding = (positions >= lengths).view(*inputs.shape[:2], *[1] * (inputs.dim() - 2))
        inputs = inputs.masked_fill(is_padding, 0.0)
        # The backbone takes a mask of zeros for one of ones, so a missing clip is encoded as silence and not counted.
        lengths = lengths.clamp(min=family.shortest)
        audio_attention_mask = (positions < lengths).long()  # (B, samples)
        hidden_states, layers = self._run_audio(
            inputs, audio_attention_mask, lengths, output_hidden_states
        )  # (B, frames, A)
        frames = torch.arange(hidden_states.shape[1], device=inputs.device)
        return hidden_states, (frames < family.num_frames(lengths)) & is_present, layers

    def _run_audio(self, inputs, audio_attention_mask, lengths, output_hidden_states):
        """The audio backbone on clips whose padding has no effect; on a CPU there is little or none."""
        is_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        is_apart = inputs.device.type == "cpu" and self.runs_lengths_apart and not is_graph
        if is_apart and self._can_pack and len(lengths.unique()) > 1:
            return self._run_packed_audio(inputs, lengths[:, 0], output_hidden_states)
        parts = rows_of_similar_length(lengths[:, 0]) if is_apart else [slice(None)]
        if len(parts) == 1:
            kwargs = self._spec_augment_arguments(*inputs.shape[:2])
            with self.config.audio_family.valid_lengths(lengths):
                kwargs["attention_mask"] = audio_attention_mask
                return self._run_backbone(
                    self.audio_model, self.audio_layer_weights, inputs, output_hidden_states, **kwargs
                )
        outputs = []
        for rows in parts:
            width = int(lengths[rows].max())
            hidden_states, layers = self._run_audio(
                inputs[rows, :width], audio_attention_mask[rows, :width], lengths[rows], output_hidden_states
            )
            outputs.append((hidden_states, *(layers or ())))
        num_frames, back = outputs[0][0].shape[1], torch.cat(parts).argsort()
        hidden_states, *layers = (
            torch.cat([F.pad(part, (0, 0, 0, num_frames - part.shape[1])) for part in states])[back]
            for states in zip(*outputs)
        )
        return hidden_states, tuple(layers) or None

    @property
    def _can_pack(self):
        return self.config.audio_family.can_pack and self.audio_model.config._attn_implementation == "sdpa"

    def _run_packed_audio(self, inputs, lengths, output_hidden_states):
        """The audio backbone on the clips one behind the other in one row, where each is as it would be alone."""
        family = self.config.audio_family
        frames, kwargs = family.num_frames(lengths), {}
        clips, num_frames = lengths.tolist(), frames.tolist()
        if self.audio_model.training and family.masks_time:
            kwargs["mask_time_indices"] = family.draw_time_masks(frames)
        row = torch.cat([clip[:length] for clip, length in zip(inputs, clips)])[None]  # (1, all samples)
        with family.packed(clips, num_frames):
            hidden_states, layers = self._run_backbone(
                self.audio_model, self.audio_layer_weights, row, output_hidden_states, **kwargs
            )  # (1, all frames, A)
        hidden_states, *layers = (
            pad_sequence(states[0].split(num_frames), batch_first=True) for states in (hidden_states, *(layers or ()))
        )
        return hidden_states, tuple(layers) or None

    def _spec_augment_arguments(self, batch_size, length):
        """SpecAugment refuses clips of fewer frames than one of its masks; a batch of such clips goes without."""
        family, config = self.config.audio_family, self.config.audio_config
        num_frames = family.num_frames(length, num_adapter_layers=0)
        if not (self.audio_model.training and family.masks_time) or num_frames >= config.mask_time_length:
            return {}
        return {"mask_time_indices": torch.zeros(batch_size, num_frames, dtype=torch.bool, device=self.device)}

    def _encode_text(self, input_ids, attention_mask, batch_size, embeds=None, output_hidden_states=False):
        """Hidden states `(batch_size, tokens, T)`, how often each counts `(batch_size, tokens)`, and all layers."""
        if self.text_model is None:
            return None, None, None
        if embeds is not None:
            return self._given_states(embeds, attention_mask, self.text_layer_weights)
        if input_ids is None:
            return self._missing_states(batch_size, self.config.text_config.hidden_size)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        lengths = attention_mask.sum(dim=1, keepdim=True)  # (B, 1)
        is_present = lengths > 0
        width = max(input_ids.shape[1], 1)
        if not self.config.mask_padding and torch.compiler.is_exporting():
            # The longest row isn't known to a graph; one pad position more than it needs counts 0 times.
            width += 1
        elif not self.config.mask_padding:
            longest, limit = int(lengths.max()), self.config.max_text_tokens
            if longest > limit:
                raise ValueError(
                    f"A row of {longest} tokens doesn't fit max_text_tokens={limit}; give rows of 1 to {limit}."
                )
            width = min(longest + 1, limit)
        pads = max(width - input_ids.shape[1], 0)
        pad_token_id = getattr(self.config.text_config, "pad_token_id", None)  # there may be none: any is masked
        input_ids = F.pad(input_ids, (0, pads), value=pad_token_id)[:, :width]
        attention_mask = F.pad(attention_mask, (0, pads))[:, :width]  # (B, width)
        counts = attention_mask.clone()
        if not self.config.mask_padding:
            counts[:, -1:] += (self.config.max_text_tokens - lengths) * is_present
        # A softmax over no position at all is NaN, so a missing text attends to its first pad, and isn't counted.
        attention_mask[:, :1] += (~is_present).to(attention_mask.dtype)
        hidden_states, layers = self._run_backbone(
            self.text_model, self.text_layer_weights, input_ids, output_hidden_states, attention_mask=attention_mask
        )  # (B, width, T)
        return hidden_states, counts, layers


register_checkpoint_conversion_mapping(RsaCfnForSequenceClassification.__name__, RENAMINGS, overwrite=True)
for auto_class in ("AutoModel", "AutoModelForAudioClassification", "AutoModelForSequenceClassification"):
    RsaCfnForSequenceClassification.register_for_auto_class(auto_class)

__all__ = ["RsaCfnForSequenceClassification", "RsaCfnOutput", "RsaCfnPreTrainedModel"]
