"""Encoder options: what freezes, what stays frozen, and the weighted sum of layers."""

import pytest
import torch

from modeling_rsa_cfn import RsaCfnForSequenceClassification


STABLE, BASE = {}, {"do_stable_layer_norm": False, "feat_extract_norm": "group"}
BELOW_THE_LAYERS = ("audio_model.feature_extractor.", "audio_model.feature_projection.", "audio_model.encoder.pos_conv")


@pytest.fixture
def batch(processor, clips, texts):
    return processor(audio=clips, text=texts, return_tensors="pt")


@pytest.fixture
def reload(tmp_path):
    """A function that saves a model and loads it."""

    def save_and_load(model):
        model.save_pretrained(tmp_path)
        return RsaCfnForSequenceClassification.from_pretrained(tmp_path)

    return save_and_load


def frozen_names(model):
    """Without the keys' biases of the fusion, which cancel in its softmax and never train."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name for name in frozen if not name.endswith("_attention.key.bias")}


@pytest.mark.parametrize(
    "fields, audio_config, prefixes",
    [
        ({"freeze_audio_encoder": True}, STABLE, ("audio_model.",)),
        ({"freeze_text_encoder": True}, STABLE, ("text_model.",)),
        ({"freeze_audio_layers": 1}, STABLE, (*BELOW_THE_LAYERS, "audio_model.encoder.layers.0.")),
        (
            {"freeze_audio_layers": 1},
            BASE,
            (*BELOW_THE_LAYERS, "audio_model.encoder.layer_norm.", "audio_model.encoder.layers.0."),
        ),
        ({"freeze_text_layers": 1}, STABLE, ("text_model.embeddings.", "text_model.encoder.layer.0.")),
        ({"freeze_text_layers": 2}, STABLE, ("text_model.",)),
    ],
)
def test_what_is_frozen_stays_frozen_after_a_reload(fields, audio_config, prefixes, make_model, batch, reload):
    new = make_model(audio_config=audio_config, **fields)
    for model in (new, reload(new)):
        frozen = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
        assert frozen_names(model) == frozen
        model.train()(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
        assert all((parameter.grad is None) == (not parameter.requires_grad)
                   for name, parameter in model.named_parameters())  # fmt: skip


def test_a_backbone_frozen_whole_runs_as_in_evaluation(make_model, batch):
    augmented = {"mask_time_prob": 0.9, "mask_time_length": 2, "layerdrop": 0.5}
    model = make_model(
        fusion="early_fusion", audio_config=augmented, freeze_audio_encoder=True, freeze_text_encoder=True
    )
    expected = model(**batch).logits
    assert torch.equal(model.train()(**batch).logits, expected)
    assert model.training and not model.audio_model.training and not model.text_model.training


@pytest.mark.parametrize("frozen, trained", [("audio", "text"), ("text", "audio")])
def test_a_frozen_backbone_runs_once_on_each_row_and_keeps_nothing_for_a_gradient(frozen, trained, make_model, batch):
    model = make_model(fusion="early_fusion", **{f"freeze_{frozen}_encoder": True}).train()
    outputs = {"audio": [], "text": []}
    for modality, calls in outputs.items():
        backbone = getattr(model, f"{modality}_model")
        backbone.register_forward_hook(lambda *hooked, calls=calls: calls.append(hooked[-1].last_hidden_state))
    kept = {"audio": 0, "text": 0, None: 0}
    running = [None]

    def keep(tensor):
        kept[running[0]] += 1
        return tensor

    for modality in outputs:
        backbone = getattr(model, f"{modality}_model")
        backbone.register_forward_pre_hook(lambda *_, modality=modality: running.__setitem__(0, modality))
        backbone.register_forward_hook(lambda *_: running.__setitem__(0, None))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert [len(calls) for calls in outputs.values()] == [1, 1]
    assert all((states.grad_fn is None) == (modality == frozen) for modality in outputs for states in outputs[modality])
    assert kept[frozen] == 0 < kept[trained]


@pytest.mark.parametrize("field", ["freeze_audio_layers", "freeze_text_layers"])
@pytest.mark.parametrize("value", [-1, 3])
def test_more_layers_than_there_are_cannot_be_frozen(field, value, make_config):
    with pytest.raises(ValueError, match=f"{field}={value} is out of range; .* give 0 to 2"):
        make_config(**{field: value})


def test_a_backbone_that_shares_its_layers_says_so(make_model):
    with pytest.raises(ValueError, match="model_type='albert' has no layers of its own to freeze 1 of; give 0"):
        make_model(text_config={"model_type": "albert", "embedding_size": 8}, freeze_text_layers=1)


@pytest.mark.parametrize(
    "audio_config, is_frozen",
    [
        ({"mask_time_prob": 0.1}, False),
        ({"mask_time_prob": 0.1, "apply_spec_augment": False}, True),
        ({"mask_time_prob": 0.0, "mask_feature_prob": 0.1}, True),
    ],
)
def test_a_mask_embedding_that_nothing_reads_is_frozen(audio_config, is_frozen, make_model, reload):
    new = make_model(audio_config=audio_config)
    for model in (new, reload(new)):
        assert frozen_names(model) == ({"audio_model.masked_spec_embed"} if is_frozen else set())


@pytest.mark.parametrize("audio_config", [STABLE, BASE], ids=["stable", "base"])
def test_weighted_layer_sum(audio_config, make_model, batch, reload):
    model = make_model(use_weighted_layer_sum=True, audio_config={**audio_config, "layerdrop": 0.1})
    assert model.config.audio_config.layerdrop == 0.0
    for weights in (model.audio_layer_weights, model.text_layer_weights):
        assert weights.tolist() == pytest.approx([1 / 3] * 3)
    output = model(**batch, output_hidden_states=True)
    row = 2  # the longest clip, without padding
    expected = torch.stack(output.audio_hidden_states)[:, row].mean(dim=(0, 1))
    torch.testing.assert_close(output.audio_embeds[row], expected, atol=1e-6, rtol=0)
    model.train()(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    without_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without_gradient == {"fusion.audio_attention.key.bias", "fusion.text_attention.key.bias"}
    torch.nn.init.normal_(model.audio_layer_weights)
    # Not bit for bit: some kernels add up in another order where weights lie at another place in memory.
    torch.testing.assert_close(reload(model)(**batch).logits, model.eval()(**batch).logits, atol=1e-6, rtol=0)


def test_layer_weights_train_over_frozen_backbones(make_model, batch):
    model = make_model(use_weighted_layer_sum=True, freeze_audio_encoder=True, freeze_text_encoder=True).train()
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert model.audio_layer_weights.grad.any() and model.text_layer_weights.grad.any()


def test_weighted_layer_sum_needs_layers_of_one_length(make_config):
    with pytest.raises(ValueError, match="use_weighted_layer_sum .* audio_config.add_adapter=False"):
        make_config(use_weighted_layer_sum=True, audio_config={"add_adapter": True})


def test_hidden_states_of_both_backbones(make_model, batch):
    output = make_model()(**batch, output_hidden_states=True)
    assert [len(output.audio_hidden_states), len(output.text_hidden_states)] == [3, 3]
    assert {tuple(states.shape) for states in output.text_hidden_states} == {(3, 15, 12)}
    assert make_model()(**batch).audio_hidden_states is None
