"""RSA-CFN model: an audio and a text encoder → masked pooling → fusion → logits over emotions."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple


try:
    from .configuration_rsa_cfn import RsaCfnConfig
    from .encoder_rsa_cfn import mask_group_norm, pool, valid_samples
    from .fusion_rsa_cfn import FUSION_CLASSES
except ImportError:
    if __package__:
        raise
    from configuration_rsa_cfn import RsaCfnConfig
    from encoder_rsa_cfn import mask_group_norm, pool, valid_samples
    from fusion_rsa_cfn import FUSION_CLASSES


@dataclass
class RsaCfnOutput(ModelOutput):
    """
    Output of [`RsaCfnForSequenceClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Mean cross entropy over the rows with a label; returned when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Scores before the softmax.
        audio_embeds (`torch.FloatTensor` of shape `(batch_size, audio_hidden_size)`, *optional*):
            The pooled audio; `None` when the fusion has no audio encoder.
        text_embeds (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, *optional*):
            The pooled text; `None` when the fusion has no text encoder.
        attentions (`tuple(torch.FloatTensor)`, *optional*):
            With `output_attentions=True`, one map of shape `(batch_size, features, features)` for each self-attention
            of the fusion: `rsa_cfn` has two, audio first.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
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
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


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
        self.fusion = fusion_class(config)
        if config.freeze_feature_encoder:
            self.freeze_feature_encoder()
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in [`PreTrainedModel`]; loading makes new parameters, so the frozen ones are frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.freeze_feature_encoder:
            model.freeze_feature_encoder()
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
        labels: torch.Tensor | None = None,
        output_attentions: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> RsaCfnOutput:
        """
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Waveforms at the sampling rate of the audio backbone (16 kHz), normalised as its feature extractor does.
            audio_attention_mask (`torch.LongTensor` of shape `(batch_size, num_samples)`, *optional*):
                1 for samples of the clip, 0 for padding at its end. All ones when left out.
            input_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`):
                Tokens of the transcripts, padded at the end.
            attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for tokens of the transcript, 0 for padding. All ones when left out.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Class indices; a row with -100 has no part in the loss.
            output_attentions (`bool`, defaults to `False`):
                Return the attention maps of the fusion.
            num_items_in_batch (`torch.LongTensor` or `int`, *optional*):
                The number of labelled rows in the optimiser step, over accumulated batches and processes; given by
                the Trainer. The loss is a sum over it, so that accumulation changes nothing.
        """
        audio_embeds = text_embeds = None
        if self.audio_model is not None:
            audio_embeds = self.get_audio_features(input_values, audio_attention_mask)  # (B, A)
        if self.text_model is not None:
            text_embeds = self.get_text_features(input_ids, attention_mask)  # (B, T)
        logits, attentions = self.fusion(audio_embeds, text_embeds, output_attentions)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, num_items_in_batch)
        return RsaCfnOutput(
            loss=loss,
            logits=logits,
            audio_embeds=audio_embeds,
            text_embeds=text_embeds,
            attentions=attentions if output_attentions else None,
        )

    def loss_function(self, logits, labels, num_items_in_batch=None):
        """Cross entropy in float32: the sum over labelled rows, divided by `num_items_in_batch` or their number."""
        if num_items_in_batch is None:
            num_items_in_batch = (labels != -100).sum().clamp(min=1)
        elif torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(logits.device)
        return F.cross_entropy(logits.float(), labels.to(logits.device), reduction="sum") / num_items_in_batch

    def get_audio_features(
        self, input_values: torch.Tensor, audio_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Pooled audio, `(batch_size, audio_hidden_size)`, of waveforms and their mask, `(batch_size, num_samples)`.

        A clip shorter than the receptive field of the feature encoder counts as one frame of itself and silence.
        """
        if input_values is None:
            raise ValueError(f"input_values is missing; fusion={self.config.fusion!r} reads audio.")
        if audio_attention_mask is None:
            audio_attention_mask = torch.ones_like(input_values, dtype=torch.long)
        shortest = self.config.audio_receptive_field
        missing_samples = max(shortest - input_values.shape[1], 0)
        input_values = F.pad(input_values, (0, missing_samples)).to(self.dtype)
        if not self.config.mask_padding:
            hidden_states = self.audio_model(input_values).last_hidden_state  # (B, frames, A)
            counts = torch.ones_like(hidden_states[..., 0])
        else:
            lengths = audio_attention_mask.sum(dim=1, keepdim=True).clamp(min=shortest)  # (B, 1)
            positions = torch.arange(input_values.shape[1], device=input_values.device)
            audio_attention_mask = (positions < lengths).long()  # (B, samples)
            with valid_samples(lengths):
                hidden_states = self.audio_model(input_values, attention_mask=audio_attention_mask).last_hidden_state
            counts = self.audio_model._get_feature_vector_attention_mask(hidden_states.shape[1], audio_attention_mask)
        return pool(hidden_states, counts, self.config.pooling_mode).to(self.dtype)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Pooled text, `(batch_size, text_hidden_size)`, of tokens and their mask, `(batch_size, num_tokens)`.

        With `mask_padding=False` every row is pooled over `max_text_tokens` positions. All its padded positions share
        one hidden state (RoBERTa gives them one position, and the encoder has no dropout), so a single pad token
        is encoded and counted as often as it would have stood there.
        """
        if input_ids is None:
            raise ValueError(f"input_ids is missing; fusion={self.config.fusion!r} reads text.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        counts = attention_mask
        if not self.config.mask_padding:
            lengths = attention_mask.sum(dim=1)  # (B,)
            width = min(int(lengths.max()) + 1, self.config.max_text_tokens)
            pads = max(width - input_ids.shape[1], 0)
            input_ids = F.pad(input_ids, (0, pads), value=self.config.text_config.pad_token_id)[:, :width]
            attention_mask = F.pad(attention_mask, (0, pads))[:, :width]  # (B, width)
            counts = attention_mask.clone()
            counts[:, -1] += self.config.max_text_tokens - lengths
        hidden_states = self.text_model(input_ids, attention_mask=attention_mask).last_hidden_state  # (B, S, T)
        return pool(hidden_states, counts, self.config.pooling_mode).to(self.dtype)


for auto_class in ("AutoModel", "AutoModelForAudioClassification", "AutoModelForSequenceClassification"):
    RsaCfnForSequenceClassification.register_for_auto_class(auto_class)

__all__ = ["RsaCfnForSequenceClassification", "RsaCfnOutput", "RsaCfnPreTrainedModel"]
