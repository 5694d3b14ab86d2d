"""What runs faster on a CPU computes what torch computes."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

import cpu_rsa_cfn
from cpu_rsa_cfn import CpuFunctions
from encoder_rsa_cfn import rows_of_similar_length


@pytest.fixture
def batch(processor, clips, texts):
    return dict(processor(audio=clips, text=texts, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_as_many_elements_and_the_scale(p):
    x = torch.full((999, 1001), 2.0, requires_grad=True)
    with CpuFunctions():
        y = torch.nn.Dropout(p)(x)
    y.sum().backward()
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=3e-3)
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 2 / (1 - p)), rtol=1e-4, atol=0)
    assert torch.equal(x.grad, y.detach() / 2)
    # Neighbours share a draw of 64 bits, and are independent all the same.
    for distance in (1, 2, 3, 4):
        both = (kept.flatten()[:-distance] & kept.flatten()[distance:]).float().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=4e-3)


def test_dropout_follows_the_seed():
    def draw(seed):
        torch.manual_seed(seed)
        return cpu_rsa_cfn.dropout(torch.ones(4, 99), 0.3)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def make_heads(length=7):
    return [torch.randn(2, 3, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_attention_is_torchs_where_dropout_keeps_everything(monkeypatch):
    heads = make_heads()
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, ..., 5:] = False
    expected = F.scaled_dot_product_attention(*heads, attn_mask=mask)
    expected_grads = torch.autograd.grad(expected.square().sum(), heads)
    monkeypatch.setattr(cpu_rsa_cfn, "dropout", lambda weights, p: weights)
    with CpuFunctions():
        attended = F.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=0.5)
    torch.testing.assert_close(attended, expected)
    torch.testing.assert_close(torch.autograd.grad(attended.square().sum(), heads), expected_grads)


def test_attention_with_dropout_is_unbiased_and_varies():
    heads = make_heads()
    with CpuFunctions():
        draws = torch.stack([F.scaled_dot_product_attention(*heads, dropout_p=0.2) for _ in range(2000)])
    torch.testing.assert_close(draws.mean(dim=0), F.scaled_dot_product_attention(*heads), atol=0.1, rtol=0)
    assert draws.std(dim=0).min() > 0.01


@pytest.mark.parametrize("kernel_size, stride, bias", [(10, 5, False), (3, 2, True), (2, 2, True), (1, 1, True)])
def test_a_frozen_convolution_is_torchs(kernel_size, stride, bias):
    convolution = torch.nn.Conv1d(6, 8, kernel_size, stride, bias=bias).requires_grad_(False)
    for x in (torch.randn(3, 6, 41), torch.randn(3, 41, 6).transpose(1, 2), torch.randn(3, 6, 50)[..., 4:45]):
        with CpuFunctions():
            fast = convolution(x)
        torch.testing.assert_close(fast, convolution(x), atol=1e-5, rtol=1e-5)


def test_autocast_chooses_the_type_of_a_frozen_convolution(monkeypatch):
    monkeypatch.setattr(cpu_rsa_cfn, "has_units_for", lambda dtype: True)
    convolution, x = torch.nn.Conv1d(6, 8, 3).requires_grad_(False), torch.randn(2, 6, 41)
    with torch.autocast("cpu", torch.bfloat16):
        expected = convolution(x)
        with CpuFunctions():
            fast = convolution(x)
    assert fast.dtype == torch.bfloat16 and torch.equal(fast, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_without_units_for_it_has_its_type_and_a_smaller_error(dtype, monkeypatch, make_model, batch):
    model = make_model()
    exact = copy.deepcopy(model).double()(**batch).logits

    def run(has_units):
        monkeypatch.setattr(cpu_rsa_cfn, "has_units_for", lambda dtype: has_units)
        with torch.autocast("cpu", dtype):
            output = model(**batch, labels=torch.tensor([0, 1, 2]))
        model.zero_grad()
        output.loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        return output.logits

    plain, fast = run(has_units=True), run(has_units=False)
    assert plain.dtype == fast.dtype == dtype
    assert (fast.double() - exact).norm() <= (plain.double() - exact).norm()


@torch.no_grad()
def test_features_computed_ahead_are_those_of_a_forward_pass(monkeypatch, make_model, batch):
    monkeypatch.setattr(cpu_rsa_cfn, "has_units_for", lambda dtype: False)
    model = make_model()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
        audio = model.get_audio_features(batch["input_values"], batch["audio_attention_mask"])
        text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    assert torch.equal(audio, output.audio_embeds) and torch.equal(text, output.text_embeds)


@torch.no_grad()
def test_threads_that_share_a_model_get_what_each_would_get_alone(monkeypatch, make_model, processor, clips, texts):
    """Half of them under autocast: the functions, like autocast, hold in the thread that asked for them."""
    monkeypatch.setattr(cpu_rsa_cfn, "has_units_for", lambda dtype: False)
    model = make_model(freeze_feature_encoder=True)

    def predict(index):
        batch = processor(audio=[clips[index % 3], clips[1]], text=texts[:2], return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=index % 2 == 1):
            return model(**batch).logits

    alone = [predict(index) for index in range(6)]
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(predict, list(range(6)) * 20))
    assert all(torch.equal(logits, alone[index % 6]) for index, logits in enumerate(together))


@torch.no_grad()
def test_what_is_traced_or_compiled_is_torchs_own(monkeypatch, make_model, batch):
    model = make_model(freeze_feature_encoder=True)
    names, tensors = zip(*batch.items())
    expected = model(**batch).logits

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            return self.model(**dict(zip(names, inputs))).logits

    def refuse(*args, **kwargs):
        raise AssertionError("a graph would hold the functions of this machine")

    monkeypatch.setattr(CpuFunctions, "__torch_function__", refuse)
    traced = torch.jit.trace(Logits(), tensors, check_trace=False)
    exported = torch.export.export(Logits(), tensors, strict=False).module()
    compiled = torch.compile(Logits(), backend="eager")
    for graph in (traced, exported, compiled):
        torch.testing.assert_close(graph(*tensors), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_recomputes_what_ran(use_reentrant, make_model, batch):
    dropouts = {"hidden_dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5}
    model = make_model(fusion="early_fusion", audio_config=dropouts).train()

    def gradients():
        torch.manual_seed(3)
        model.zero_grad()
        model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    plain = gradients()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    torch.testing.assert_close(gradients(), plain)


def test_rows_of_similar_length_waste_little():
    lengths = torch.tensor([90, 10, 100, 95, 50, 48, 9, 47])
    parts = rows_of_similar_length(lengths)
    assert [part.tolist() for part in parts] == [[2, 3, 0], [4, 5, 7], [1, 6]]
    assert [part.tolist() for part in rows_of_similar_length(torch.tensor([7]))] == [[0]]
