"""The fusions of RSA-CFN: encoded audio and encoded text → logits, a class each."""

import torch
import torch.nn.functional as F
from torch import nn


try:
    from .attention_rsa_cfn import ScalarSelfAttention
    from .cross_network_rsa_cfn import CrossNetwork, CrossResidual, LowRankCrossNetwork
except ImportError:
    if __package__:
        raise
    from attention_rsa_cfn import ScalarSelfAttention
    from cross_network_rsa_cfn import CrossNetwork, CrossResidual, LowRankCrossNetwork


class LogitsNorm(nn.LayerNorm):
    """LayerNorm over the C logits of a row, in float32: half precision knows the variance of so few values poorly."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` of shape `(..., num_labels)` → the same shape in the dtype of the weight, also under autocast."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            return F.layer_norm(logits.to(dtype), self.normalized_shape, weight, bias, self.eps).to(self.weight.dtype)


class Fusion(nn.Module):
    """
    What every fusion has in common.

    `forward(audio, text, output_attentions=False)` returns logits of shape `(batch_size, num_labels)` and a tuple of
    attention maps, empty unless asked for. Concatenations have audio first.

    Attributes:
        modalities (`tuple[str]`): What the fusion reads; the model has no encoder for the rest.
        reads_pooled (`bool`): Each modality comes as its pooled vector, `(batch_size, hidden_size)`; otherwise as a
            pair, its hidden states `(batch_size, length, hidden_size)` and how often each of them counts,
            `(batch_size, length)`.
    """

    modalities = ("audio", "text")
    reads_pooled = True


class AudioClassifier(Fusion):
    """Audio alone: a → dropout → Linear(A, A) → tanh → dropout → Linear(A, C)."""

    modalities = ("audio",)

    def __init__(self, config):
        super().__init__()
        audio_size = config.audio_config.hidden_size
        self.dropout = nn.Dropout(config.audio_config.final_dropout)
        self.dense = nn.Linear(audio_size, audio_size)
        self.classifier = nn.Linear(audio_size, config.num_labels)

    def forward(self, audio_embeds, text_embeds=None, output_attentions=False):
        """Audio `(batch_size, A)` → logits `(batch_size, num_labels)`, no attention maps."""
        hidden_states = torch.tanh(self.dense(self.dropout(audio_embeds)))  # (B, A)
        return self.classifier(self.dropout(hidden_states)), ()


class TextClassifier(Fusion):
    """Text alone: LayerNorm(t) → Linear(T, C)."""

    modalities = ("text",)

    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.text_config.hidden_size)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        return self.classifier(self.norm(text_embeds)), ()


class EarlyFusion(Fusion):
    """Concatenation: z = LayerNorm([a; t]) → Linear(A + T, C)."""

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.classifier = nn.Linear(size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        return self.classifier(self.norm(torch.cat([audio_embeds, text_embeds], dim=1))), ()


class LateFusion(Fusion):
    """A classifier for each modality: the mean of LN_C(Linear(A, C)(a)) and LN_C(Linear(T, C)(t)), one norm shared."""

    def __init__(self, config):
        super().__init__()
        self.audio_classifier = nn.Linear(config.audio_config.hidden_size, config.num_labels)
        self.text_classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)
        self.norm = LogitsNorm(config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        audio_logits = self.norm(self.audio_classifier(audio_embeds))  # (B, C)
        text_logits = self.norm(self.text_classifier(text_embeds))  # (B, C)
        return (audio_logits + text_logits) / 2, ()


class MixerMlp(nn.Module):
    """Linear(n, n) → GELU → Linear(n, n) → dropout over the last axis."""

    def __init__(self, size: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.output = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` and the result are of shape `(..., size)`."""
        return self.dropout(self.output(F.gelu(self.dense(features))))


class MlpMixerFusion(Fusion):
    """
    An MLP that mixes the positions of both modalities, then one that mixes their channels.

    Text is projected to M channels and padded to `max_text_tokens` positions; audio is projected and padded to
    `max_audio_frames`; the two are joined, text first, to S positions. One block, whose two steps share a norm:
    y = MLP_tokens(LN(x)ᵀ)ᵀ, x + y + MLP_channels(LN(y)); the channels mix y alone, unlike the block of the MLP-Mixer
    paper. Then LayerNorm → mean over positions → dropout → Linear(M, K) → GELU → dropout → Linear(K, C).

    With `mask_padding=True` a padded position holds zeros after the projection and has no part in the mean. With
    `mask_padding=False`, as in the original, it holds what the encoder made of the padding, every position behind the
    longest clip of the batch holds zeros, and all S positions are averaged.
    """

    reads_pooled = False

    def __init__(self, config):
        super().__init__()
        self.mask_padding = config.mask_padding
        self.max_text_tokens = config.max_text_tokens
        self.max_audio_frames = config.max_audio_frames
        size = config.mixer_size
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, size)
        self.text_projection = nn.Linear(config.text_config.hidden_size, size)
        self.block_norm = nn.LayerNorm(size)
        self.token_mlp = MixerMlp(config.max_text_tokens + config.max_audio_frames, config.mixer_dropout)
        self.channel_mlp = MixerMlp(size, config.mixer_dropout)
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.mixer_dropout)
        self.dense = nn.Linear(size, config.mixer_classifier_size)
        self.classifier = nn.Linear(config.mixer_classifier_size, config.num_labels)

    def forward(self, audio, text, output_attentions=False):
        """
        Audio, `(batch_size, frames, A)` with counts `(batch_size, frames)`, and text, `(batch_size, num_tokens, T)`
        with counts `(batch_size, num_tokens)` → logits `(batch_size, num_labels)`, no attention maps.

        Raises:
            ValueError: A clip has more than `max_audio_frames` frames, or a transcript more than `max_text_tokens`
                tokens.
        """
        if not self.mask_padding:
            text = self._repeat_padding(*text)
        text_tokens, text_valid = self._pad("max_text_tokens", self.text_projection, *text)
        audio_tokens, audio_valid = self._pad("max_audio_frames", self.audio_projection, *audio)
        tokens = torch.cat([text_tokens, audio_tokens], dim=1)  # (B, S, M)
        valid = torch.cat([text_valid, audio_valid], dim=1)  # (B, S)
        mixed = self.token_mlp(self.block_norm(tokens).transpose(1, 2)).transpose(1, 2)  # (B, S, M)
        tokens = tokens + mixed + self.channel_mlp(self.block_norm(mixed))
        tokens = self.norm(tokens) * valid.unsqueeze(-1)
        # The sum over hundreds of positions runs in float32, whatever autocast made of them.
        dtype = torch.promote_types(self.norm.weight.dtype, torch.float32)
        pooled = tokens.sum(dim=1, dtype=dtype) / valid.sum(dim=1, keepdim=True).clamp(min=1)  # (B, M)
        hidden_states = F.gelu(self.dense(self.dropout(pooled.to(self.norm.weight.dtype))))  # (B, K)
        return self.classifier(self.dropout(hidden_states)), ()

    def _repeat_padding(self, hidden_states, counts):
        """
        The state that stands for all the padding of its row, as often as it counts: `(batch_size, max_text_tokens, T)`,
        and the mask of the positions that are filled: all, or none in a row without text.
        """
        positions = torch.arange(self.max_text_tokens, device=counts.device)
        ends = counts.cumsum(dim=1).unsqueeze(1)  # (B, 1, num_tokens)
        index = (ends <= positions[:, None]).sum(dim=2)  # (B, max_text_tokens)
        index = index.clamp(max=counts.shape[1] - 1).unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1])
        return hidden_states.gather(1, index), positions < counts.sum(dim=1, keepdim=True)

    def _pad(self, length_field: str, projection: nn.Linear, hidden_states, counts):
        """States `(batch_size, width, hidden_size)` → tokens `(batch_size, length, M)`, mask `(batch_size, length)`."""
        length, width = getattr(self, length_field), hidden_states.shape[1]
        if width > length:
            longest = int(counts.ne(0).sum(dim=1).max())
            if longest > length:
                raise ValueError(
                    f"A row of {longest} positions doesn't fit {length_field}={length}; give rows of 1 to {length} "
                    f"positions, or a model with a larger {length_field}."
                )
            hidden_states, counts = hidden_states[:, :length], counts[:, :length]
        valid = counts.ne(0)
        tokens = projection(hidden_states).masked_fill(~valid.unsqueeze(-1), 0.0)
        missing = max(length - width, 0)
        tokens = F.pad(tokens, (0, 0, 0, missing))  # (B, length, M)
        # The original averages over all positions, so there every one is valid.
        return tokens, F.pad(valid, (0, missing)) | (not self.mask_padding)


class StackFusion(Fusion):
    """
    Multi-sample dropout: z = LayerNorm([a; t]); the mean of Linear(A + T, C)(dropout(z)) over several dropout masks.

    The classifier is linear, so it runs once, on the mean of the masked copies of z.
    """

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.draws = config.multi_sample_draws
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.multi_sample_dropout)
        self.classifier = nn.Linear(size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        dropped = self.dropout(features.expand(self.draws, -1, -1))  # (draws, B, D)
        return self.classifier(dropped.mean(dim=0)), ()


class ResidualFusion(Fusion):
    """z = LayerNorm([a; t]) → residual block → Linear(A + T, C)."""

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.residual = CrossResidual(size, config.residual_size, config.residual_dropout)
        self.classifier = nn.Linear(size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        return self.classifier(self.residual(features)), ()


class ResidualSelfAttentionFusion(ResidualFusion):
    """
    z = LayerNorm([a; t]); u = SA(z), each of the D = A + T features attending to all; residual block → Linear(D, C).

    The block reads u; its skip carries z.
    """

    def __init__(self, config):
        super().__init__(config)
        self.attention = ScalarSelfAttention(config.attention_size)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """
        Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)` and, when asked for, one
        attention map `(batch_size, A + T, A + T)`.
        """
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        attended, attentions = self.attention(features, output_attentions)
        logits = self.classifier(self.residual(attended, skip=features))
        return logits, (attentions,) if output_attentions else ()


class ResidualSelfAttentionCrossFusion(Fusion):
    """
    The Residual Self-Attention Cross Fusion Network of the paper.

    Each modality is projected to P features that attend to each other beside a skip, h = LN(SA(p) + p); the cross
    features [1; h] ⊗ [1; g] pass a residual block and Linear((P + 1)², R) → ReLU → dropout → Linear(R, C). With
    `cross_fusion_rank` a [`LowRankCrossNetwork`] stands for what acts on the cross features.
    """

    def __init__(self, config):
        super().__init__()
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, config.projection_size)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_size)
        self.audio_attention = ScalarSelfAttention(config.cross_attention_size)
        self.text_attention = ScalarSelfAttention(config.cross_attention_size)
        self.audio_norm = nn.LayerNorm(config.projection_size)
        self.text_norm = nn.LayerNorm(config.projection_size)
        self.cross_network = (CrossNetwork if config.cross_fusion_rank is None else LowRankCrossNetwork)(config)
        self.dropout = nn.Dropout(config.residual_dropout)
        self.classifier = nn.Linear(config.cross_residual_size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """
        Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)` and, when asked for,
        two attention maps `(batch_size, projection_size, projection_size)`, audio first.
        """
        audio = self.audio_projection(audio_embeds)  # (B, P)
        text = self.text_projection(text_embeds)  # (B, P)
        attended_audio, audio_attentions = self.audio_attention(audio, output_attentions)
        attended_text, text_attentions = self.text_attention(text, output_attentions)
        audio = self.audio_norm(attended_audio + audio)
        text = self.text_norm(attended_text + text)
        hidden_states = self.dropout(F.relu(self.cross_network(audio, text)))  # (B, R)
        return self.classifier(hidden_states), (audio_attentions, text_attentions) if output_attentions else ()


class HybridFusion(Fusion):
    """
    The mean of the logits of `early_fusion`, `late_fusion`, `residual` and `rsa_cfn`, each behind LN_C.

    Every branch has its own weights; the four share the norm.
    """

    def __init__(self, config):
        super().__init__()
        self.early_fusion = EarlyFusion(config)
        self.late_fusion = LateFusion(config)
        self.residual_fusion = ResidualFusion(config)
        self.rsa_cfn = ResidualSelfAttentionCrossFusion(config)
        self.norm = LogitsNorm(config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """
        Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)` and, when asked for, the
        two attention maps of the `rsa_cfn` branch.
        """
        cross_logits, attentions = self.rsa_cfn(audio_embeds, text_embeds, output_attentions)  # (B, C)
        branches = (self.early_fusion, self.late_fusion, self.residual_fusion)
        logits = [cross_logits, *(branch(audio_embeds, text_embeds)[0] for branch in branches)]
        return torch.stack([self.norm(branch_logits) for branch_logits in logits]).mean(dim=0), attentions


FUSION_CLASSES = {
    "audio": AudioClassifier,
    "text": TextClassifier,
    "early_fusion": EarlyFusion,
    "late_fusion": LateFusion,
    "mlp_mixer": MlpMixerFusion,
    "stack": StackFusion,
    "residual": ResidualFusion,
    "rsa": ResidualSelfAttentionFusion,
    "rsa_cfn": ResidualSelfAttentionCrossFusion,
    "hybrid_fusion": HybridFusion,
}

__all__ = ["FUSION_CLASSES"]
