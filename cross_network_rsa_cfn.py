"""The cross network of RSA-CFN: h and g → every product of their features → hidden features; in full or of low rank."""

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


class CrossResidual(nn.Module):
    """
    A two-layer block beside a skip: r = f(x), s = g([x; r]), skip + s; f and g are Linear → ReLU → dropout.

    Args:
        size (`int`): N, width of x, the skip and the result.
        residual_size (`int`): R, width of r.
        dropout (`float`): Dropout after each of the two layers.
    """

    def __init__(self, size: int, residual_size: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(size, residual_size)
        self.output = nn.Linear(size + residual_size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """`features`, `skip` (the features themselves when left out) and the result are `(batch_size, size)`."""
        residual = self.dropout(F.relu(self.dense(features)))  # (B, R)
        update = self.dropout(F.relu(self.output(torch.cat([features, residual], dim=1))))  # (B, N)
        return (features if skip is None else skip) + update


class CrossNetwork(nn.Module):
    """From h and g to R features: the cross features X = [1; h] ⊗ [1; g] → residual block → Linear((P + 1)², R)."""

    def __init__(self, config):
        super().__init__()
        size = (config.projection_size + 1) ** 2
        self.residual = CrossResidual(size, config.cross_residual_size, config.residual_dropout)
        self.dense = nn.Linear(size, config.cross_residual_size)

    def forward(self, audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """h and g of shape `(batch_size, projection_size)` → `(batch_size, cross_residual_size)`."""
        with torch.autocast(audio.device.type, enabled=False):
            # Under autocast the norms may hand over half precision, which the products would lose more of.
            dtype = self.dense.weight.dtype
            crossed = cross_features(audio.to(dtype), text.to(dtype))  # (B, (P + 1)²)
        return self.dense(self.residual(crossed))


class LowRankCrossLinear(nn.Module):
    """
    A linear layer on the cross features that never forms them.

    Row o of the weight of Linear((P + 1)², O), seen as a (P + 1) × (P + 1) matrix, is held to a sum of K outer
    products, Σ_k u_ko v_koᵀ. Then ⟨W_o, [1; h] ⊗ [1; g]⟩ = Σ_k (u_ko · [1; h]) (v_ko · [1; g]): over all rows,
    Σ_k (U_k [1; h]) ∘ (V_k [1; g]) + b, with 2 K (P + 1) O weights in place of (P + 1)² O.

    Source: Liu et al. 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors".

    Args:
        projection_size (`int`): P.
        out_size (`int`): O.
        rank (`int`): K.
    """

    def __init__(self, projection_size: int, out_size: int, rank: int):
        super().__init__()
        self.out_size = out_size
        # The variance of a row's entry, K σ⁴, is to be 1 / (3 (P + 1)²), that of nn.Linear((P + 1)², O); a uniform
        # variable with bound b has variance σ² = b² / 3.
        self.factor_bound = math.sqrt(3 / ((projection_size + 1) * math.sqrt(3 * rank)))
        self.bias_bound = 1 / (projection_size + 1)
        self.audio_factors = nn.Parameter(torch.empty(rank, out_size, projection_size + 1))
        self.text_factors = nn.Parameter(torch.empty(rank, out_size, projection_size + 1))
        self.bias = nn.Parameter(torch.empty(out_size))
        for name, bound in self.init_bounds().items():
            nn.init.uniform_(getattr(self, name), -bound, bound)

    def init_bounds(self) -> dict[str, float]:
        """The bound of the uniform distribution that each parameter starts from."""
        return {"audio_factors": self.factor_bound, "text_factors": self.factor_bound, "bias": self.bias_bound}

    def forward(self, audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """h and g of shape `(batch_size, projection_size)` → `(batch_size, out_size)`."""
        audio, text = F.pad(audio, (1, 0), value=1.0), F.pad(text, (1, 0), value=1.0)  # (B, P + 1)
        audio = F.linear(audio, self.audio_factors.flatten(0, 1))  # (B, K * O)
        text = F.linear(text, self.text_factors.flatten(0, 1))  # (B, K * O)
        # As in the full form, the products stay in float32 under autocast.
        dtype = torch.promote_types(audio.dtype, torch.float32)
        products = (audio.to(dtype) * text.to(dtype)).unflatten(1, (-1, self.out_size))  # (B, K, O)
        return (products.sum(dim=1) + self.bias).to(self.bias.dtype)


class LowRankCrossNetwork(nn.Module):
    """
    [`CrossNetwork`] with every weight held to a low rank K, for K = `cross_fusion_rank`.

    The full form, with X = [1; h] ⊗ [1; g] of N = (P + 1)² features, and dropout left out:
    r = ReLU(A X + a), s = ReLU(B [X; r] + b), result D (X + s) + d.
    Here every matrix that meets X is a [`LowRankCrossLinear`], written A⟨h, g⟩, and the others are split in two:

    - r = ReLU(A⟨h, g⟩), of width R;
    - s = ReLU(B₁ (B₂⟨h, g⟩ + B₃ r) + b): B = B₁ [B₂, B₃] with K columns between, of which B₂ meets X;
    - result D⟨h, g⟩ + D₁ D₂ s: D meets X in the one form and s in the other, so the two no longer share weights.

    X is never formed. With P = 128, R = 1024 and K = 16 this has 9.1 million weights in place of 328.1 million.
    """

    def __init__(self, config):
        super().__init__()
        projection_size, rank = config.projection_size, config.cross_fusion_rank
        size, residual_size = (projection_size + 1) ** 2, config.cross_residual_size
        self.residual_dense = LowRankCrossLinear(projection_size, residual_size, rank)
        self.cross_down = LowRankCrossLinear(projection_size, rank, rank)
        self.residual_down = nn.Linear(residual_size, rank, bias=False)
        self.up = nn.Linear(rank, size)
        self.dense = LowRankCrossLinear(projection_size, residual_size, rank)
        self.update_down = nn.Linear(size, rank, bias=False)
        self.update_up = nn.Linear(rank, residual_size, bias=False)
        self.dropout = nn.Dropout(config.residual_dropout)

    def forward(self, audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """h and g of shape `(batch_size, projection_size)` → `(batch_size, cross_residual_size)`."""
        residual = self.dropout(F.relu(self.residual_dense(audio, text)))  # (B, R)
        bottleneck = self.cross_down(audio, text) + self.residual_down(residual)  # (B, K)
        update = self.dropout(F.relu(self.up(bottleneck)))  # (B, (P + 1)²)
        return self.dense(audio, text) + self.update_up(self.update_down(update))
