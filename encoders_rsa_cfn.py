"""The audio backbones: for each family how its inputs are named and counted, what in it would read padding, and how its
encoder is made, loaded and frozen."""

import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoderLayer
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils.output_capturing import capture_outputs


# The share of a part of a batch, divided by length, that may be padding.
LARGEST_WASTE = 0.1
EPSILON = 1e-12
# A backbone hands its convolutions nothing but hidden states, so the lengths of the inputs come by this way.
_lengths: ContextVar[torch.Tensor | None] = ContextVar("lengths", default=None)
# Of the clips that stand one behind the other in one row: samples and frames.
_clips: ContextVar[tuple[list[int], list[int]] | None] = ContextVar("clips", default=None)


@contextmanager
def told(variable: ContextVar, value):
    """A context in which layers within the backbone find this value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def valid_lengths(lengths: torch.Tensor | None):
    """A context that tells layers within the backbone how much of each row of its inputs is no padding, `(B, 1)`."""
    return told(_lengths, lengths)


def packed(num_samples: list[int], num_frames: list[int]):
    """A context that tells a backbone of clips in one row, without padding, where each of them ends."""
    return told(_clips, (num_samples, num_frames))


def conv_output_lengths(lengths, kernels, strides):
    """Frames that convolutions of these kernels and strides make of `lengths` samples (a number or a tensor)."""
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def rows_of_similar_length(lengths: torch.Tensor) -> list[torch.Tensor]:
    """
    Divide a batch so that padding is at most `LARGEST_WASTE` of each part.

    Args:
        lengths (`torch.Tensor` of shape `(batch_size,)`): Of the rows.

    Returns:
        Indices of the rows of each part, longest first.
    """
    parts, first, total = [], 0, 0
    order = lengths.argsort(descending=True, stable=True)
    for position, length in enumerate(ordered := lengths[order].tolist()):
        if total + length < (1 - LARGEST_WASTE) * ordered[first] * (position - first + 1):
            parts.append(order[first:position])
            first, total = position, 0
        total += length
    return [*parts, order[first:]]


class Int8Linear(nn.Module):
    """
    A linear layer that a CPU multiplies in 8 bits, for inference: weights are rounded for each output, inputs for each
    position, so that a row is the same beside any other.

    Args:
        linear (`nn.Linear`): In float32.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        # Without VNNI a processor adds up two products in 16 bits, which are too few for weights of 8.
        largest = 127 if any("vnni" in name and has for name, has in torch.cpu.get_capabilities().items()) else 63
        weight = linear.weight.detach()
        self.bias = linear.bias
        self.scales = weight.abs().amax(dim=1).clamp(min=EPSILON) / largest  # (out_features,)
        rounded = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros_like(self.scales, dtype=torch.int32)

    def forward(self, hidden_states):
        scales = hidden_states.abs().amax(dim=-1, keepdim=True).clamp(min=EPSILON) / 127  # (B, S, 1)
        rounded = (hidden_states / scales).round_().add_(128).to(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 128, self.weight, self.scales, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )  # (B, S, out_features)
        return products.mul_(scales) if self.bias is None else torch.addcmul(self.bias, products, scales)

    def _save_to_state_dict(self, *args):
        raise ValueError("A model that was put in int8 can't be saved; save it before.")


def round_layers(backbone: nn.Module) -> int:
    """Make [`Int8Linear`] of the linear layers of an encoder but for those of its lowest layer, whose errors all others
    would add to; how many they were."""
    found = [name for name, module in backbone.named_modules() if type(module) is nn.Linear]
    found = [name for name in found if re.search(r"\blayers?\.[1-9]", name)]
    for name in found:
        backbone.set_submodule(name, Int8Linear(backbone.get_submodule(name)))
    return len(found)


def masked_group_norm(hidden_states: torch.Tensor, norm: nn.GroupNorm, num_frames: torch.Tensor) -> torch.Tensor:
    """
    Group norm of one channel a group, with mean and variance over the valid frames alone, in float32 at least.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, channels, frames)`):
            Output of a convolution; what follows the valid frames has no effect.
        norm (`nn.GroupNorm`):
            Weight, bias and epsilon.
        num_frames (`torch.Tensor` of shape `(batch_size, 1)`):
            Valid frames of each row, at least 1.

    Returns:
        `torch.Tensor` of shape `(batch_size, channels, frames)`; frames that aren't valid hold the bias.
    """
    with torch.autocast(hidden_states.device.type, enabled=False):
        x = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        num_frames = num_frames.unsqueeze(-1)  # (B, 1, 1)
        padding = torch.arange(x.shape[-1], device=x.device) >= num_frames  # (B, 1, frames)
        # Relative to the first frame: silence is one value throughout, and the rounding of its mean would be scaled up.
        shifted = (x - x[..., :1]).masked_fill(padding, 0.0)  # (B, channels, frames)
        mean = shifted.sum(dim=-1, keepdim=True) / num_frames  # (B, channels, 1)
        centred = (shifted - mean).masked_fill(padding, 0.0)  # (B, channels, frames)
        variance = centred.square().sum(dim=-1, keepdim=True) / num_frames  # (B, channels, 1)
        scale = norm.weight.to(x.dtype)[:, None] * (variance + norm.eps).rsqrt()  # (B, channels, 1)
        return (centred * scale + norm.bias.to(x.dtype)[:, None]).to(hidden_states.dtype)


class MaskedGroupNormConvLayer(GradientCheckpointingLayer):
    """
    The first layer of a "group" feature encoder (wav2vec2-base, HuBERT-base, WavLM-base) without its padding.

    The library's layer takes its statistics over time, padding included, so a clip's features depend on the clips it
    is batched with. This one is made of the same modules under the same names; checkpoints are interchangeable.

    Args:
        layer (`nn.Module`): The library's layer: `conv`, `layer_norm` (a group norm) and `activation`.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.conv = layer.conv
        self.layer_norm = layer.layer_norm
        self.activation = layer.activation

    def __call__(self, hidden_states):
        # An argument, so that activation checkpointing recomputes with the lengths of this call, not a later one.
        return super().__call__(hidden_states, _lengths.get())

    def forward(self, hidden_states, num_samples=None):
        """Waveforms `(batch_size, 1, num_samples)` → features `(batch_size, channels, frames)`."""
        hidden_states = self.conv(hidden_states)  # (B, channels, frames)
        if num_samples is None:
            hidden_states = self.layer_norm(hidden_states)
        else:
            num_frames = conv_output_lengths(num_samples, self.conv.kernel_size, self.conv.stride)  # (B, 1)
            hidden_states = masked_group_norm(hidden_states, self.layer_norm, num_frames)
        return self.activation(hidden_states)


class MaskedConformerLayer(Wav2Vec2ConformerEncoderLayer):
    """A layer of wav2vec2-conformer that knows the lengths of its rows when it is recomputed, too."""

    def __call__(self, hidden_states, **kwargs):
        return super().__call__(hidden_states, lengths=_lengths.get(), **kwargs)

    def forward(self, hidden_states, lengths=None, **kwargs):
        with valid_lengths(lengths):
            return super().forward(hidden_states, **kwargs)


class WhisperAudioEncoder(WhisperEncoder):
    """
    Whisper's encoder on clips as long as they are: the positions end with the longest of the batch, and padding is
    masked. Whisper's own runs on 30 s. SpecAugment isn't part of the encoder.
    """

    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^(proj_out|projector|classifier|layer_weights)"]

    @capture_outputs
    def forward(self, input_features, attention_mask=None, **kwargs) -> BaseModelOutput:
        """Log-mel spectrograms, zeros where padded, `(batch_size, num_frames, num_mel_bins)` and their mask
        `(batch_size, num_frames)` → states `(batch_size, frames, hidden_size)`, two frames of the input to one."""
        if input_features.shape[1] > 2 * self.max_source_positions:
            raise ValueError(
                f"A clip of {input_features.shape[1] / 100:g} s is longer than what model_type='whisper' has positions "
                f"for; give at most {self.max_source_positions / 50:g} s."
            )
        hidden_states = F.gelu(self.conv1(input_features.transpose(1, 2)))  # (B, H, num_frames)
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.unsqueeze(1).to(hidden_states.dtype)
            attention_mask = attention_mask[:, ::2]  # (B, frames)
        hidden_states = F.gelu(self.conv2(hidden_states)).transpose(1, 2)  # (B, frames, H)
        hidden_states = hidden_states + self.embed_positions.weight[: hidden_states.shape[1]]
        hidden_states = F.dropout(hidden_states, p=self.dropout, training=self.training)
        attention_mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
        for layer in self.layers:
            if not (self.training and self.layerdrop > 0 and torch.rand([]) < self.layerdrop):
                hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden_states))


class CalledWavLMAttention(WavLMAttention):
    """The library's hands the weights of its layers to torch, past whatever stands in their place (LoRA, int8)."""

    def torch_multi_head_self_attention(self, hidden_states, attention_mask, gated_position_bias):
        shape = (*hidden_states.shape[:2], self.num_heads, self.head_dim)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (layer(hidden_states).view(shape).transpose(1, 2) for layer in layers)  # (B, heads, S, D)
        bias = gated_position_bias.unflatten(0, (-1, self.num_heads)).to(query.dtype)  # (B, heads, S, S)
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask.ne(1)[:, None, None], -torch.inf)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, bias, dropout)  # (B, heads, S, D)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


class FeaturesByClip:
    """A feature encoder that sees each of the clips in a row by itself."""

    def forward(self, input_values):
        if _clips.get() is None:
            return super().forward(input_values)
        features = []
        for clip in input_values.split(_clips.get()[0], dim=1):
            # A group norm by itself refuses a clip of one frame.
            with valid_lengths(torch.tensor([[clip.shape[1]]], device=clip.device)):
                features.append(super().forward(clip))
        return torch.cat(features, dim=2)  # (1, channels, all frames)


class PositionsByClip:
    """Convolutions over the frames of each of the clips in a row by itself."""

    def forward(self, hidden_states):
        if _clips.get() is None:
            return super().forward(hidden_states)
        positions = [super(PositionsByClip, self).forward(clip) for clip in hidden_states.split(_clips.get()[1], dim=1)]
        return torch.cat(positions, dim=1)  # (1, all frames, H)


class LayerByClip:
    """A layer that knows the frames of its clips when it is recomputed, too."""

    def __call__(self, hidden_states, **kwargs):
        clips = _clips.get()
        return super().__call__(hidden_states, **kwargs, **({} if clips is None else {"clips": clips[1]}))


class AttentionByClip:
    """Attention within each of the clips in a row, `clips` frames each."""

    def forward(self, hidden_states, clips=None, **kwargs):
        if clips is None:
            return super().forward(hidden_states, **kwargs)
        shape, dropout = (*hidden_states.shape[:2], -1, self.head_dim), self.dropout if self.training else 0.0
        states = (layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        states = zip(*(each.split(clips, dim=2) for each in states))  # (1, heads, frames, D) each
        attended = [F.scaled_dot_product_attention(*clip, dropout_p=dropout) for clip in states]
        return self.out_proj(torch.cat(attended, dim=2).transpose(1, 2).flatten(2)), None


@cache
def by_clip(way: type, library_class: type) -> type:
    """A module's class with one of these four ways before its own, under its own name."""
    return type(library_class.__name__, (way, library_class), {})


class Waveforms:
    """
    wav2vec2 and its kin: convolutions over samples, the feature encoder, and layers over the frames that they make.

    Args:
        config (`PretrainedConfig`): Of the backbone.
    """

    input_name = "input_values"
    input_shape = ()  # of one step of the input
    samples_per_step = 1
    feature_encoder = ("feature_extractor",)
    encoder_class, renamed = AutoModel, None
    layerdrop_field = "layerdrop"
    # Of the module that made the encoder: a model from the Hub may have a configuration of another copy of this code.
    valid_lengths, packed = staticmethod(valid_lengths), staticmethod(packed)

    def __init__(self, config):
        self.config = config
        convolutions = (config.conv_kernel, config.conv_stride) if self.input_name == "input_values" else ((), ())
        self.kernels, self.strides = convolutions
        self.num_adapter_layers = config.num_adapter_layers if getattr(config, "add_adapter", False) else 0
        self.shortest = 1  # input that gives a frame, which is what that frame sees: 400 samples for wav2vec2
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides)):
            self.shortest = (self.shortest - 1) * stride + kernel
        # Whether SpecAugment masks time in training. data2vec-audio has no such field, and augments.
        self.masks_time = getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0
        # Whether clips can stand one behind the other in a row; of its channels SpecAugment masks the same throughout.
        self.can_pack = config.model_type in PACKED_TYPES and not self.num_adapter_layers + config.mask_feature_prob

    def input_length(self, num_samples: int) -> int:
        """The most steps of input that a clip of so many samples at 16 kHz becomes."""
        return -(-num_samples // self.samples_per_step)

    def num_frames(self, lengths, num_adapter_layers: int | None = None):
        """Hidden states of inputs of these lengths (a number or a tensor), behind so many layers of an adapter."""
        frames = conv_output_lengths(lengths, self.kernels, self.strides)
        for _ in range(self.num_adapter_layers if num_adapter_layers is None else num_adapter_layers):
            frames = conv_output_lengths(frames + 2, [self.config.adapter_kernel_size], [self.config.adapter_stride])
        return frames

    def draw_time_masks(self, num_frames: torch.Tensor) -> torch.Tensor:
        """The frames that SpecAugment masks of clips of so many, `(B,)` → `(1, all frames)`, as of a padded batch."""
        is_frame = torch.arange(int(num_frames.max()), device=num_frames.device) < num_frames[:, None]  # (B, frames)
        masked, config = torch.zeros_like(is_frame), self.config
        if masked.shape[1] >= config.mask_time_length:  # it refuses clips of fewer frames than one of its masks
            spans = (config.mask_time_prob, config.mask_time_length)
            drawn = _compute_mask_indices(masked.shape, *spans, is_frame.long(), config.mask_time_min_masks)
            masked = torch.from_numpy(drawn).to(is_frame.device)
        return masked[is_frame][None]

    def make(self) -> nn.Module:
        """The encoder, with random weights."""
        encoder = AutoModel.from_config(self.config)
        for layer in encoder.modules():
            if isinstance(layer, WavLMAttention):
                layer.__class__ = CalledWavLMAttention
        if self.can_pack:
            modules = {encoder.feature_extractor: FeaturesByClip, encoder.encoder.pos_conv_embed: PositionsByClip}
            for layer in encoder.encoder.layers:
                modules |= {layer: LayerByClip, layer.attention: AttentionByClip}
            for module, way in modules.items():
                module.__class__ = by_clip(way, type(module))
        return encoder

    def load(self, name: str, **kwargs) -> tuple[nn.Module, dict]:
        """The encoder of a checkpoint; `kwargs` are those of `from_pretrained`."""
        return self.encoder_class.from_pretrained(name, config=self.config, key_mapping=self.renamed, **kwargs)

    def mask_padding(self, encoder: nn.Module):
        """Keep from padding whatever in the encoder its attention mask doesn't."""
        conv_layers = encoder.feature_extractor.conv_layers
        if isinstance(conv_layers[0].layer_norm, nn.GroupNorm):
            conv_layers[0] = MaskedGroupNormConvLayer(conv_layers[0])
        positions = encoder.encoder.pos_conv_embed
        if hasattr(positions, "layers"):  # data2vec-audio's, one after the other
            self._clear_padding(positions.layers)
        elif getattr(positions, "batch_norm", None) is not None:  # of some HuBERTs
            positions.batch_norm.register_forward_pre_hook(_hold_statistics)
            self._clear_padding([positions.conv])
        for layer in encoder.encoder.modules():
            if isinstance(layer, Wav2Vec2ConformerEncoderLayer):
                layer.__class__ = MaskedConformerLayer
                layer.conv_module.batch_norm.register_forward_pre_hook(_hold_statistics)
                self._clear_padding([layer.conv_module.depthwise_conv])
        self._mask_adapter(encoder)

    def _mask_adapter(self, encoder):
        if self.num_adapter_layers:
            encoder.adapter.layerdrop = 0.0  # a layer that is left out would leave out its stride
            for number, layer in enumerate(encoder.adapter.layers):
                self._clear_padding((module for module in layer.modules() if isinstance(module, nn.Conv1d)), number)

    def _clear_padding(self, convolutions, num_adapter_layers=0):
        """Have convolutions over frames read zeros where the padding is, as at the end of a clip by itself."""
        hook = partial(_cleared, partial(self.num_frames, num_adapter_layers=num_adapter_layers))
        for convolution in convolutions:
            convolution.register_forward_pre_hook(hook)

    def freeze_feature_encoder(self, encoder: nn.Module):
        """Keep the convolutions below the layers from training; without any, do nothing."""
        for name in self.feature_encoder:
            getattr(encoder, name).requires_grad_(False)._requires_grad = False  # no gradient of the input either

    def freeze_fixed(self, encoder: nn.Module):
        """Freeze what never trains."""
        if hasattr(encoder, "masked_spec_embed") and not self.masks_time:
            encoder.masked_spec_embed.requires_grad = False
        if self.config.model_type == "wav2vec2-conformer":
            encoder.encoder.pos_conv_embed.requires_grad_(False)  # it has other positions, and doesn't run these


def _hold_statistics(norm, inputs):
    norm.eval()  # the statistics of a batch would count its padding


def _cleared(num_frames, convolution, inputs):
    hidden_states, lengths = inputs[0], _lengths.get()  # (B, channels, frames), (B, 1)
    if lengths is None:
        return None
    padding = torch.arange(hidden_states.shape[-1], device=hidden_states.device) >= num_frames(lengths)  # (B, frames)
    return hidden_states.masked_fill(padding.unsqueeze(1), 0.0)


class Filterbanks(Waveforms):
    """w2v-BERT 2.0: layers over filterbanks, two frames of 10 ms to one step of the input."""

    input_name = "input_features"
    input_shape = property(lambda self: (self.config.feature_projection_input_dim,))
    samples_per_step = 320
    feature_encoder = ()

    def mask_padding(self, encoder):
        self._mask_adapter(encoder)


class Whisper(Filterbanks):
    """Whisper's encoder: two convolutions over log-mel spectrograms of 10 ms to a frame, and layers."""

    input_shape = property(lambda self: (self.config.num_mel_bins,))
    samples_per_step = 160
    feature_encoder = ("conv1", "conv2")
    encoder_class, renamed = WhisperAudioEncoder, {r"^(model\.)?encoder\.": ""}
    layerdrop_field = "encoder_layerdrop"

    def __init__(self, config):
        self.config = config
        self.num_adapter_layers, self.shortest, self.masks_time, self.can_pack = 0, 1, False, False

    def num_frames(self, lengths, num_adapter_layers=0):
        return (lengths + 1) // 2

    def make(self):
        return WhisperAudioEncoder._from_config(self.config)

    def freeze_fixed(self, encoder):
        encoder.embed_positions.requires_grad_(False)


def freeze_lowest_layers(backbone: nn.Module, num_layers: int):
    """
    Freeze the lowest `num_layers` transformer layers of a backbone and everything below them, embeddings or feature
    encoder and projection included, so that no gradient is computed there at all.
    """
    # data2vec-audio has layers of positions before its own.
    names = re.compile(r"(?!.*pos_conv_embed)(.*\.)?layers?")
    stacks = (item for item in backbone.named_modules() if names.fullmatch(item[0]))
    stack_name, layers = next(stacks, (None, None))
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(
            f"model_type={backbone.config.model_type!r} has no layers of its own to freeze {num_layers} of; give 0."
        )
    layers[:num_layers].requires_grad_(False)
    config = backbone.config
    norm_is_last = getattr(config, "do_stable_layer_norm", False) or "conformer" in config.model_type
    for name, parameter in backbone.named_parameters():
        if name.startswith(f"{stack_name}."):
            break
        # Some encoders list the norm that follows their layers before them.
        if not (norm_is_last and name.startswith("encoder.layer_norm.")):
            parameter.requires_grad = False


PACKED_TYPES = ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2")
WAVEFORM_TYPES = (*PACKED_TYPES, "wav2vec2-conformer", "wavlm")
AUDIO_FAMILIES = {**dict.fromkeys(WAVEFORM_TYPES, Waveforms), "wav2vec2-bert": Filterbanks, "whisper": Whisper}


def audio_family(config) -> Waveforms:
    """The family of a backbone's configuration, found by its `model_type`; a `ValueError` if it has none."""
    if config.model_type not in AUDIO_FAMILIES:
        raise ValueError(
            f"audio_config.model_type={config.model_type!r} is no audio encoder that is read here; give one of "
            f"{', '.join(sorted(AUDIO_FAMILIES))}."
        )
    return AUDIO_FAMILIES[config.model_type](config)
