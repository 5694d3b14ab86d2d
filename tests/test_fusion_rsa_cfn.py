"""The fusions: the arithmetic of each, against its definition."""

import torch

from configuration_rsa_cfn import FUSIONS
from fusion_rsa_cfn import FUSION_CLASSES, ScalarSelfAttention, cross_features


def test_every_fusion_has_a_class():
    assert tuple(FUSION_CLASSES) == FUSIONS


def test_cross_features_have_the_audio_index_slow():
    audio, text = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    assert cross_features(audio, text).tolist() == [[1, 5, 7, 2, 10, 14, 3, 15, 21]]


def plain_self_attention(attention, x):
    """The definition, with (B, N, H) queries and keys and the (B, N, N) map."""
    query, key, value = (linear(x.unsqueeze(-1)) for linear in (attention.query, attention.key, attention.value))
    weights = torch.softmax(query @ key.transpose(1, 2) / attention.attention_size**0.5, dim=-1)
    return (weights @ value).squeeze(-1), weights


def test_scalar_self_attention_equals_its_definition():
    attention = ScalarSelfAttention(5).double()
    x = torch.randn(3, 11, dtype=torch.float64, requires_grad=True)
    expected, weights = plain_self_attention(attention, x)
    result, no_weights = attention(x)
    with_map, attentions = attention(x, output_attentions=True)
    assert no_weights is None
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(with_map, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(attentions, weights, atol=1e-12, rtol=0)
    parameters = [x, *(p for name, p in attention.named_parameters() if name != "key.bias")]
    for ours, plain in zip(
        torch.autograd.grad(result.square().sum(), parameters), torch.autograd.grad(expected.square().sum(), parameters)
    ):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-9)
