"""The fusions of RSA-CFN: pooled audio and pooled text → logits, a class each."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def cross_features(audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """
    Every product of an audio and a text feature, with the features themselves and a constant: flatten([1; h] ⊗ [1; g]).

    Args:
        audio (`torch.Tensor` of shape `(batch_size, projection_size)`): h, the slow index of the result.
        text (`torch.Tensor` of shape `(batch_size, projection_size)`): g, the fast index of the result.

    Returns:
        `torch.Tensor` of shape `(batch_size, (projection_size + 1) ** 2)`.
    """
    audio = F.pad(audio, (1, 0), value=1.0)  # (B, P + 1)
    text = F.pad(text, (1, 0), value=1.0)  # (B, P + 1)
    return (audio.unsqueeze(2) * text.unsqueeze(1)).flatten(1)  # (B, (P + 1)²)


class ScalarSelfAttention(nn.Module):
    """
    Self-attention over the scalar features of one vector: each of its N features attends to all N.

    With q_i = x_i·wq + bq and k_j = x_j·wk + bk, the terms of q_i·k_j without j cancel in the softmax, and what remains
    is s_i·x_j with s_i = (x_i (wq·wk) + bq·wk) / √H: attention of head size 1, so neither the (B, N, H) queries and
    keys nor the (B, N, N) map is built unless it is asked for. The key's bias has no effect, in this form as in the
    plain one.

    Args:
        attention_size (`int`): H, the size of queries and keys.
    """

    def __init__(self, attention_size: int):
        super().__init__()
        self.attention_size = attention_size
        self.query = nn.Linear(1, attention_size)
        self.key = nn.Linear(1, attention_size)
        self.value = nn.Linear(1, 1)

    def forward(
        self, features: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, num_features)`)
            output_attentions (`bool`, defaults to `False`): Also build the attention map.

        Returns:
            The attended features, `(batch_size, num_features)`, and the map, `(batch_size, num_features,
            num_features)`, or `None`.
        """
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(torch.promote_types(features.dtype, torch.float32))  # (B, N)
            query_weight, query_bias, key_weight, value_weight, value_bias = (
                parameter.to(x.dtype).flatten()
                for parameter in (
                    self.query.weight,
                    self.query.bias,
                    self.key.weight,
                    self.value.weight,
                    self.value.bias,
                )
            )
            scores = (x * (query_weight @ key_weight) + query_bias @ key_weight) / math.sqrt(self.attention_size)
            attentions = None
            if output_attentions:
                attentions = torch.softmax(scores.unsqueeze(2) * x.unsqueeze(1), dim=-1)  # (B, N, N)
                expected = torch.einsum("bij,bj->bi", attentions, x)  # (B, N)
            else:
                expected = self._expected_feature(scores, x)  # (B, N)
            return (value_weight * expected + value_bias).to(features.dtype), attentions

    @staticmethod
    def _expected_feature(scores: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        query, key = scores[:, None, :, None], features[:, None, :, None]  # (B, 1, N, 1)
        if features.device.type == "cuda":
            # The fused CUDA kernels want a head size divisible by 8; zeros add nothing to a product or a sum.
            query, key = F.pad(query, (0, 7)), F.pad(key, (0, 7))  # (B, 1, N, 8)
        expected = F.scaled_dot_product_attention(query, key, key, scale=1.0)
        return expected[:, 0, :, 0]  # (B, N)


class CrossResidual(nn.Module):
    """
    A two-layer block beside a skip: r = f(x), s = g([z; r]), z + s; f and g are Linear → ReLU → dropout.

    Args:
        size (`int`): Width of x, z and the result.
        residual_size (`int`): Width of r.
        dropout (`float`): Dropout after each of the two layers.
    """

    def __init__(self, size: int, residual_size: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(size, residual_size)
        self.output = nn.Linear(size + residual_size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features` and the result are of shape `(batch_size, size)`."""
        residual = self.dropout(F.relu(self.dense(features)))  # (B, R)
        update = self.dropout(F.relu(self.output(torch.cat([features, residual], dim=1))))  # (B, size)
        return features + update


class AudioClassifier(nn.Module):
    """Audio alone: a → dropout → Linear(A, A) → tanh → dropout → Linear(A, C)."""

    modalities = ("audio",)

    def __init__(self, config):
        super().__init__()
        audio_size = config.audio_config.hidden_size
        self.dropout = nn.Dropout(config.audio_config.final_dropout)
        self.dense = nn.Linear(audio_size, audio_size)
        self.classifier = nn.Linear(audio_size, config.num_labels)

    def forward(self, audio_embeds, text_embeds=None, output_attentions=False):
        """Audio `(batch_size, audio_hidden_size)` → logits `(batch_size, num_labels)`, no attention maps."""
        hidden_states = torch.tanh(self.dense(self.dropout(audio_embeds)))  # (B, A)
        return self.classifier(self.dropout(hidden_states)), ()


class TextClassifier(nn.Module):
    """Text alone: LayerNorm(t) → Linear(T, C)."""

    modalities = ("text",)

    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.text_config.hidden_size)
        self.classifier = nn.Linear(config.text_config.hidden_size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Text `(batch_size, text_hidden_size)` → logits `(batch_size, num_labels)`, no attention maps."""
        return self.classifier(self.norm(text_embeds)), ()


class EarlyFusion(nn.Module):
    """Concatenation: LayerNorm([a; t]) → Linear(A + T, C)."""

    modalities = ("audio", "text")

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.classifier = nn.Linear(size, config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        """Audio `(batch_size, A)` and text `(batch_size, T)` → logits `(batch_size, num_labels)`, no attention maps."""
        return self.classifier(self.norm(torch.cat([audio_embeds, text_embeds], dim=1))), ()


class ResidualSelfAttentionCrossFusion(nn.Module):
    """
    The Residual Self-Attention Cross Fusion Network of the paper.

    Each modality is projected to P features that attend to each other beside a skip, h = LN(SA(p) + p); the cross
    features [1; h] ⊗ [1; g] pass a residual block and Linear((P + 1)², R) → ReLU → dropout → Linear(R, C).
    """

    modalities = ("audio", "text")

    def __init__(self, config):
        super().__init__()
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, config.projection_size)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_size)
        self.audio_attention = ScalarSelfAttention(config.cross_attention_size)
        self.text_attention = ScalarSelfAttention(config.cross_attention_size)
        self.audio_norm = nn.LayerNorm(config.projection_size)
        self.text_norm = nn.LayerNorm(config.projection_size)
        cross_size = (config.projection_size + 1) ** 2
        self.cross_residual = CrossResidual(cross_size, config.cross_residual_size, config.residual_dropout)
        self.dense = nn.Linear(cross_size, config.cross_residual_size)
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
        with torch.autocast(audio.device.type, enabled=False):
            # Under autocast the norms may hand over half precision, which the products would lose more of.
            crossed = cross_features(audio.to(audio_embeds.dtype), text.to(audio_embeds.dtype))  # (B, (P + 1)²)
        hidden_states = self.dropout(F.relu(self.dense(self.cross_residual(crossed))))  # (B, R)
        return self.classifier(hidden_states), (audio_attentions, text_attentions) if output_attentions else ()


FUSION_CLASSES = {
    "audio": AudioClassifier,
    "text": TextClassifier,
    "early_fusion": EarlyFusion,
    "rsa_cfn": ResidualSelfAttentionCrossFusion,
}

__all__ = ["FUSION_CLASSES", "ScalarSelfAttention", "cross_features"]
