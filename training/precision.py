"""The precision a run computes in: the one asked for, or the nearest that its device has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils.import_utils import is_torch_fp16_available_on_device

from foundation.errors import InputError
from training.cpu import cpu_functions


NAMES = {"fp16": "float16", "bf16": "bfloat16", "no": "float32"}


@dataclass(frozen=True)
class Device:
    """What a device can compute in: whether there is mixed precision in a type, without emulation."""

    kind: str  # "cpu", "cuda", "mps", ...
    has_fp16: bool = True
    has_bf16: bool = True


def find_device(use_cpu: bool) -> Device:
    """The device a run will be on, as TrainingArguments choose it."""
    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return Device("cpu")
    # A CUDA card from before Ampere emulates bfloat16, several times slower than float32.
    is_emulated = accelerator.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return Device(
        accelerator.type,
        has_fp16=is_torch_fp16_available_on_device(accelerator.type),
        has_bf16=is_torch_bf16_gpu_available() and not is_emulated,
    )


def choose_precision(fp16: bool, bf16: bool, device: Device) -> tuple[str, str | None]:
    """`fp16`, `bf16` or `no`, where TrainingArguments would raise; and if it isn't what was asked for, a line."""
    if fp16 and bf16:
        raise InputError("--fp16 and --bf16 exclude each other; give one of them")
    available = {"fp16": device.has_fp16, "bf16": device.has_bf16, "no": True}
    wanted = "fp16" if fp16 else "bf16" if bf16 else "no"
    order = {"fp16": ("fp16", "bf16", "no"), "bf16": ("bf16", "fp16", "no"), "no": ("no",)}[wanted]
    precision = next(name for name in order if available[name])
    if precision == wanted:
        return precision, None
    instead = "float32" if precision == "no" else f"{NAMES[precision]}, as with --{precision}"
    return precision, f"--{wanted}: this {device.kind} device has no {NAMES[wanted]}, so the run computes in {instead}."


@contextmanager
def scoring_in(precision: str, device: torch.device) -> Iterator[None]:
    """A context to score in `fp16`, `bf16` or `no`, with what a CPU does faster. It is of one thread."""
    dtype = getattr(torch, NAMES[precision])
    with torch.autocast(device.type, dtype, enabled=precision != "no"), cpu_functions(device):
        yield
