"""The fusions: the arithmetic of each, against its definition."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.baseline import plain_self_attention
from configuration_rsa_cfn import FUSIONS
from fusion_rsa_cfn import (
    FUSION_CLASSES,
    CrossNetwork,
    LogitsNorm,
    LowRankCrossLinear,
    LowRankCrossNetwork,
    ScalarSelfAttention,
    cross_features,
)
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from tests.slow import mostly_slow


@pytest.fixture
def make_fusion(make_config):
    """A function that gives a fusion alone, in float64 and evaluation mode."""

    def make(name, **fields):
        return FUSION_CLASSES[name](make_config(fusion=name, **fields)).double().eval()

    return make


@pytest.fixture
def embeds():
    """Pooled audio, (5, 16), and pooled text, (5, 12)."""
    return torch.randn(5, 16, dtype=torch.float64), torch.randn(5, 12, dtype=torch.float64)


def test_every_fusion_has_a_class():
    assert tuple(FUSION_CLASSES) == FUSIONS


@pytest.mark.parametrize("fusion", FUSIONS)
def test_attributes_stand_beside_logits_that_are_as_without_them(fusion, make_model, processor, clips, texts):
    plain = make_model(fusion=fusion)
    model = make_model(fusion=fusion, attributes=["valence", "arousal"], attribute_ranges=[[1, 5], [-2, 0]])
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert missing and all("attribute_head" in name for name in missing) and not unexpected
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    with torch.no_grad():
        expected, outputs = plain(**batch), model(**batch)
        assert torch.equal(outputs.logits, expected.logits) and expected.attributes is None
        # A head that tells 0 is in the middle of each range, one that tells 1 at its upper end.
        for bias, ends in ((0, [3, -1]), (1, [5, 0])):
            for name in missing:
                torch.nn.init.constant_(model.get_parameter(name), bias if name.endswith("bias") else 0)
            told = model(**batch).attributes
            torch.testing.assert_close(told, torch.tensor([ends] * 3, dtype=torch.float32))
    assert outputs.attributes.shape == (3, 2) and outputs.attributes.std(dim=0).min() > 0


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


def test_late_fusion_norms_each_classifier_with_one_norm(make_fusion, embeds):
    fusion = make_fusion("late_fusion")
    weight, bias = torch.nn.init.normal_(fusion.norm.weight), torch.nn.init.normal_(fusion.norm.bias)
    audio, text = fusion.audio_classifier_head(embeds[0]), fusion.text_classifier_head(embeds[1])
    expected = (F.layer_norm(audio, (7,), weight, bias) + F.layer_norm(text, (7,), weight, bias)) / 2
    torch.testing.assert_close(fusion(*embeds)[0], expected, atol=1e-12, rtol=0)


def test_stack_averages_the_logits_of_its_dropout_masks(make_fusion, embeds):
    fusion = make_fusion("stack", multi_sample_draws=3).train()
    features = fusion.norm(torch.cat(embeds, dim=1))
    torch.manual_seed(1)
    masked = fusion.dropout(features.expand(3, -1, -1))
    expected = sum(fusion.classifier_head(copy) for copy in masked) / 3
    torch.manual_seed(1)
    torch.testing.assert_close(fusion(*embeds)[0], expected, atol=1e-12, rtol=0)
    assert not torch.equal(masked[0], masked[1])
    early = make_fusion("early_fusion")
    early.load_state_dict(fusion.state_dict())
    torch.testing.assert_close(fusion.eval()(*embeds)[0], early(*embeds)[0], atol=1e-12, rtol=0)


def test_rsa_reads_attended_features_and_skips_with_plain_ones(make_fusion, embeds):
    fusion = make_fusion("rsa")
    z = fusion.norm(torch.cat(embeds, dim=1))
    u, weights = plain_self_attention(fusion.attention, z)
    r = F.relu(fusion.residual.dense(u))
    s = F.relu(fusion.residual.output(torch.cat([u, r], dim=1)))
    logits, attentions = fusion(*embeds, output_attentions=True)
    torch.testing.assert_close(logits, fusion.classifier_head(z + s), atol=1e-12, rtol=0)
    torch.testing.assert_close(attentions[0], weights, atol=1e-12, rtol=0)


def test_hybrid_fusion_is_the_mean_of_its_normed_branches(make_fusion, embeds):
    fusion = make_fusion("hybrid_fusion")
    branches = (fusion.early_fusion_head, fusion.late_fusion_head, fusion.residual_fusion_head, fusion.rsa_cfn)
    expected = sum(fusion.norm(branch(*embeds)[0]) for branch in branches) / 4
    torch.testing.assert_close(fusion(*embeds)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("fusion, size", [("rsa", 28), ("rsa_cfn", 6), ("hybrid_fusion", 6)])
def test_attention_maps(fusion, size, make_fusion, embeds):
    expected = 1 if fusion == "rsa" else 2
    module = make_fusion(fusion)
    logits, attentions = module(*embeds, output_attentions=True)
    assert [tuple(attention.shape) for attention in attentions] == [(5, size, size)] * expected
    for attention in attentions:
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(5, size).double())
    plain_logits, no_attentions = module(*embeds)
    assert no_attentions == ()
    torch.testing.assert_close(logits, plain_logits, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_are_normed_in_float32_under_autocast(dtype):
    norm, logits = LogitsNorm(7), torch.randn(4, 7).to(dtype)
    with torch.autocast("cpu", dtype):
        normed = norm(logits)
    assert normed.dtype == torch.float32
    torch.testing.assert_close(normed, norm(logits.float()), atol=0, rtol=0)
    assert norm.to(dtype)(logits).dtype == dtype


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
            factors = torch.cat([layer.audio_factors, layer.text_factors])
            bound = (3 / (7 * 6**0.5)) ** 0.5  # of seven features with the constant, and rank 2
            assert 0.8 * bound < factors.abs().max() <= bound and 0 < layer.bias.abs().max() <= 1 / 7


def sequences(audio_widths=(20, 7), text_widths=(9, 4)):
    """Hidden states of two rows and a mask of each modality: `((B, S, H), (B, S))` twice, audio first."""
    pairs = []
    for widths, size in ((audio_widths, 16), (text_widths, 12)):
        counts = (torch.arange(max(widths)) < torch.tensor(widths)[:, None]).long()
        pairs.append((torch.randn(2, max(widths), size, dtype=torch.float64), counts))
    return pairs


def mixed(fusion, tokens):
    """The definition of the block: one norm, used twice; the channels of what the first step made."""
    update = fusion.token_mlp(fusion.block_norm(tokens).mT).mT
    return fusion.norm(tokens + update + fusion.channel_mlp(fusion.block_norm(update)))


def mixer_logits(fusion, pooled):
    return fusion.classifier_head(F.gelu(fusion.dense(pooled)))


def test_mlp_mixer_masked(make_fusion):
    """Zeros behind each row's end, the mean over what is valid: each row as if alone and never padded."""
    fusion = make_fusion("mlp_mixer")
    (audio, audio_counts), (text, text_counts) = sequences()
    expected = []
    for row in range(2):
        text_length, audio_length = int(text_counts[row].sum()), int(audio_counts[row].sum())
        tokens = torch.zeros(1, 116, 6, dtype=torch.float64)
        tokens[0, :text_length] = fusion.text_projection(text[row, :text_length])
        tokens[0, 16 : 16 + audio_length] = fusion.audio_projection(audio[row, :audio_length])
        states = mixed(fusion, tokens)[0]
        valid = torch.cat([states[:text_length], states[16 : 16 + audio_length]])
        expected.append(mixer_logits(fusion, valid.mean(dim=0)))
    logits, _ = fusion((audio, audio_counts), (text, text_counts))
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-12, rtol=0)


def test_mlp_mixer_unmasked(make_fusion):
    """The last text state stands for all the padding of its row; audio ends in zeros; the mean is over all."""
    fusion = make_fusion("mlp_mixer", mask_padding=False)
    (audio, _), (text, text_counts) = sequences()
    text_counts[0, -1] += 16 - 9
    text_counts[1, -1] += 16 - 4
    full_text = torch.cat([text[:, :8], text[:, 8:].expand(-1, 8, -1)], dim=1)
    full_text[1, 4:] = text[1, 8]
    tokens = torch.cat([fusion.text_projection(full_text), fusion.audio_projection(audio)], dim=1)
    expected = mixer_logits(fusion, mixed(fusion, F.pad(tokens, (0, 0, 0, 80))).mean(dim=1))
    logits, _ = fusion((audio, torch.ones(2, 20)), (text, text_counts))
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)


def plain_cross_attention(layer, states, other):
    """The definition of the layer on one row of each modality: `(S, M)` and `(other_S, M)`; and the map."""
    module = torch.nn.MultiheadAttention(6, layer.num_heads, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        keys_bias = torch.zeros(6, dtype=torch.float64)
        module.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        module.in_proj_bias.copy_(torch.cat([layer.query.bias, keys_bias, layer.value.bias]))
    module.out_proj = layer.output
    keys = layer.key_norm(other)
    attended, attention = module(layer.query_norm(states), keys, keys)
    states = states + attended
    return states + layer.mlp(layer.norm(states)), attention


def test_cross_attention(make_fusion):
    """Two layers, each row as if alone and never padded, against torch's own attention."""
    fusion = make_fusion("cross_attention", cross_attention_layers=2)
    pairs = sequences()
    logits, (audio_maps, text_maps) = fusion(*pairs, output_attentions=True)
    assert torch.equal(fusion(*pairs)[0], logits) and fusion.audio_layers[0].num_heads == 2
    for row in range(2):
        audio, text = (states[row, : counts[row].sum()] for states, counts in pairs)
        audio, text = fusion.audio_projection(audio), fusion.text_projection(text)
        for number, layers in enumerate(zip(fusion.audio_layers, fusion.text_layers)):
            (audio, to_text), (text, to_audio) = (
                plain_cross_attention(layer, *states) for layer, states in zip(layers, ((audio, text), (text, audio)))
            )
            for found, expected in ((audio_maps, to_audio), (text_maps, to_text)):
                found = found[number][row, : len(expected), : expected.shape[1]]
                torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        pooled = fusion.norm(torch.cat([audio.mean(dim=0), text.mean(dim=0)]))
        torch.testing.assert_close(logits[row], fusion.classifier_head(pooled), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "field, widths", [("max_audio_frames", ((101, 3), (4, 2))), ("max_text_tokens", ((9, 9), (17, 2)))]
)
def test_mlp_mixer_refuses_a_row_that_does_not_fit(field, widths, make_fusion):
    fusion = make_fusion("mlp_mixer")
    length = getattr(fusion, field)
    audio, text = sequences(*widths)
    with pytest.raises(ValueError, match=f"{length + 1} positions doesn't fit {field}={length}; give rows of 1 to"):
        fusion(audio, text)
    # What is too long only by its padding does fit.
    for _, counts in (audio, text):
        counts[0, -1] = 0
    assert torch.isfinite(fusion(audio, text)[0]).all()


def test_unmasked_text_that_does_not_fit_is_refused(make_model):
    model = make_model(fusion="text", mask_padding=False)
    with pytest.raises(ValueError, match="17 tokens doesn't fit max_text_tokens=16; give rows of 1 to 16"):
        model(input_ids=torch.full((1, 17), 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fusion", mostly_slow([*FUSIONS, "attentive_statistics"], *FUSIONS[:-1]))
def test_training_stays_finite_under_autocast(fusion, dtype, make_model, half_stem):
    """Twenty steps on waveforms a thousand times too loud, with one clip and one transcript padded."""
    one_layer = {"num_hidden_layers": 1}
    fields = {"fusion": fusion} if fusion in FUSIONS else {"fusion": "early_fusion", "pooling_mode": fusion}
    model = make_model(audio_config={**one_layer, **half_stem}, text_config=one_layer, **fields).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    batch = {
        "input_values": 1e3 * torch.randn(3, 800),
        "audio_attention_mask": (torch.arange(800) < torch.tensor([[800], [800], [500]])).long(),
        "input_ids": torch.randint(3, 64, (3, 5)),
        "attention_mask": torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [1] * 5]),
        "labels": torch.tensor([1, 4, 6]),
    }
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", dtype):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())
    assert torch.stack(losses).isfinite().all()
    assert torch.stack(losses[-5:]).mean() < losses[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
