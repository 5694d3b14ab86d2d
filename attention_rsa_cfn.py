"""Self-attention over the scalar features of one vector, without its (N, N) map."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


# The series below has about |t| + 9√|t| + 25 terms: at 40 these are 122, and 1 / 122! is still a normal float64.
LARGEST_LOGIT = 40.0
# Fewer features are done sooner by the general form.
FEWEST_FEATURES = 512


def expected_feature(scores: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """
    Mean of the features under softmax_j(s_i x_j), for each score s_i: attention of head size 1 and scale 1.

    [`SeriesExpectedFeature`] stands in for it where that is faster: in training on a CPU, with many features.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, num_features)`): s.
        features (`torch.Tensor` of shape `(batch_size, num_features)`): x, keys and values at once.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_features)`.
    """
    if features.device.type == "cpu" and features.requires_grad and features.shape[1] >= FEWEST_FEATURES:
        low, high = features.detach().aminmax(dim=1, keepdim=True)  # (B, 1)
        largest = float((scores.detach() * (high - low) / 2).abs().max())
        if largest <= LARGEST_LOGIT:  # not so for NaN
            return SeriesExpectedFeature.apply(scores, features, largest)
    query, key = scores[:, None, :, None], features[:, None, :, None]  # (B, 1, N, 1)
    if features.device.type == "cuda":
        # The fused CUDA kernels want a head size divisible by 8; zeros add nothing to a product or a sum.
        query, key = F.pad(query, (0, 7)), F.pad(key, (0, 7))  # (B, 1, N, 8)
    return F.scaled_dot_product_attention(query, key, key, scale=1.0)[:, 0, :, 0]  # (B, N)


class SeriesExpectedFeature(torch.autograd.Function):
    """
    [`expected_feature`] to float64 precision in O(N K) steps rather than O(N²), with K = |t| + 9√|t| + 25 terms.

    A row's features are shifted and scaled to u in [-1, 1], and its scores to t, so that s_i x_j = t_i u_j + const.
    The softmax's denominator is then one power series for all i, Z(t) = Σ_j exp(t u_j) = Σ_k (Σ_j u_jᵏ / k!) tᵏ, and
    its mean and variance are Z'/Z and Z''/Z - (Z'/Z)². The features with u = ±1 make Z(t) at least exp(|t|), which no
    sum of absolute terms exceeds N times, so nothing cancels; the terms left out are a Poisson(|t|) tail beyond nine
    deviations. The gradient of x_j, Σ_i w_i exp(t_i u_j), is such a series in u_j.
    """

    @staticmethod
    def forward(ctx, scores, features, largest):
        """`scores` and `features`, `(batch_size, num_features)`, and the largest |t| → `(batch_size, num_features)`."""
        s, x = scores.double(), features.double()
        low, high = x.aminmax(dim=1, keepdim=True)  # (B, 1)
        centre, scale = (low + high) / 2, ((high - low) / 2).clamp(min=torch.finfo(x.dtype).tiny)
        u, t = (x - centre) / scale, s * scale  # (B, N)
        num_terms = int(largest + 9 * math.sqrt(largest) + 25)
        (coefficients,) = power_sums(u, [torch.ones_like(u)], num_terms)  # (B, K)
        z, first, half_second = evaluate(coefficients, t, derivatives=2)  # (B, N)
        mean = first / z
        variance = 2 * half_second / z - mean.square()
        ctx.save_for_backward(t, u, z, mean, variance * scale.square())
        ctx.num_terms = num_terms
        return (centre + scale * mean).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Gradients of the scores and of the features, `(batch_size, num_features)` each."""
        t, u, z, mean, variance = ctx.saved_tensors
        dtype, grad = grad.dtype, grad.double()
        weight = grad / z
        sums = power_sums(t, [weight * (1 - t * mean), weight * t], ctx.num_terms)  # (B, K) twice
        (constant,), (slope,) = (evaluate(coefficients, u) for coefficients in sums)  # (B, N)
        return (grad * variance).to(dtype), (constant + u * slope).to(dtype), None


def power_sums(x: torch.Tensor, weights: list[torch.Tensor], num_terms: int) -> list[torch.Tensor]:
    """Σ_j w_j x_jᵏ / k! for k below `num_terms`, `(batch_size, num_terms)`, for x and each w of `(batch_size, N)`."""
    power = torch.ones_like(x)
    sums = [x.new_empty(len(x), num_terms) for _ in weights]
    for k in range(num_terms):
        if k:
            power.mul_(x).div_(k)
        for weight, result in zip(weights, sums):
            result[:, k] = torch.linalg.vecdot(weight, power)
    return sums


def evaluate(coefficients: torch.Tensor, x: torch.Tensor, derivatives: int = 0) -> list[torch.Tensor]:
    """
    Horner's rule for polynomials with `coefficients`, `(batch_size, num_terms)`, at `x`, `(batch_size, N)`.

    Returns:
        The value and as many derivatives as asked for, the k-th divided by k!, each of the shape of `x`.
    """
    values = [torch.zeros_like(x) for _ in range(derivatives + 1)]
    for k in reversed(range(coefficients.shape[1])):
        for order in range(derivatives, 0, -1):
            values[order].mul_(x).add_(values[order - 1])
        values[0].mul_(x).add_(coefficients[:, k : k + 1])
    return values


class ScalarSelfAttention(nn.Module):
    """
    Self-attention over the scalar features of one vector: each of its N features attends to all N.

    With q_i = x_i·wq + bq and k_j = x_j·wk + bk, the terms of q_i·k_j without j cancel in the softmax, and what remains
    is s_i·x_j with s_i = (x_i (wq·wk) + bq·wk) / √H: attention of head size 1. Neither the (B, N, H) queries and keys
    nor, unless it is asked for, the (B, N, N) map is built. The key's bias has no effect, here as in the definition.

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
                expected = expected_feature(scores, x)  # (B, N)
            return (value_weight * expected + value_bias).to(features.dtype), attentions


__all__ = ["ScalarSelfAttention", "SeriesExpectedFeature", "expected_feature"]
