"""RSA-CFN model: an audio and a text encoder → masked pooling → fusion → logits over emotions."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple


try:
    from .attention_rsa_cfn import ScalarSelfAttention
    from .configuration_rsa_cfn import RsaCfnConfig
    from .cpu_rsa_cfn import checkpoint_with_cpu_functions, cpu_functions, runs_on_cpu
    from .cross_network_rsa_cfn import LowRankCrossLinear
    from .encoder_rsa_cfn import (
        as_hidden_states,
        clear_missing_rows,
        conv_output_lengths,
        drop_modalities,
        freeze_lowest_layers,
        mask_group_norm,
        masks_time,
        pool,
        rows_of_similar_length,
        valid_samples,
        weigh_layers,
    )
    from .fusion_rsa_cfn import FUSION_CLASSES
except ImportError:
    if __package__:
        raise
    from attention_rsa_cfn import ScalarSelfAttention
    from configuration_rsa_cfn import RsaCfnConfig
    from cpu_rsa_cfn import checkpoint_with_cpu_functions, cpu_functions, runs_on_cpu
    from cross_network_rsa_cfn import LowRankCrossLinear
    from encoder_rsa_cfn import (
        as_hidden_states,
        clear_missing_rows,
        conv_output_lengths,
        drop_modalities,
        freeze_lowest_layers,
        mask_group_norm,
        masks_time,
        pool,
        rows_of_similar_length,
        valid_samples,
        weigh_layers,
    )
    from fusion_rsa_cfn import FUSION_CLASSES

if TYPE_CHECKING:
    # Never run: a save copies the files that are imported so, and the pipeline belongs to every checkpoint.
    from .pipeline_rsa_cfn import RsaCfnPipeline  # noqa: F401


@dataclass
class RsaCfnOutput(ModelOutput):
    """
    Output of [`RsaCfnForSequenceClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross entropy over the rows with a label; returned when `labels` are given.
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
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    audio_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    text_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


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
        # The fusions start like the original's, from torch's own defaults: the attention over scalars would be
        # flat from the usual N(0, 0.02). The backbones initialise themselves.
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, LowRankCrossLinear):
            for name, bound in module.init_bounds().items():
                init.uniform_(getattr(module, name), -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, RsaCfnForSequenceClassification) and self.config.use_weighted_layer_sum:
            for weights in (module.audio_layer_weights, module.text_layer_weights):
                if weights is not None:
                    init.constant_(weights, 1 / len(weights))

    def _set_gradient_checkpointing(self, enable=True, gradient_checkpointing_func=checkpoint, every_n_layers=1):
        checkpointing_func = partial(checkpoint_with_cpu_functions, gradient_checkpointing_func)
        super()._set_gradient_checkpointing(enable, checkpointing_func, every_n_layers)


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

    def __init__(self, config: RsaCfnConfig):
        super().__init__(config)
        fusion_class = FUSION_CLASSES[config.fusion]
        self.audio_model = AutoModel.from_config(config.audio_config) if "audio" in fusion_class.modalities else None
        self.text_model = AutoModel.from_config(config.text_config) if "text" in fusion_class.modalities else None
        if getattr(self.text_model, "pooler", None) is not None:
            # Pooling is ours, so the backbone's pooler would be weights that never train.
            self.text_model.pooler = None
        if self.audio_model is not None and config.mask_padding:
            mask_group_norm(self.audio_model)
        self.audio_layer_weights = self._make_layer_weights(self.audio_model)
        self.text_layer_weights = self._make_layer_weights(self.text_model)
        self.fusion = fusion_class(config)
        self.freeze_parameters()
        self.post_init()

    def _make_layer_weights(self, backbone):
        if backbone is None or not self.config.use_weighted_layer_sum:
            return None
        return nn.Parameter(torch.empty(backbone.config.num_hidden_layers + 1))

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in [`PreTrainedModel`]; loading makes new parameters, so the frozen ones are frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_parameters()
        return loaded

    @classmethod
    def from_audio_text_pretrained(cls, audio_model: str, text_model: str, **kwargs):
        """
        Join two pretrained backbones under a new, random fusion.

        The convolutional feature encoder is frozen (pass `freeze_feature_encoder=False` to train it), and the text
        encoder's dropouts are 0, both as in the paper.

        Args:
            audio_model (`str`): Hub id or folder of a wav2vec2-family model.
            text_model (`str`): Hub id or folder of a RoBERTa- or BERT-family model.
            kwargs: Fields of [`RsaCfnConfig`]; with the prefix `audio_` or `text_`, fields of the backbone's
                configuration (`audio_layerdrop=0.0`, `text_hidden_dropout_prob=0.1`).
        """
        config_class = cls.config_class
        config_kwargs = {name: value for name, value in kwargs.items() if hasattr(config_class, name)}
        backbone_kwargs = {name: value for name, value in kwargs.items() if name not in config_kwargs}
        audio_config, text_config = AutoConfig.from_pretrained(audio_model), AutoConfig.from_pretrained(text_model)
        # In float32 whatever the files hold: a half-precision backbone would turn the whole model half on a reload.
        audio_config.dtype = text_config.dtype = torch.float32
        text_config.update({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
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
        model = cls(config)
        for backbone, name in ((model.audio_model, audio_model), (model.text_model, text_model)):
            if backbone is not None:
                pretrained = AutoModel.from_pretrained(name, config=backbone.config, dtype=torch.float32)
                backbone.load_state_dict(
                    {key: value for key, value in pretrained.state_dict().items() if not key.startswith("pooler.")}
                )
        return model

    def freeze_feature_encoder(self):
        """Keep the convolutional feature encoder of the audio backbone from training; without one, do nothing."""
        if self.audio_model is not None:
            self.audio_model.feature_extractor._freeze_parameters()

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
            if hasattr(self.audio_model, "masked_spec_embed") and not masks_time(config.audio_config):
                self.audio_model.masked_spec_embed.requires_grad = False
        if self.text_model is not None and config.freeze_text_layers:
            freeze_lowest_layers(self.text_model, config.freeze_text_layers)
        for backbone in self._frozen_backbones():
            backbone.requires_grad_(False).eval()
        for module in self.fusion.modules():
            if isinstance(module, ScalarSelfAttention):
                module.key.bias.requires_grad = False  # it cancels in the softmax

    def _frozen_backbones(self):
        audio = [self.audio_model] if self.config.freeze_audio_encoder else []
        text = [self.text_model] if self.config.freeze_text_encoder else []
        return [backbone for backbone in audio + text if backbone is not None]

    def train(self, mode: bool = True):
        """As in [`torch.nn.Module`]; a backbone that is frozen whole stays without dropout and SpecAugment."""
        super().train(mode)
        for backbone in self._frozen_backbones():
            backbone.eval()
        return self

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
        **kwargs,
    ) -> RsaCfnOutput:
        """The pooled vector of a missing modality is zeros.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`, *optional*):
                Waveforms at the sampling rate of the audio backbone (16 kHz), normalised as its feature extractor does.
                When left out, the audio of the whole batch is missing.
            audio_attention_mask (`torch.LongTensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for samples of the clip, 0 for padding at its end. All ones when left out. The audio of a row of
                zeros is missing.
            input_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                Tokens of the transcripts, padded at the end. When left out, the text of the whole batch is missing.
            attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for tokens of the transcript, 0 for padding. All ones when left out. The text of a row of zeros is
                missing.
            audio_embeds (`torch.FloatTensor` of shape `(batch_size, audio_hidden_size)`, *optional*):
                In place of `input_values`, what [`~RsaCfnForSequenceClassification.get_audio_features`] made of them;
                the audio encoder doesn't run. A fusion that reads sequences takes what
                [`~RsaCfnForSequenceClassification.get_audio_states`] gives: hidden states of shape `(batch_size,
                frames, audio_hidden_size)`, and their mask as `audio_attention_mask`.
            text_embeds (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, *optional*):
                The same for `input_ids`, by `get_text_features` or `get_text_states`.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Class indices, or class shares of shape `(batch_size, num_labels)`; a row with -100 has no part in the
                loss. See [`~RsaCfnForSequenceClassification.loss_function`].
            output_attentions (`bool`, *optional*):
                Return the attention maps of the fusion; `config.output_attentions` when left out.
            output_hidden_states (`bool`, *optional*):
                Return the states of all layers of the backbones; `config.output_hidden_states` when left out.
            num_items_in_batch (`torch.LongTensor` or `int`, *optional*):
                The number of labelled rows in the optimiser step, over accumulated batches and processes; given by
                the Trainer. The loss is a sum over it, so that accumulation changes nothing.

        Raises:
            ValueError: A row has neither audio nor text (the masks are looked at where that is cheap, on a CPU), or
                a modality comes as both inputs and embeds, or as pooled vectors to a fusion that reads sequences.
        """
        self._check_embeds("audio_embeds", audio_embeds, "input_values", input_values)
        self._check_embeds("text_embeds", text_embeds, "input_ids", input_ids)
        self._check_every_row_has_a_modality(
            input_values if audio_embeds is None else audio_embeds,
            audio_attention_mask,
            input_ids if text_embeds is None else text_embeds,
            attention_mask,
        )
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        (audio_states, audio_counts, audio_layers), (text_states, text_counts, text_layers) = self._encode(
            input_values,
            audio_attention_mask,
            audio_embeds,
            input_ids,
            attention_mask,
            text_embeds,
            output_hidden_states,
        )
        audio_embeds = None if self.audio_model is None else self._pool(audio_states, audio_counts)  # (B, A)
        text_embeds = None if self.text_model is None else self._pool(text_states, text_counts)  # (B, T)
        audio, text = audio_embeds, text_embeds
        if not self.fusion.reads_pooled:
            audio, text = (audio_states, audio_counts), (text_states, text_counts)
        with cpu_functions(self.device):
            logits, attentions = self.fusion(audio, text, output_attentions)
        return RsaCfnOutput(
            loss=None if labels is None else self.loss_function(logits, labels, num_items_in_batch),
            logits=logits,
            audio_embeds=audio_embeds,
            text_embeds=text_embeds,
            audio_hidden_states=audio_layers if output_hidden_states else None,
            text_hidden_states=text_layers if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def loss_function(self, logits, labels, num_items_in_batch=None):
        """
        Cross entropy in float32, with the class weights and the label smoothing of the configuration.

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
        if num_items_in_batch is None:
            num_items_in_batch = is_labelled.sum().clamp(min=1)
        weights = self.config.class_weights
        losses = F.cross_entropy(
            logits,
            labels,
            weight=None if weights is None else logits.new_tensor(weights),
            label_smoothing=self.config.label_smoothing,
            reduction="none",
        )  # (B,)
        return (losses * is_labelled).sum() / num_items_in_batch

    def _check_embeds(self, name, embeds, inputs_name, inputs):
        if embeds is None:
            return
        if inputs is not None:
            raise ValueError(f"{inputs_name} and {name} are both given; give one of them.")
        if embeds.dim() == 2 and not self.fusion.reads_pooled:
            raise ValueError(
                f"{name} has shape {tuple(embeds.shape)}, but fusion={self.config.fusion!r} reads sequences; give "
                "hidden states of shape (batch_size, sequence_length, hidden_size) and their mask."
            )

    def _check_every_row_has_a_modality(self, input_values, audio_attention_mask, input_ids, attention_mask):
        if input_values is None and input_ids is None:
            raise ValueError("input_values=None and input_ids=None; give at least one of them.")
        if self.audio_model is None or self.text_model is None:
            return
        missing = []
        for values, mask in ((input_values, audio_attention_mask), (input_ids, attention_mask)):
            if values is not None and mask is None:
                return
            # Elsewhere a look at the mask would wait for the device or break a trace; the processor has looked already.
            if values is not None and (mask.device.type != "cpu" or torch.compiler.is_compiling()):
                return
            missing.append(torch.tensor([True]) if values is None else mask.sum(dim=1) == 0)
        rows = (missing[0] & missing[1]).nonzero().flatten().tolist()
        if rows:
            raise ValueError(f"rows {rows} have neither audio nor text: both masks are 0; leave these rows out.")

    def get_audio_features(
        self, input_values: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Pooled audio, `(batch_size, audio_hidden_size)`, of waveforms and their mask, `(batch_size, num_samples)`.

        A clip shorter than the receptive field of the feature encoder counts as one frame of itself and silence; a
        clip of no samples is missing, and its vector is zeros.
        """
        return self._pool(*self.get_audio_states(input_values, audio_attention_mask))

    def get_audio_states(
        self, input_values: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Hidden states of the audio, `(batch_size, frames, audio_hidden_size)`, and how often each counts in pooling,
        `(batch_size, frames)`.
        """
        return self._encode_audio(input_values, audio_attention_mask, len(input_values))[:2]

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Pooled text, `(batch_size, text_hidden_size)`, of tokens and their mask, `(batch_size, num_tokens)`.

        A text of no tokens is missing, and its vector is zeros. With `mask_padding=False` every other row is pooled
        over `max_text_tokens` positions. All its padded positions share one hidden state (RoBERTa gives them one
        position, and the encoder has no dropout), so a single pad token is encoded and counted as often as it would
        have stood there.
        """
        return self._pool(*self.get_text_states(input_ids, attention_mask))

    def get_text_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Hidden states of the text, `(batch_size, num_tokens, text_hidden_size)`, and how often each counts in pooling,
        `(batch_size, num_tokens)`.
        """
        return self._encode_text(input_ids, attention_mask, len(input_ids))[:2]

    def _pool(self, hidden_states, counts):
        return pool(hidden_states, counts, self.config.pooling_mode).to(self.dtype)

    def _missing_states(self, batch_size, hidden_size):
        """One position of zeros that counts 0 times: what a modality that the whole batch lacks comes to."""
        hidden_states = torch.zeros(batch_size, 1, hidden_size, dtype=self.dtype, device=self.device)
        return hidden_states, torch.zeros(batch_size, 1, dtype=torch.long, device=self.device), None

    def _encode(
        self,
        input_values,
        audio_attention_mask,
        audio_embeds,
        input_ids,
        attention_mask,
        text_embeds,
        output_hidden_states,
    ):
        """Hidden states, their counts and all layers, of the audio and of the text; `None` without the backbone."""
        given = (input_values, audio_embeds, input_ids, text_embeds)
        # Not len(), which makes a constant of it where the model is exported.
        batch_size = next(inputs for inputs in given if inputs is not None).shape[0]
        audio = text = (None, None, None)
        if self.audio_model is not None and audio_embeds is not None:
            audio = (*as_hidden_states(audio_embeds.to(self.dtype), audio_attention_mask), None)
        elif self.audio_model is not None:
            audio = self._encode_audio(input_values, audio_attention_mask, batch_size, output_hidden_states)
        if self.text_model is not None and text_embeds is not None:
            text = (*as_hidden_states(text_embeds.to(self.dtype), attention_mask), None)
        elif self.text_model is not None:
            text = self._encode_text(input_ids, attention_mask, batch_size, output_hidden_states)
        (audio_states, audio_counts, audio_layers), (text_states, text_counts, text_layers) = audio, text
        if self.training and self.config.modality_dropout > 0 and None not in (self.audio_model, self.text_model):
            audio_counts, text_counts = drop_modalities(audio_counts, text_counts, self.config.modality_dropout)
        if self.audio_model is not None:
            audio_states = clear_missing_rows(audio_states, audio_counts)  # (B, frames, A)
        if self.text_model is not None:
            text_states = clear_missing_rows(text_states, text_counts)  # (B, S, T)
        return (audio_states, audio_counts, audio_layers), (text_states, text_counts, text_layers)

    def _run_backbone(self, backbone, layer_weights, inputs, output_hidden_states, **kwargs):
        """The backbone's hidden states, weighed over its layers if so configured, and those layers if asked for."""
        needs_layers = output_hidden_states or layer_weights is not None
        with cpu_functions(self.device):
            outputs = backbone(inputs, output_hidden_states=needs_layers, **kwargs)
        hidden_states, layers = outputs.last_hidden_state, None
        if needs_layers:
            # Of an encoder that ends in a norm, the last layer is meant behind it.
            layers = (*outputs.hidden_states[:-1], hidden_states)
        if layer_weights is not None:
            hidden_states = weigh_layers(layers, layer_weights)
        return hidden_states, layers

    def _encode_audio(self, input_values, audio_attention_mask, batch_size, output_hidden_states=False):
        """Hidden states `(batch_size, frames, A)`, how often each counts `(batch_size, frames)`, and all layers."""
        if input_values is None:
            return self._missing_states(batch_size, self.config.audio_config.hidden_size)
        if audio_attention_mask is None:
            audio_attention_mask = torch.ones_like(input_values, dtype=torch.long)
        shortest = self.config.audio_receptive_field
        lengths = audio_attention_mask.sum(dim=1, keepdim=True)  # (B, 1)
        is_present = lengths > 0
        padding = shortest - input_values.shape[1]
        # A number, a symbol where the model is exported, a tensor where it is traced.
        padding = padding.clamp(min=0) if torch.is_tensor(padding) else torch.sym_max(padding, 0)
        input_values = F.pad(input_values, (0, padding)).to(self.dtype)
        backbone, spec_augment = self.audio_model, self._spec_augment_arguments(*input_values.shape)
        if not self.config.mask_padding:
            hidden_states, layers = self._run_backbone(
                backbone, self.audio_layer_weights, input_values, output_hidden_states, **spec_augment
            )  # (B, frames, A)
            return hidden_states, is_present.expand(hidden_states.shape[:2]), layers
        positions = torch.arange(input_values.shape[1], device=input_values.device)
        # The one frame of a clip that is shorter than a frame ends in silence, whatever the padding holds.
        input_values = input_values.masked_fill(positions >= lengths, 0.0)
        # All zeros would wrap round to all ones in the backbone, so a missing clip is encoded too, and not counted.
        lengths = lengths.clamp(min=shortest)
        audio_attention_mask = (positions < lengths).long()  # (B, samples)
        hidden_states, layers = self._run_audio(
            input_values, audio_attention_mask, lengths, output_hidden_states, **spec_augment
        )  # (B, frames, A)
        mask = backbone._get_feature_vector_attention_mask(hidden_states.shape[1], audio_attention_mask)
        return hidden_states, mask & is_present, layers

    def _run_audio(self, input_values, audio_attention_mask, lengths, output_hidden_states, **kwargs):
        """The audio backbone on clips whose padding has no effect; on a CPU, apart where they differ in length."""
        is_apart = not self.audio_model.training and runs_on_cpu(input_values.device)
        parts = rows_of_similar_length(lengths[:, 0]) if is_apart else [slice(None)]
        if len(parts) == 1:
            with valid_samples(lengths):
                kwargs["attention_mask"] = audio_attention_mask
                return self._run_backbone(
                    self.audio_model, self.audio_layer_weights, input_values, output_hidden_states, **kwargs
                )
        outputs = []
        for rows in parts:
            width = int(lengths[rows].max())
            hidden_states, layers = self._run_audio(
                input_values[rows, :width], audio_attention_mask[rows, :width], lengths[rows], output_hidden_states
            )
            outputs.append((hidden_states, *(layers or ())))
        num_frames, back = outputs[0][0].shape[1], torch.cat(parts).argsort()
        hidden_states, *layers = (
            torch.cat([F.pad(part, (0, 0, 0, num_frames - part.shape[1])) for part in states])[back]
            for states in zip(*outputs)
        )
        return hidden_states, tuple(layers) or None

    def _spec_augment_arguments(self, batch_size, num_samples):
        """SpecAugment refuses clips of fewer frames than one of its masks; a batch of such clips goes without."""
        config = self.config.audio_config
        num_frames = conv_output_lengths(num_samples, config.conv_kernel, config.conv_stride)
        if not (self.audio_model.training and masks_time(config)) or num_frames >= config.mask_time_length:
            return {}
        return {"mask_time_indices": torch.zeros(batch_size, num_frames, dtype=torch.bool, device=self.device)}

    def _encode_text(self, input_ids, attention_mask, batch_size, output_hidden_states=False):
        """Hidden states `(batch_size, tokens, T)`, how often each counts `(batch_size, tokens)`, and all layers."""
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
        input_ids = F.pad(input_ids, (0, pads), value=self.config.text_config.pad_token_id)[:, :width]
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


for auto_class in ("AutoModel", "AutoModelForAudioClassification", "AutoModelForSequenceClassification"):
    RsaCfnForSequenceClassification.register_for_auto_class(auto_class)

__all__ = ["RsaCfnForSequenceClassification", "RsaCfnOutput", "RsaCfnPreTrainedModel"]
