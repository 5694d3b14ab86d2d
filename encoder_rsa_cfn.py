"""The backbones of RSA-CFN, as it uses them: statistics that leave padding out, and pooling over time."""

from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


# Set around a call of the audio backbone, whose feature encoder is handed the waveforms and nothing else.
_num_samples: ContextVar[torch.Tensor | None] = ContextVar("num_samples", default=None)


@contextmanager
def valid_samples(num_samples: torch.Tensor):
    """Inside, a [`MaskedGroupNormConvLayer`] sees `num_samples`, `(batch_size, 1)`: samples of a clip, not padding."""
    token = _num_samples.set(num_samples)
    try:
        yield
    finally:
        _num_samples.reset(token)


def conv_output_lengths(lengths, kernels, strides):
    """Frames that convolutions of these kernels and strides make of `lengths` samples (a number or a tensor)."""
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def rows_of_similar_length(lengths: torch.Tensor, largest_waste: float = 0.1) -> list[torch.Tensor]:
    """
    Divide a batch so that padding is at most this share of each part.

    Args:
        lengths (`torch.Tensor` of shape `(batch_size,)`): Of the rows.

    Returns:
        Indices of the rows of each part, longest first.
    """
    parts, first, total = [], 0, 0
    order = lengths.argsort(descending=True, stable=True)
    for position, length in enumerate(ordered := lengths[order].tolist()):
        if total + length < (1 - largest_waste) * ordered[first] * (position - first + 1):
            parts.append(order[first:position])
            first, total = position, 0
        total += length
    return [*parts, order[first:]]


def masks_time(audio_config) -> bool:
    """Whether SpecAugment puts its learned mask over stretches of time in training."""
    # data2vec-audio has no such field, and augments.
    return getattr(audio_config, "apply_spec_augment", True) and audio_config.mask_time_prob > 0


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
        # From the first frame on, since silence is all one value, and the rounding of its mean would be scaled up.
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
        return super().__call__(hidden_states, _num_samples.get())

    def forward(self, hidden_states, num_samples=None):
        """Waveforms `(batch_size, 1, num_samples)` → features `(batch_size, channels, frames)`."""
        hidden_states = self.conv(hidden_states)  # (B, channels, frames)
        if num_samples is None:
            hidden_states = self.layer_norm(hidden_states)
        else:
            num_frames = conv_output_lengths(num_samples, self.conv.kernel_size, self.conv.stride)  # (B, 1)
            hidden_states = masked_group_norm(hidden_states, self.layer_norm, num_frames)
        return self.activation(hidden_states)


def mask_group_norm(audio_model: nn.Module):
    """Put a [`MaskedGroupNormConvLayer`] into a backbone of the "group" family; leave the "layer" family alone."""
    conv_layers = audio_model.feature_extractor.conv_layers
    if isinstance(conv_layers[0].layer_norm, nn.GroupNorm):
        conv_layers[0] = MaskedGroupNormConvLayer(conv_layers[0])


def freeze_lowest_layers(backbone: nn.Module, num_layers: int):
    """
    Freeze the lowest `num_layers` transformer layers of a backbone and everything below them, embeddings or feature
    encoder and projection included, so that no gradient is computed there at all.
    """
    stacks = (item for item in backbone.named_modules() if item[0].rpartition(".")[2] in ("layer", "layers"))
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


def weigh_layers(layers: tuple[torch.Tensor, ...], layer_weights: torch.Tensor) -> torch.Tensor:
    """
    Sum of the hidden states of all layers, weighted by a softmax, as in SUPERB (https://arxiv.org/abs/2105.01051).

    Args:
        layers (`tuple` of `torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): Lowest first.
        layer_weights (`torch.Tensor` of shape `(num_layers,)`): Before the softmax.
    """
    # Added up one by one, because a stack would be a second copy of all the layers.
    return sum(weight.to(layer.dtype) * layer for weight, layer in zip(layer_weights.softmax(dim=0), layers))


def clear_missing_rows(hidden_states: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Zeros for the states `(batch_size, sequence_length, hidden_size)` of the rows where nothing counts."""
    return hidden_states.masked_fill((counts == 0).all(dim=1)[:, None, None], 0.0)


def as_hidden_states(embeds: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Features that were computed earlier, as an encoder gives them; a pooled vector is one position, which pools to
    itself.

    Args:
        embeds (`torch.Tensor` of shape `(batch_size, hidden_size)` or `(batch_size, sequence_length, hidden_size)`):
            Pooled vectors, or hidden states.
        mask (`torch.Tensor` of shape `(batch_size, 1)` or `(batch_size, sequence_length)`, *optional*):
            How often each position counts, as [`pool`] takes it; all ones when left out.

    Returns:
        Hidden states `(batch_size, sequence_length, hidden_size)` and how often each of them counts.
    """
    hidden_states = embeds.unsqueeze(1) if embeds.dim() == 2 else embeds
    if mask is None:
        mask = torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
    return hidden_states, mask


def drop_modalities(
    audio_counts: torch.Tensor, text_counts: torch.Tensor, probability: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Take at most one modality from each row: audio with half of `probability`, text with the other half.

    Args:
        audio_counts (`torch.Tensor` of shape `(batch_size, frames)`), text_counts (`torch.Tensor` of shape
            `(batch_size, tokens)`): As [`pool`] takes them. A row that has only one modality keeps it.
        probability (`float`): Of losing a modality, for each row independently.

    Returns:
        Both counts, zeros where a row lost the modality.
    """
    has_both = (audio_counts != 0).any(dim=1) & (text_counts != 0).any(dim=1)  # (B,)
    draw = torch.rand(has_both.shape, device=has_both.device)
    lost_audio = has_both & (draw < probability / 2)
    lost_text = has_both & (draw >= probability / 2) & (draw < probability)
    return audio_counts.masked_fill(lost_audio[:, None], 0), text_counts.masked_fill(lost_text[:, None], 0)


def pool(hidden_states: torch.Tensor, counts: torch.Tensor, pooling_mode: str) -> torch.Tensor:
    """
    Pool hidden states over time.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
            States of an encoder.
        counts (`torch.Tensor` of shape `(batch_size, sequence_length)`):
            How many times each position counts: 1 or 0 under a mask, and the length of the padding where one pad
            position stands for all of it.
        pooling_mode (`str`):
            `"mean"`, `"sum"` or `"max"`.

    Returns:
        `torch.Tensor` of shape `(batch_size, hidden_size)`, at least float32: a sum over frames overflows float16.
        Zeros for a row where nothing counts.
    """
    hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    counts = counts.to(hidden_states.dtype).unsqueeze(-1)  # (B, S, 1)
    if pooling_mode == "max":
        largest = hidden_states.masked_fill(counts == 0, -torch.inf).amax(dim=1)  # (B, H)
        return largest.masked_fill((counts == 0).all(dim=1), 0.0)
    # A padded position may hold anything, NaN included, so it is cleared rather than multiplied by 0.
    summed = (hidden_states * counts).masked_fill(counts == 0, 0.0).sum(dim=1)  # (B, H)
    return summed if pooling_mode == "sum" else summed / counts.sum(dim=1).clamp(min=1)


__all__ = [
    "MaskedGroupNormConvLayer",
    "as_hidden_states",
    "clear_missing_rows",
    "conv_output_lengths",
    "drop_modalities",
    "freeze_lowest_layers",
    "mask_group_norm",
    "masked_group_norm",
    "masks_time",
    "pool",
    "rows_of_similar_length",
    "valid_samples",
    "weigh_layers",
]
