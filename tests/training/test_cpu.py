"""What runs faster on a CPU computes what torch computes, and a Trainer computes by it."""

import copy
import platform
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainingArguments

from foundation.files import REPOSITORY
from training import cpu
from training.cpu import CpuFunctions, recompute_with_cpu_functions
from training.trainer import RsaCfnTrainer


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
        return cpu.dropout(torch.ones(4, 99), 0.3)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def make_heads(length=7):
    return [torch.randn(2, 3, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_attention_is_torchs_where_dropout_keeps_everything(monkeypatch):
    heads = make_heads()
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[1, ..., 5:] = False
    expected = F.scaled_dot_product_attention(*heads, attn_mask=mask)
    expected_grads = torch.autograd.grad(expected.square().sum(), heads)
    monkeypatch.setattr(cpu, "dropout", lambda weights, p: weights)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_without_units_for_it_has_its_type_and_a_smaller_error(
    dtype, monkeypatch, make_model, half_stem, batch
):
    model = make_model(audio_config=half_stem)
    exact = copy.deepcopy(model).double()(**batch).logits

    def run(has_units):
        monkeypatch.setattr(cpu, "has_units_for", lambda dtype: has_units)
        with CpuFunctions(), torch.autocast("cpu", dtype):
            output = model(**batch, labels=torch.tensor([0, 1, 2]))
        model.zero_grad()
        output.loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        return output.logits

    plain, fast = run(has_units=True), run(has_units=False)
    assert plain.dtype == fast.dtype == dtype
    assert (fast.double() - exact).norm() <= (plain.double() - exact).norm()


def test_convolutions_in_half_precision_are_torchs_and_have_gradients(monkeypatch):
    monkeypatch.setattr(cpu, "has_units_for", lambda dtype: True)
    layer = torch.nn.Conv1d(6, 8, kernel_size=3, stride=2)
    inputs = torch.randn(2, 6, 21)
    runs = []
    for functions in (nullcontext(), CpuFunctions()):
        x = inputs.clone().requires_grad_()
        with functions, torch.autocast("cpu", torch.bfloat16):
            outputs = layer(x)
        outputs.float().square().sum().backward()
        runs.append((outputs, x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()))
        layer.zero_grad()
    for expected, ours in zip(*runs):
        assert ours.dtype == expected.dtype and ours.shape == expected.shape
        torch.testing.assert_close(ours, expected, atol=0.1, rtol=0.03)


@pytest.mark.parametrize("channels", [8, 12])
def test_convolutions_of_few_channels_are_right(channels):
    """In bfloat16 by AMX, torch's own are wrong by as much as their result."""
    layer = torch.nn.Conv1d(2 * channels, 2 * channels, kernel_size=16, padding=8, groups=2)
    x = torch.randn(2, 2 * channels, 30)
    with torch.no_grad(), CpuFunctions(), torch.autocast("cpu", torch.bfloat16):
        outputs = layer(x)
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), layer(x), atol=0.03, rtol=0)


def test_weights_are_rounded_once_for_scoring_and_anew_when_they_have_changed(monkeypatch):
    monkeypatch.setattr(cpu, "has_units_for", lambda dtype: True)
    layer, x, functions = torch.nn.Linear(4, 3), torch.randn(32, 4), CpuFunctions()

    def run():
        with functions, torch.autocast("cpu", torch.bfloat16):
            return layer(x)

    with torch.no_grad():
        first, (_, rounded) = run(), functions.rounded[layer.weight]
        assert torch.equal(run(), first) and functions.rounded[layer.weight][1] is rounded
        layer.weight.mul_(2)
        torch.testing.assert_close(run() - layer.bias, 2 * (first - layer.bias), atol=0.05, rtol=0.05)
    run()
    assert not len(functions.rounded)  # in training they would only take memory


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_recomputes_what_ran(use_reentrant, make_model, batch):
    dropouts = {"hidden_dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5}
    model = make_model(fusion="early_fusion", audio_config=dropouts).train()

    def gradients():
        torch.manual_seed(3)
        model.zero_grad()
        with CpuFunctions():
            loss = model(**batch, labels=torch.tensor([0, 1, 2])).loss
        loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    plain = gradients()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    recompute_with_cpu_functions(model)
    torch.testing.assert_close(gradients(), plain)


@pytest.mark.parametrize("torch_compile", [False, True])
def test_a_trainer_computes_by_them_unless_it_compiles(torch_compile, monkeypatch, make_model, batch, tmp_path):
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return F.linear(*args, **kwargs)

    monkeypatch.setitem(CpuFunctions.replacements, F.linear, counted)
    arguments = TrainingArguments(
        tmp_path, max_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        remove_unused_columns=False, activation_checkpointing=True,
    )  # fmt: skip
    # As if it were given: compiling takes too long for a test.
    arguments.torch_compile = torch_compile
    monkeypatch.setattr("transformers.trainer.Trainer._wrap_model", lambda self, model, **kwargs: model)
    rows = [{name: tensor[row] for name, tensor in batch.items()} | {"labels": torch.tensor(row)} for row in range(3)]
    trainer = RsaCfnTrainer(make_model(), arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    in_training = len(calls)
    trainer.evaluate()
    assert (in_training > 0, len(calls) > in_training) == (not torch_compile,) * 2
    for layer in (trainer.model.text_model.encoder.layer[0], trainer.model.audio_model.encoder.layers[0]):
        assert (getattr(layer._gradient_checkpointing_func, "func", None) is cpu._checkpoint) != torch_compile


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to")
def test_what_is_freed_is_kept_for_what_comes_next():
    """Pages that the system has to clear, of five tensors of 64 MiB one after the other, before and after."""
    program = """
import resource, torch
from training.cpu import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed_memory()
for _ in range(5):
    faults()  # a few lie beside each other before one of them fits
print(before, faults())
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    before, after = map(int, result.stdout.split())
    assert after < before / 50
