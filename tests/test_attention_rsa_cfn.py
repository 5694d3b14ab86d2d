"""The attention over scalar features: equal to its definition in every form, on every range."""

import pytest
import torch

from attention_rsa_cfn import (
    FEWEST_FEATURES,
    LARGEST_LOGIT,
    ScalarSelfAttention,
    SeriesExpectedFeature,
    expected_feature,
)
from benchmarks.scalar_attention import plain_self_attention


@pytest.mark.parametrize("num_features", [11, FEWEST_FEATURES])
def test_scalar_self_attention_equals_its_definition(num_features):
    attention = ScalarSelfAttention(5).double()
    x = torch.randn(3, num_features, dtype=torch.float64, requires_grad=True)
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


def expected_by_definition(scores, features):
    weights = torch.softmax(scores.unsqueeze(2) * features.unsqueeze(1), dim=-1)  # (B, N, N)
    return torch.einsum("bij,bj->bi", weights, features)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 4.0])
def test_series_equals_the_definition(scale, monkeypatch):
    """With its gradients, for flat and for peaked softmaxes, features far from 0 included."""
    scores = scale * torch.randn(2, FEWEST_FEATURES, dtype=torch.float64)
    features = 5 + torch.randn(2, FEWEST_FEATURES, dtype=torch.float64)
    inputs = scores.requires_grad_(), features.requires_grad_()
    expected = expected_by_definition(*inputs)
    gradients = torch.autograd.grad(expected.square().sum(), inputs)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)  # the series alone is at work
    result = expected_feature(*inputs)
    torch.testing.assert_close(result, expected, atol=1e-11, rtol=0)
    for ours, plain in zip(torch.autograd.grad(result.square().sum(), inputs), gradients):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)


def test_series_in_float32_is_as_close_as_the_general_form():
    scores, features = torch.randn(2, FEWEST_FEATURES), torch.randn(2, FEWEST_FEATURES, requires_grad=True)
    expected = expected_by_definition(scores.double(), features.double())
    torch.testing.assert_close(expected_feature(scores, features).double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(expected_feature(scores, features.detach()).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_features_that_are_all_alike(value):
    features = torch.full((2, FEWEST_FEATURES), value, requires_grad=True)
    result = expected_feature(torch.randn(2, FEWEST_FEATURES), features)
    result.sum().backward()
    torch.testing.assert_close(result, features)
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("largest", [3 * LARGEST_LOGIT, torch.nan, torch.inf])
def test_logits_out_of_the_range_of_the_series_take_the_general_form(largest, monkeypatch):
    monkeypatch.setattr(SeriesExpectedFeature, "apply", None)
    features = torch.linspace(-1, 1, FEWEST_FEATURES).repeat(2, 1).requires_grad_()
    scores = torch.zeros(2, FEWEST_FEATURES)
    scores[0, 0] = largest
    result = expected_feature(scores, features)
    torch.testing.assert_close(result[1], torch.zeros(FEWEST_FEATURES), atol=1e-6, rtol=0)
    if largest == 3 * LARGEST_LOGIT:
        torch.testing.assert_close(result, expected_by_definition(scores, features), atol=1e-5, rtol=0)
