"""Padding: the logits of a row don't depend on the rows beside it, for every fusion and both wav2vec2 families."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel

from configuration_rsa_cfn import FUSIONS
from encoders_rsa_cfn import MaskedGroupNormConvLayer, masked_group_norm, rows_of_similar_length
from modeling_rsa_cfn import RsaCfnForSequenceClassification


LAYER = {"feat_extract_norm": "layer"}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
FAMILIES = pytest.mark.parametrize("family", [LAYER, GROUP], ids=["layer", "group"])
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
TEXT_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
FUSION_DROPOUTS = ("residual_dropout", "mixer_dropout", "multi_sample_dropout")


@pytest.fixture(scope="session")
def make_batch():
    """A function that gives noise and random tokens of these lengths, padded together."""

    def make(num_samples, num_tokens):
        generator = torch.Generator().manual_seed(1)
        rows = len(num_samples)
        batch = {
            "input_values": torch.zeros(rows, max(num_samples)),
            "audio_attention_mask": torch.zeros(rows, max(num_samples), dtype=torch.long),
            "input_ids": torch.ones(rows, max(num_tokens), dtype=torch.long),
            "attention_mask": torch.zeros(rows, max(num_tokens), dtype=torch.long),
        }
        for row, (samples, tokens) in enumerate(zip(num_samples, num_tokens)):
            # An offset that drifts makes statistics over another stretch of time different ones.
            noise = torch.randn(samples, generator=generator)
            batch["input_values"][row, :samples] = noise * (row + 1) + torch.linspace(-1, row, samples)
            batch["audio_attention_mask"][row, :samples] = 1
            batch["input_ids"][row, :tokens] = torch.randint(3, 64, (tokens,), generator=generator)
            batch["attention_mask"][row, :tokens] = 1
        return batch

    return make


@pytest.fixture(scope="session")
def make_steady_model(make_model):
    """A function that gives a model without dropout, which computes in training what it does in evaluation."""

    def make(audio_config, **fields):
        return make_model(
            audio_config={**audio_config, **dict.fromkeys(DROPOUTS, 0.0)},
            text_config=dict.fromkeys(TEXT_DROPOUTS, 0.0),
            **{**dict.fromkeys(FUSION_DROPOUTS, 0.0), **fields},
        )

    return make


@torch.no_grad()
def assert_rows_do_not_depend_on_their_batch(model, batch, num_samples, num_tokens):
    """In training too, and where clips of unlike length aren't run apart."""
    model.runs_lengths_apart = False
    in_training = model.train()(**batch).logits
    del model.runs_lengths_apart
    together = model.eval()(**batch).logits
    for row, (samples, tokens) in enumerate(zip(num_samples, num_tokens)):
        alone = model(
            input_values=batch["input_values"][row : row + 1, :samples],
            input_ids=batch["input_ids"][row : row + 1, :tokens],
        ).logits
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(in_training[row], alone[0], atol=1e-5, rtol=0)


@FAMILIES
@pytest.mark.parametrize(
    "fusion, pooling_mode", [*((fusion, "mean") for fusion in FUSIONS), ("rsa", "attentive_statistics")]
)
def test_a_frame_beside_six_seconds(fusion, pooling_mode, family, make_steady_model, make_batch):
    num_samples, num_tokens = (400, 4000, 96000), (16, 2, 7)
    model = make_steady_model(family, fusion=fusion, pooling_mode=pooling_mode, max_audio_frames=600)
    assert_rows_do_not_depend_on_their_batch(model, make_batch(num_samples, num_tokens), num_samples, num_tokens)


DATA2VEC = {"model_type": "data2vec-audio", "conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 3}


@pytest.mark.parametrize(
    "audio_config", [DATA2VEC, {"add_adapter": True, "layerdrop": 0.0}], ids=["positions", "adapter"]
)
def test_convolutions_one_after_the_other_read_no_padding(audio_config, make_steady_model, make_batch):
    num_samples, num_tokens = (400, 4000, 9000), (16, 2, 7)
    model = make_steady_model(audio_config, fusion="early_fusion")
    assert_rows_do_not_depend_on_their_batch(model, make_batch(num_samples, num_tokens), num_samples, num_tokens)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(1, 12000), st.integers(1, 16)), min_size=1, max_size=4),
    family=st.sampled_from([LAYER, GROUP]),
    model_type=st.sampled_from(["wav2vec2", "hubert", "wavlm"]),
)
def test_any_lengths(make_steady_model, make_batch, rows, family, model_type):
    num_samples, num_tokens = zip(*rows)
    model = make_steady_model({"model_type": model_type, **family}, fusion="early_fusion")
    assert_rows_do_not_depend_on_their_batch(model, make_batch(num_samples, num_tokens), num_samples, num_tokens)


def test_masked_group_norm_is_the_plain_one_on_each_row_alone():
    norm = nn.GroupNorm(4, 4, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    hidden_states = torch.randn(3, 4, 50, dtype=torch.float64)
    num_frames = torch.tensor([[50], [2], [17]])
    hidden_states[2, :, 17:] = torch.nan  # what the padding holds can't matter
    masked = masked_group_norm(hidden_states, norm, num_frames)
    for row, frames in enumerate(num_frames.flatten().tolist()):
        alone = norm(hidden_states[row : row + 1, :, :frames])
        torch.testing.assert_close(masked[row, :, :frames], alone[0])
    assert masked.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masked_group_norm_keeps_half_precision_from_overflow(dtype):
    norm = nn.GroupNorm(2, 2, dtype=dtype)
    # The sum of 4,000 frames of 100, and that of their squares, are past float16's 65,504.
    hidden_states = 100 + torch.randn(1, 2, 4000)
    masked = masked_group_norm(hidden_states.to(dtype), norm, torch.tensor([[4000]]))
    assert masked.dtype == dtype
    expected = nn.functional.group_norm(hidden_states.to(dtype).float(), 2)
    torch.testing.assert_close(masked.float(), expected, atol=0.02, rtol=0.01)


def test_group_model_under_autocast_and_in_half(make_steady_model, make_batch, half_stem):
    """In training, where what is padded is run with the rest: the logits of each row alone in float32."""
    # One positional channel to a group: of more, but few, torch's bfloat16 convolutions by AMX are wrong.
    audio_config = {**GROUP, **half_stem, "num_conv_pos_embedding_groups": 16}
    model = make_steady_model(audio_config, fusion="early_fusion").train()
    model.runs_lengths_apart = False
    batch = make_batch((4000, 900), (5, 9))
    with torch.no_grad():
        row = {"input_values": batch["input_values"][1:, :900], "input_ids": batch["input_ids"][1:, :9]}
        expected = model(**row).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(model(**batch).logits[1:].float(), expected, atol=0.03, rtol=0)
        torch.testing.assert_close(model.half()(**batch).logits[1:].float(), expected, atol=0.01, rtol=0)


@FAMILIES
@torch.no_grad()
def test_clips_in_one_row_are_masked_and_weighed_as_padded_ones_are(family, make_steady_model, make_batch):
    audio_config = {**family, "mask_time_prob": 0.3, "mask_time_length": 2}
    model = make_steady_model(audio_config, fusion="early_fusion", use_weighted_layer_sum=True).train()
    batch, logits = make_batch((4000, 400, 9000, 2000), (5, 9, 3, 4)), []  # 400 samples are one frame
    for model.runs_lengths_apart in (False, True, True):
        np.random.seed(len(logits) // 2)
        logits.append(model(**batch).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=0)
    assert (logits[2] - logits[0]).abs().max() > 1e-4  # drawn anew


@FAMILIES
@pytest.mark.parametrize("is_apart", [False, True], ids=["together", "apart"])
def test_activation_checkpointing_changes_no_gradient(is_apart, family, make_steady_model, make_batch):
    """
    Two forwards, of other lengths, come before the backward: each recomputation sees its own. Nor do clips that are run
    apart, beside those that aren't.
    """
    plain = make_steady_model(family).train()
    plain.runs_lengths_apart = False
    checkpointed = copy.deepcopy(plain)
    checkpointed.runs_lengths_apart = is_apart
    checkpointed.activation_checkpointing_enable()
    assert checkpointed.audio_model.encoder.layers[0].gradient_checkpointing
    assert checkpointed.audio_model.feature_extractor.conv_layers[0].gradient_checkpointing
    assert checkpointed.text_model.encoder.layer[0].gradient_checkpointing
    labels = torch.tensor([1, 2])
    for model in (plain, checkpointed):
        first = model(**make_batch((4000, 900), (5, 9)), labels=labels).loss
        second = model(**make_batch((2000, 6000), (3, 4)), labels=labels).loss
        (first + second).backward()
    for (name, expected), parameter in zip(plain.named_parameters(), checkpointed.parameters()):
        assert (parameter.grad is not None) == (expected.grad is not None) == parameter.requires_grad, name
        torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_group_checkpoints_are_interchangeable_with_the_librarys(make_model, make_batch, tmp_path):
    model = make_model(audio_config=GROUP)
    nn.init.normal_(model.audio_model.feature_extractor.conv_layers[0].layer_norm.weight)
    library = AutoModel.from_config(model.config.audio_config)
    assert library.load_state_dict(model.audio_model.state_dict()) == ([], [])
    model.save_pretrained(tmp_path)
    reloaded, report = RsaCfnForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert isinstance(reloaded.audio_model.feature_extractor.conv_layers[0], MaskedGroupNormConvLayer)
    batch = make_batch((4000, 900), (5, 9))
    torch.testing.assert_close(reloaded(**batch).logits, model(**batch).logits, atol=1e-6, rtol=0)


def test_without_mask_padding_the_backbone_is_the_librarys(make_model, make_batch):
    model = make_model(audio_config=GROUP, fusion="audio", mask_padding=False)
    assert not any(isinstance(module, MaskedGroupNormConvLayer) for module in model.modules())
    batch = make_batch((4000, 900), (5, 9))
    expected = model.audio_model(batch["input_values"]).last_hidden_state.mean(dim=1)
    assert torch.equal(model(**batch).audio_embeds, expected)


def test_rows_of_similar_length_waste_little():
    lengths = torch.tensor([90, 10, 100, 95, 50, 48, 9, 47])
    parts = rows_of_similar_length(lengths)
    assert [part.tolist() for part in parts] == [[2, 3, 0], [4, 5, 7], [1, 6]]
    assert [part.tolist() for part in rows_of_similar_length(torch.tensor([7]))] == [[0]]


@pytest.mark.filterwarnings("ignore")  # tracing warns of every size it takes for fixed
@torch.no_grad()
@pytest.mark.slow
def test_what_is_traced_or_compiled_takes_clips_of_unlike_length_together(make_model, make_batch):
    one_layer = {"num_hidden_layers": 1}
    model = make_model(fusion="early_fusion", audio_config=one_layer, text_config=one_layer)
    batch = make_batch((4000, 900), (5, 9))
    names, tensors = zip(*batch.items())

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            return self.model(**dict(zip(names, inputs))).logits

    traced = torch.jit.trace(Logits(), tensors, check_trace=False)
    compiled = torch.compile(Logits(), backend="eager")
    # Of other lengths than those that were traced, among them equal ones.
    batch["audio_attention_mask"][0, 2000:] = 0
    batch["audio_attention_mask"][1, :2000] = 1
    expected = model(**batch).logits
    for graph in (traced, compiled):
        torch.testing.assert_close(graph(*batch.values()), expected, atol=1e-5, rtol=0)
