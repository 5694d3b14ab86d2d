"""The cross network: the order of its features, and the low-rank form against the full one."""

import pytest
import torch
import torch.nn.functional as F

from cross_network_rsa_cfn import CrossNetwork, LowRankCrossLinear, LowRankCrossNetwork, cross_features
from modeling_rsa_cfn import RsaCfnForSequenceClassification


@pytest.fixture
def features():
    """h and g of shape (5, 6)."""
    return torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)


def full_weight(layer):
    """The weight of nn.Linear that a low-rank layer stands for."""
    return torch.einsum("koi,koj->oij", layer.audio_factors, layer.text_factors).flatten(1)


def test_cross_features_have_the_audio_index_slow():
    audio, text = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    assert cross_features(audio, text).tolist() == [[1, 5, 7, 2, 10, 14, 3, 15, 21]]


def test_low_rank_layer_is_a_linear_layer_on_the_cross_features(features):
    layer = LowRankCrossLinear(6, 9, rank=3).double()
    expected = F.linear(cross_features(*features), full_weight(layer), layer.bias)
    torch.testing.assert_close(layer(*features), expected, atol=1e-12, rtol=0)


def test_low_rank_network_equals_the_full_one_with_its_weights(features, make_config):
    """With the two matrices that meet X and s tied by hand, the forms agree; only their ranks differ."""
    low_rank = LowRankCrossNetwork(make_config(cross_fusion_rank=3)).double().eval()
    full = CrossNetwork(make_config()).double().eval()
    # s = 0, so the matrix that meets it plays no part.
    for bias in (low_rank.up.bias, full.residual.output.bias):
        torch.nn.init.constant_(bias, -1e3)
    with torch.no_grad():
        full.dense.weight.copy_(full_weight(low_rank.dense))
        full.dense.bias.copy_(low_rank.dense.bias)
    torch.testing.assert_close(low_rank(*features), full(*features), atol=1e-12, rtol=0)
    # And the residual block alone: s of the one is s of the other.
    torch.nn.init.zeros_(low_rank.up.bias)
    with torch.no_grad():
        cross_down = full_weight(low_rank.cross_down)
        down = torch.cat([cross_down, low_rank.residual_down.weight], dim=1)
        full.residual.dense.weight.copy_(full_weight(low_rank.residual_dense))
        full.residual.dense.bias.copy_(low_rank.residual_dense.bias)
        full.residual.output.weight.copy_(low_rank.up.weight @ down)
        full.residual.output.bias.copy_(low_rank.up.weight @ low_rank.cross_down.bias)
    crossed = cross_features(*features)
    update = full.residual(crossed) - crossed
    expected = F.linear(crossed, full.dense.weight, full.dense.bias)
    expected = expected + update @ (low_rank.update_up.weight @ low_rank.update_down.weight).T
    torch.testing.assert_close(low_rank(*features), expected, atol=1e-12, rtol=0)


def test_low_rank_layers_start_with_the_variance_of_a_linear_layer():
    size, rank = 32, 8
    layer, linear = LowRankCrossLinear(size, 400, rank), torch.nn.Linear((size + 1) ** 2, 400)
    audio, text = torch.randn(64, size), torch.randn(64, size)
    ratio = (layer(audio, text).var() / linear(cross_features(audio, text)).var()).item()
    assert ratio == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("fusion", ["rsa_cfn", "hybrid_fusion"])
def test_low_rank_model_trains_and_reloads(fusion, make_model, processor, clips, texts, tmp_path):
    """Every factor is in the state dict, moves, and starts with sane values where a checkpoint lacks it."""
    model = make_model(fusion=fusion, cross_fusion_rank=2)
    assert model.num_parameters() < make_model(fusion=fusion).num_parameters()
    factors = {name for name, _ in model.named_parameters() if "_factors" in name}
    assert len(factors) == 6 and factors <= set(model.state_dict())
    model.save_pretrained(tmp_path)
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    reloaded = RsaCfnForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(reloaded(**batch).logits, model(**batch).logits, atol=1e-6, rtol=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(**batch, labels=torch.tensor([1, 2, 3])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=100.0).step()
    assert not [n for n, p in model.named_parameters() if "cross_network" in n and torch.equal(p, before[n])]


def test_factors_missing_from_a_checkpoint_are_initialised(make_model, tmp_path):
    make_model(fusion="early_fusion").save_pretrained(tmp_path)
    model = RsaCfnForSequenceClassification.from_pretrained(
        tmp_path, fusion="rsa_cfn", cross_fusion_rank=2, ignore_mismatched_sizes=True
    )
    for layer in model.modules():
        if isinstance(layer, LowRankCrossLinear):
            for name, bound in layer.init_bounds().items():
                values = getattr(layer, name)
                assert 0 < values.abs().max() <= bound and len(values.unique()) > 1, name
