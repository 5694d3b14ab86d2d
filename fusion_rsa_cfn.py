"""The fusions of RSA-CFN, encoded audio and encoded text → logits, a class each, with their parts; and the pooling."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init


def pool(hidden_states: torch.Tensor, counts: torch.Tensor, pooling_mode: str) -> torch.Tensor:
    """The sum, the maximum (`"max"`) or the mean over time of hidden states `(batch_size, length, hidden_size)`.

    `counts`, `(batch_size, length)`, is how many times each position counts: 1 or 0 under a mask, and the length of the
    padding where one pad position stands for all of it. The result, `(batch_size, hidden_size)`, is at least float32,
    since a sum over frames overflows float16, and zeros for a row where nothing counts.
    """
    hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    counts = counts.to(hidden_states.dtype).unsqueeze(-1)  # (B, S, 1)
    if pooling_mode == "max":
        largest = hidden_states.masked_fill(counts == 0, -torch.inf).amax(dim=1)  # (B, H)
        return largest.masked_fill((counts == 0).all(dim=1), 0.0)
    # A padded position may hold anything, NaN included, so it is cleared rather than multiplied by 0.
    summed = (hidden_states * counts).masked_fill(counts == 0, 0.0).sum(dim=1)  # (B, H)
    return summed if pooling_mode == "sum" else summed / counts.sum(dim=1).clamp(min=1)


class Pooling(nn.Module):
    """Hidden states over time → one vector, as `pooling_mode` says.

    In `attentive_statistics` (Okabe et al. 2018, https://arxiv.org/abs/1803.10963) frames h have weights
    softmax(vᵀ tanh(W h + b)), and a mean μ and a standard deviation σ under them. The vector is μ + Linear(H, H)(σ), a
    linear layer on [μ; σ] whose part for μ is held to the identity: the width is that of a frame.
    """

    def __init__(self, size: int, config):
        super().__init__()
        self.mode = config.pooling_mode
        if self.mode == "attentive_statistics":
            self.dense = nn.Linear(size, config.attention_size)
            self.energy = nn.Linear(config.attention_size, 1, bias=False)
            self.deviation = nn.Linear(size, size)

    def forward(self, hidden_states: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, tuple]:
        """As [`pool`], and in a tuple the weights, `(batch_size, 1, length)`, where they are learned."""
        if self.mode != "attentive_statistics":
            return pool(hidden_states, counts, self.mode), ()
        padding = counts.eq(0).unsqueeze(-1)  # (B, S, 1)
        hidden_states = hidden_states.masked_fill(padding, 0.0)
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        energies = self.energy(torch.tanh(self.dense(hidden_states))).to(dtype)  # (B, S, 1)
        # What counts n times has n times the weight; of a row where nothing counts the softmax has to be finite.
        energies = energies + counts.unsqueeze(-1).to(dtype).clamp(min=1).log()
        weights = energies.masked_fill(padding, torch.finfo(dtype).min).softmax(dim=1)
        mean = (weights * hidden_states).sum(dim=1)  # (B, H)
        variance = (weights * (hidden_states - mean.unsqueeze(1)).square()).sum(dim=1)
        # Of one frame it is 0, where a root has no slope.
        deviation = self.deviation(variance.clamp(min=1e-12).sqrt().to(hidden_states.dtype))
        return (mean + deviation).masked_fill(padding.all(dim=1), 0.0), (weights.mT,)


class ScalarMap(nn.Module):
    """Weight and bias of a map from one feature to `size` values, under the names that `nn.Linear(1, size)` gives them.
    The attention reads them and calls nothing, so that one would only mislead LoRA and int8."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, 1))
        self.bias = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw both from torch's own default for one input feature."""
        init.uniform_(self.weight, -1.0, 1.0)
        init.uniform_(self.bias, -1.0, 1.0)

    def vectors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias, `(size,)` each, in this dtype."""
        return self.weight.to(dtype).flatten(), self.bias.to(dtype)


class ScalarSelfAttention(nn.Module):
    """Self-attention over the scalar features of one vector: each of its N features attends to all N.

    With q_i = x_i·wq + bq and k_j = x_j·wk + bk, the terms of q_i·k_j without j cancel in the softmax, and what remains
    is s_i·x_j with s_i = (x_i (wq·wk) + bq·wk) / √H: attention of head size 1. Neither the (B, N, H) queries and keys
    nor, unless it is asked for, the (B, N, N) map is built. The key's bias has no effect, here as in the definition.
    H is `attention_size`.
    """

    def __init__(self, attention_size: int):
        super().__init__()
        self.attention_size = attention_size
        self.query = ScalarMap(attention_size)
        self.key = ScalarMap(attention_size)
        self.value = ScalarMap(1)

    def forward(self, features: torch.Tensor, output_attentions=False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features `(batch_size, num_features)` → the attended features, of the same shape, and the map, `(batch_size,
        num_features, num_features)`, or `None` where it isn't asked for."""
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(torch.promote_types(features.dtype, torch.float32))  # (B, N)
            query_weight, query_bias = self.query.vectors(x.dtype)  # (H,) each
            key_weight, _ = self.key.vectors(x.dtype)
            value_weight, value_bias = self.value.vectors(x.dtype)  # (1,) each
            scores = (x * (query_weight @ key_weight) + query_bias @ key_weight) / math.sqrt(self.attention_size)
            attentions = None
            if output_attentions:
                attentions = torch.softmax(scores.unsqueeze(2) * x.unsqueeze(1), dim=-1)  # (B, N, N)
                expected = torch.einsum("bij,bj->bi", attentions, x)  # (B, N)
            else:
                query, key = scores[:, None, :, None], x[:, None, :, None]  # (B, 1, N, 1)
                if x.device.type == "cuda":
                    # The fused CUDA kernels want a head size divisible by 8; zeros add nothing to a product or a sum.
                    query, key = F.pad(query, (0, 7)), F.pad(key, (0, 7))  # (B, 1, N, 8)
                expected = F.scaled_dot_product_attention(query, key, key, scale=1.0)[:, 0, :, 0]  # (B, N)
            return (value_weight * expected + value_bias).to(features.dtype), attentions


def cross_features(audio: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Every product of an audio and a text feature, `(batch_size, P)` each, with the features and a constant:
    flatten([1; h] ⊗ [1; g]), `(batch_size, (P + 1) ** 2)`, in which the text's index is the fast one."""
    audio = F.pad(audio, (1, 0), value=1.0)  # (B, P + 1)
    text = F.pad(text, (1, 0), value=1.0)  # (B, P + 1)
    return (audio.unsqueeze(2) * text.unsqueeze(1)).flatten(1)  # (B, (P + 1)²)


class CrossResidual(nn.Module):
    """A two-layer block beside a skip: r = f(x), s = g([x; r]), skip + s; f and g are Linear → ReLU → dropout. x, the
    skip and the result are of width N, `size`, and r is of width R, `residual_size`."""

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
        return self.dense(self.residual(cross_features(audio, text)))


class LowRankCrossLinear(nn.Module):
    """A linear layer on the cross features that never forms them.

    Row o of the weight of Linear((P + 1)², O), seen as a (P + 1) × (P + 1) matrix, is held to a sum of K outer
    products, Σ_k u_ko v_koᵀ. Then ⟨W_o, [1; h] ⊗ [1; g]⟩ = Σ_k (u_ko · [1; h]) (v_ko · [1; g]): over all rows,
    Σ_k (U_k [1; h]) ∘ (V_k [1; g]) + b, with 2 K (P + 1) O weights in place of (P + 1)² O.

    Source: Liu et al. 2018, "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors". P is
    `projection_size`, O is `out_size`, K is `rank`.
    """

    def __init__(self, projection_size: int, out_size: int, rank: int):
        super().__init__()
        self.out_size = out_size
        self.audio_factors = nn.Parameter(torch.empty(rank, out_size, projection_size + 1))
        self.text_factors = nn.Parameter(torch.empty(rank, out_size, projection_size + 1))
        self.bias = nn.Parameter(torch.empty(out_size))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the factors so that an entry of the full weight has the variance it has in nn.Linear((P + 1)², O)."""
        rank, _, num_features = self.audio_factors.shape
        # That is K σ⁴ = 1 / (3 (P + 1)²); a uniform variable with bound b has variance σ² = b² / 3.
        bound = math.sqrt(3 / (num_features * math.sqrt(3 * rank)))
        init.uniform_(self.audio_factors, -bound, bound)
        init.uniform_(self.text_factors, -bound, bound)
        init.uniform_(self.bias, -1 / num_features, 1 / num_features)

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
    """[`CrossNetwork`] with every weight held to a low rank K, for K = `cross_fusion_rank`.

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


class LogitsNorm(nn.LayerNorm):
    """LayerNorm over the C logits of a row, in float32: half precision knows the variance of so few values poorly."""

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logits, and behind them attributes that stay as they are, in the dtype of the weight, also under autocast."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        (size,) = self.normalized_shape
        with torch.autocast(outputs.device.type, enabled=False):
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
            logits = F.layer_norm(outputs[..., :size].to(dtype), self.normalized_shape, weight, bias, self.eps)
            logits = logits if outputs.shape[-1] == size else torch.cat([logits, outputs[..., size:].to(dtype)], dim=-1)
            return logits.to(self.weight.dtype)


class Fusion(nn.Module):
    """What every fusion has in common.

    `forward(audio_embeds, text_embeds, output_attentions=False)` takes pooled audio `(batch_size, A)` and pooled text
    `(batch_size, T)`, and returns logits `(batch_size, num_labels)`, with a column behind them for each attribute of
    the configuration, and a tuple of attention maps, empty unless there are some and they are asked for: of `rsa` one,
    `(batch_size, A + T, A + T)`, of `rsa_cfn`, also in `hybrid_fusion`, two, `(batch_size, P, P)`. Audio comes first.
    """

    modalities = ("audio", "text")  # what it reads; the model has no encoder for the rest
    # Each as its pooled vector, `(batch_size, hidden_size)`; otherwise as a pair, its hidden states `(batch_size,
    # length, hidden_size)` and how often each of them counts, `(batch_size, length)`.
    reads_pooled = True

    def add_heads(self, size: int, config, has_classifier: bool = True):
        """A linear classifier of so many features, and a linear head for the attributes if there are some."""
        if has_classifier:
            self.classifier_head = nn.Linear(size, config.num_labels)
        self.attribute_head = nn.Linear(size, len(config.attributes)) if config.attributes else None

    def heads(self, features: torch.Tensor, logits: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(batch_size, size)` → logits, unless these are there, and attributes behind them."""
        logits = self.classifier_head(features) if logits is None else logits
        return logits if self.attribute_head is None else torch.cat([logits, self.attribute_head(features)], dim=1)


class AudioClassifier(Fusion):
    """Audio alone: a → dropout → Linear(A, A) → tanh → dropout → Linear(A, C)."""

    modalities = ("audio",)

    def __init__(self, config):
        super().__init__()
        audio_size = config.audio_config.hidden_size
        self.dropout = nn.Dropout(getattr(config.audio_config, "final_dropout", 0.0))
        self.dense = nn.Linear(audio_size, audio_size)
        self.add_heads(audio_size, config)

    def forward(self, audio_embeds, text_embeds=None, output_attentions=False):
        hidden_states = torch.tanh(self.dense(self.dropout(audio_embeds)))  # (B, A)
        return self.heads(self.dropout(hidden_states)), ()


class TextClassifier(Fusion):
    """Text alone: LayerNorm(t) → Linear(T, C)."""

    modalities = ("text",)

    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.text_config.hidden_size)
        self.add_heads(config.text_config.hidden_size, config)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        return self.heads(self.norm(text_embeds)), ()


class EarlyFusion(Fusion):
    """Concatenation: z = LayerNorm([a; t]) → Linear(A + T, C)."""

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.add_heads(size, config)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        return self.heads(self.norm(torch.cat([audio_embeds, text_embeds], dim=1))), ()


class LateFusion(Fusion):
    """A classifier for each modality: the mean of LN_C(Linear(A, C)(a)) and LN_C(Linear(T, C)(t)), one norm shared."""

    def __init__(self, config):
        super().__init__()
        audio_size, text_size = config.audio_config.hidden_size, config.text_config.hidden_size
        self.audio_classifier_head = nn.Linear(audio_size, config.num_labels)
        self.text_classifier_head = nn.Linear(text_size, config.num_labels)
        self.norm = LogitsNorm(config.num_labels)
        self.add_heads(audio_size + text_size, config, has_classifier=False)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        audio_logits = self.norm(self.audio_classifier_head(audio_embeds))  # (B, C)
        text_logits = self.norm(self.text_classifier_head(text_embeds))  # (B, C)
        return self.heads(torch.cat([audio_embeds, text_embeds], dim=1), (audio_logits + text_logits) / 2), ()


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
    """An MLP that mixes the positions of both modalities, then one that mixes their channels.

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
        self.add_heads(config.mixer_classifier_size, config)

    def forward(self, audio, text, output_attentions=False):
        """Audio, `(batch_size, frames, A)` with counts `(batch_size, frames)`, and text, `(batch_size, num_tokens, T)`
        with counts `(batch_size, num_tokens)` → logits `(batch_size, num_labels)`, no attention maps. A ValueError
        tells of a row that is longer than `max_audio_frames` or `max_text_tokens`."""
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
        return self.heads(self.dropout(hidden_states)), ()

    def _repeat_padding(self, hidden_states, counts):
        """The state that stands for all the padding of its row, as often as it counts: `(batch_size, max_text_tokens,
        T)`, and the mask of the positions that are filled: all, or none in a row without text."""
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


class StackFusion(EarlyFusion):
    """Multi-sample dropout: z = LayerNorm([a; t]); the mean of Linear(A + T, C)(dropout(z)) over several dropout masks.
    The classifier is linear, so it runs once, on the mean of the masked copies of z."""

    def __init__(self, config):
        super().__init__(config)
        self.draws = config.multi_sample_draws
        self.dropout = nn.Dropout(config.multi_sample_dropout)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        dropped = self.dropout(features.expand(self.draws, -1, -1))  # (draws, B, D)
        return self.heads(dropped.mean(dim=0)), ()


class ResidualFusion(Fusion):
    """z = LayerNorm([a; t]) → residual block → Linear(A + T, C)."""

    def __init__(self, config):
        super().__init__()
        size = config.audio_config.hidden_size + config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.residual = CrossResidual(size, config.residual_size, config.residual_dropout)
        self.add_heads(size, config)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        return self.heads(self.residual(features)), ()


class ResidualSelfAttentionFusion(ResidualFusion):
    """z = LayerNorm([a; t]); u = SA(z), each of the D = A + T features attending to all; residual block → Linear(D, C).
    The block reads u; its skip carries z."""

    def __init__(self, config):
        super().__init__(config)
        self.attention = ScalarSelfAttention(config.attention_size)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        features = self.norm(torch.cat([audio_embeds, text_embeds], dim=1))  # (B, D)
        attended, attentions = self.attention(features, output_attentions)
        logits = self.heads(self.residual(attended, skip=features))
        return logits, (attentions,) if output_attentions else ()


class ResidualSelfAttentionCrossFusion(Fusion):
    """The Residual Self-Attention Cross Fusion Network of the paper.

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
        self.add_heads(config.cross_residual_size, config)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        audio = self.audio_projection(audio_embeds)  # (B, P)
        text = self.text_projection(text_embeds)  # (B, P)
        attended_audio, audio_attentions = self.audio_attention(audio, output_attentions)
        attended_text, text_attentions = self.text_attention(text, output_attentions)
        # Under autocast a norm may give half precision, of which the products of features would lose more.
        dtype = self.audio_norm.weight.dtype
        audio = self.audio_norm(attended_audio + audio).to(dtype)
        text = self.text_norm(attended_text + text).to(dtype)
        hidden_states = self.dropout(F.relu(self.cross_network(audio, text)))  # (B, R)
        return self.heads(hidden_states), (audio_attentions, text_attentions) if output_attentions else ()


class HybridFusion(Fusion):
    """The mean of the logits of `early_fusion`, `late_fusion`, `residual` and `rsa_cfn`, each behind LN_C. Every branch
    has its own weights; the four share the norm."""

    def __init__(self, config):
        super().__init__()
        self.early_fusion_head = EarlyFusion(config)
        self.late_fusion_head = LateFusion(config)
        self.residual_fusion_head = ResidualFusion(config)
        self.rsa_cfn = ResidualSelfAttentionCrossFusion(config)
        self.norm = LogitsNorm(config.num_labels)

    def forward(self, audio_embeds, text_embeds, output_attentions=False):
        cross_logits, attentions = self.rsa_cfn(audio_embeds, text_embeds, output_attentions)  # (B, C)
        branches = (self.early_fusion_head, self.late_fusion_head, self.residual_fusion_head)
        logits = [cross_logits, *(branch(audio_embeds, text_embeds)[0] for branch in branches)]
        return torch.stack([self.norm(branch_logits) for branch_logits in logits]).mean(dim=0), attentions


class CrossAttentionLayer(nn.Module):
    """One modality attends to the other: y = x + Linear(heads(LN(x), LN(other))), then y + MLP(LN(y)). Where the other
    is missing, the heads give zeros."""

    def __init__(self, size: int, dropout: float):
        super().__init__()
        self.num_heads = math.gcd(size, 4)  # four, where the width allows
        self.query_norm, self.key_norm, self.norm = (nn.LayerNorm(size) for _ in range(3))
        self.query, self.value, self.output = (nn.Linear(size, size) for _ in range(3))
        self.key = nn.Linear(size, size, bias=False)
        self.mlp = MixerMlp(size, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states, other, counts, output_attentions=False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States `(batch_size, length, size)`, those of the other modality and whether each counts, `(batch_size,
        other_length)` → new states and, when asked for, a map `(batch_size, length, other_length)`, of heads the
        mean."""
        heads, keys = (self.num_heads, -1), self.key_norm(other)
        query = self.query(self.query_norm(states)).unflatten(2, heads).transpose(1, 2)  # (B, heads, length, D)
        key, value = (layer(keys).unflatten(2, heads).transpose(1, 2) for layer in (self.key, self.value))
        mask = counts.ne(0)[:, None, None]  # (B, 1, 1, other_length)
        is_missing = ~mask.any(dim=3, keepdim=True)
        mask = mask | is_missing  # a softmax over nothing is NaN
        attended = F.scaled_dot_product_attention(query, key, value, mask).masked_fill(is_missing, 0.0)
        states = states + self.dropout(self.output(attended.transpose(1, 2).flatten(2)))
        attentions = None
        if output_attentions:
            scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~mask, -torch.inf)
            attentions = scores.softmax(dim=-1).masked_fill(is_missing, 0.0).mean(dim=1)
        return states + self.mlp(self.norm(states)), attentions


class CrossAttentionFusion(Fusion):
    """Frames attend to tokens and tokens to frames; not of the paper. Both are projected to M = `mixer_size` channels.
    In each layer either reads the other as the layer before left it. Then both are pooled by `pooling_mode`, and z =
    LayerNorm([a; t]) → dropout → Linear(2 M, C)."""

    reads_pooled = False

    def __init__(self, config):
        super().__init__()
        size, layers = config.mixer_size, range(config.cross_attention_layers)
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, size)
        self.text_projection = nn.Linear(config.text_config.hidden_size, size)
        self.audio_layers, self.text_layers = (
            nn.ModuleList(CrossAttentionLayer(size, config.mixer_dropout) for _ in layers) for _ in self.modalities
        )
        self.audio_pooling, self.text_pooling = (Pooling(size, config) for _ in self.modalities)
        self.norm = nn.LayerNorm(2 * size)
        self.dropout = nn.Dropout(config.mixer_dropout)
        self.add_heads(2 * size, config)

    def forward(self, audio, text, output_attentions=False):
        """As in [`MlpMixerFusion`]; the attention maps, when asked for, are two tuples of one for each layer: of tokens
        to frames `(batch_size, num_tokens, frames)`, and of frames to tokens."""
        (audio, audio_counts), (text, text_counts) = audio, text
        audio = self.audio_projection(audio).masked_fill(audio_counts.eq(0).unsqueeze(-1), 0.0)  # (B, frames, M)
        text = self.text_projection(text).masked_fill(text_counts.eq(0).unsqueeze(-1), 0.0)  # (B, num_tokens, M)
        maps = []
        for audio_layer, text_layer in zip(self.audio_layers, self.text_layers):
            attended, of_text = audio_layer(audio, text, text_counts, output_attentions)
            text, of_audio = text_layer(text, audio, audio_counts, output_attentions)
            audio = attended
            maps.append((of_audio, of_text))
        pooled = [self.audio_pooling(audio, audio_counts)[0], self.text_pooling(text, text_counts)[0]]
        features = self.norm(torch.cat(pooled, dim=1).to(self.norm.weight.dtype))  # (B, 2 M)
        return self.heads(self.dropout(features)), tuple(zip(*maps)) if output_attentions else ()


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
    "cross_attention": CrossAttentionFusion,
}

__all__ = ["FUSION_CLASSES"]
