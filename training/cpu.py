"""What is slow on a CPU, done faster: dropout, attention with it, products in half precision, and memory."""

import ctypes
import sys
from contextlib import nullcontext
from functools import cache, partial, wraps

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary


# Dropout draws 16 bits for each element, so probabilities are rounded to 1 / 65,536.
NUM_DRAWS = 2**16
# With fewer rows, a product takes less time than its weights take to be rounded.
FEW_ROWS = 16
# With fewer to a group, oneDNN's convolution in bfloat16 by AMX is wrong by as much as its result (torch 2.13).
FEW_CHANNELS = 16
# Of glibc's malloc.h: the parameters of mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MEBIBYTE = 2**20
HALF_UNITS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}


class MaskAndScale(torch.autograd.Function):
    """x · keep · scale; for backward two bytes an element are kept in half precision and one in float32, where torch
    keeps as many as x has."""

    @staticmethod
    def forward(ctx, x, keep, scale):
        factors = keep.to(x.dtype).mul_(scale)
        ctx.save_for_backward(keep if x.dtype == torch.float32 else factors)
        ctx.scale = scale
        return factors.mul_(x) if x.dtype == torch.float32 else factors * x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (factors,) = ctx.saved_tensors
        if factors.dtype == torch.bool:
            factors = factors.to(grad.dtype).mul_(ctx.scale)
        return factors * grad, None, None


def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """As `torch.nn.functional.dropout`; a draw of 64 bits serves four elements, where torch makes one for each. The
    draws are NumPy's, in a quarter of the time, from a seed that is torch's."""
    threshold = round(p * NUM_DRAWS)
    if not training or inplace or not 0 < threshold < NUM_DRAWS:
        return F.dropout(x, p, training, inplace)
    seed = torch.empty((), dtype=torch.int64).random_().item()
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw((x.numel() + 3) // 4).view(np.int16))
    keep = draws[: x.numel()].view(x.shape) >= threshold - NUM_DRAWS // 2
    return MaskAndScale.apply(x, keep, NUM_DRAWS / (NUM_DRAWS - threshold))


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As torch's, whose kernel for a CPU is fused without dropout only; what it falls back to is slower than this."""
    if not dropout_p or is_causal or enable_gqa:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    dtype = half_dtype() or query.dtype
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast("cpu", enabled=False):  # it would have the softmax of half-precision scores in float32
        scores = (query.to(dtype) * scale) @ key.to(dtype).mT  # (B, heads, L, L)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=dtype).masked_fill_(~attn_mask, -torch.inf)
        if attn_mask is not None:
            scores += attn_mask
        return dropout(scores.softmax(dim=-1), dropout_p) @ value.to(dtype)


@cache
def has_units_for(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies numbers of this type, which otherwise takes it several times as long."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("architecture") != "x86_64" or dtype not in HALF_UNITS:
        return True
    return any(capabilities.get(name) for name in HALF_UNITS[dtype])


def half_dtype() -> torch.dtype | None:
    """The half precision of an autocast that is on, if any."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def in_float32(function):
    """
    A product that autocast would run in half precision, run in float32 where the processor has no units for less,
    where rounding the weights would take longer than the product, or where it would be wrong. Such units give the
    products of half-precision numbers exactly and add them up in float32, and so does this; the result has the type
    that autocast gives it. Weights, which are in float32, aren't rounded first.
    """

    @wraps(function)
    def product(x, *args, **kwargs):
        dtype = half_dtype()
        is_better = function is F.linear and torch.is_grad_enabled() and x.numel() <= FEW_ROWS * x.shape[-1]
        is_better = is_better or function is F.conv1d and args[0].shape[1] < FEW_CHANNELS
        if dtype is None or has_units_for(dtype) and not is_better:
            return function(x, *args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            args = [y.float() if torch.is_tensor(y) and y.dtype == dtype else y for y in (x, *args)]
            kwargs = {name: y.float() if torch.is_tensor(y) and y.dtype == dtype else y for name, y in kwargs.items()}
            return function(*args, **kwargs).to(dtype)

    return product


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """As torch's, which is far slower in half precision than the product of windows and weights that this is."""
    dtype = half_dtype()
    if dtype is None or not has_units_for(dtype) or (padding, dilation, groups) != ((0,), (1,), 1):
        return in_float32(F.conv1d)(x, weight, bias, stride, padding, dilation, groups)
    kernel, (stride,) = weight.shape[2], stride
    x, length = x.to(dtype).mT, (x.shape[2] - kernel) // stride * stride + 1
    windows = torch.cat([x[:, start : start + length : stride] for start in range(kernel)], dim=2)  # (B, frames, K * C)
    return F.linear(windows, weight.mT.flatten(1), bias).mT  # (B, channels, frames)


class CpuFunctions(TorchFunctionMode):
    """A context in which the functions of torch that have a faster form here take it. Without gradients it keeps the
    weights that autocast would round at each call, until they change."""

    replacements = {
        F.dropout: dropout,
        F.scaled_dot_product_attention: in_float32(scaled_dot_product_attention),
        F.linear: in_float32(F.linear),
        F.conv1d: conv1d,
    }

    def __init__(self):
        super().__init__()
        self.rounded = WeakTensorKeyDictionary()  # version of a weight, and the weight in half precision

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (F.linear, F.conv1d):
            dtype = half_dtype()
            if torch.is_grad_enabled():
                self.rounded.clear()  # training changes them, and needs the memory
            elif dtype is not None and has_units_for(dtype) and isinstance(args[1], nn.Parameter):
                args = (args[0], self._round(args[1], dtype), *args[2:])
        return self.replacements.get(function, function)(*args, **(kwargs or {}))

    def _round(self, weight, dtype):
        version, rounded = self.rounded.get(weight, (None, None))
        if version != weight._version or rounded.dtype != dtype:
            rounded = weight.to(dtype)
            self.rounded[weight] = weight._version, rounded
        return rounded


def keep_freed_memory(is_kept: bool = True):
    """
    Have glibc keep what is freed for what comes next. Otherwise it returns large tensors to the system, which clears
    the pages of each new one: a fifth of a full-size step. Allocators of other systems do as they did.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_MAX, 0 if is_kept else 65_536)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if is_kept else 64 * MEBIBYTE)
        mallopt(M_TOP_PAD, 64 * MEBIBYTE if is_kept else 0)


def cpu_functions(device: torch.device):
    """A context in which [`CpuFunctions`] do the work, if the device is a CPU."""
    return CpuFunctions() if device.type == "cpu" else nullcontext()


def recompute_with_cpu_functions(model: nn.Module):
    """Have activation checkpointing recompute by [`CpuFunctions`] too; backward runs outside of their context."""
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module._gradient_checkpointing_func = partial(_checkpoint, module._gradient_checkpointing_func)


def _checkpoint(checkpoint, function, *args):
    return checkpoint(partial(_call, function), *args)


def _call(function, *args):
    with CpuFunctions():
        return function(*args)
