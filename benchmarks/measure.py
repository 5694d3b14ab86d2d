"""Time, memory and products of functions and steps, measured side by side in one process."""

import argparse
import ctypes
import gc
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import psutil
import torch
import transformers
from torch import nn
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop, sdpa_flop

from training.cpu import has_units_for


GIBIBYTE = 2**30
PRODUCT_SIZE = 2048
# torch's own list lacks the kernels of the CPU.
register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, get_raw=True)(sdpa_flop)
register_flop_formula(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, get_raw=True)(
    sdpa_backward_flop
)


def describe_run(device: torch.device) -> str:
    """Processor or accelerator, threads, versions and date, in one line."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        file = Path("/proc/cpuinfo")
        lines = file.read_text().splitlines() if file.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else platform.processor()
        name = f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{name}; {versions}; {time.strftime('%Y-%m-%d')}"


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None, gibibytes: float) -> argparse.Namespace:
    """With `--size` and `--device`; ends with one line where less memory is free than the full size takes on a CPU."""
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu or cuda")
    arguments = parser.parse_args(argv)
    available = psutil.virtual_memory().available / GIBIBYTE
    if arguments.size == "full" and arguments.device.type == "cpu" and available < gibibytes:
        parser.error(f"{available:.0f} GiB of memory are free, and --size full takes {gibibytes}; give --size small")
    return arguments


def markdown_table(rows: list[dict[str, str]]) -> str:
    """Cells by the names of their columns, of which the first holds words."""
    lines = [" | ".join(cells) for cells in (rows[0], *(row.values() for row in rows))]
    lines = [f"| {line} |" for line in lines]
    return "\n".join([lines[0], f"|---|{'---:|' * (len(rows[0]) - 1)}", *lines[1:]])


def is_emulated(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device takes several times as long over products of this type as over those of float32."""
    return device.type == "cpu" and dtype != torch.float32 and not has_units_for(dtype)


def median_seconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median duration of each function in seconds, after one unmeasured call. The functions take turns, so that a busy
    machine slows all of them alike."""
    durations = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:
                durations[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in durations.items()}


def peak_memory_bytes(device: torch.device, function: Callable[[], object]) -> int:
    """The most memory held while the function ran, weights included: of the device, or of the process on a CPU. On a
    CPU of another system than Linux it is what the process held at the end."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device)
    if sys.platform != "linux":
        function()
        return psutil.Process().memory_info().rss
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what earlier functions freed isn't this one's
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    function()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def synchronize(device: torch.device):
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ProductPeaks:
    """The device's best speed in matrix products, of float32 and other types, measured again and again between what is
    compared with it."""

    def __init__(self, device: torch.device, dtypes: Iterable[torch.dtype]):
        self.device = device
        self.values = {dtype: [] for dtype in (torch.float32, *dtypes)}

    def measure(self):
        """Of each type once more one product of two square matrices, the best of three."""
        size = PRODUCT_SIZE * (4 if self.device.type == "cuda" else 1)
        for dtype, values in self.values.items():
            left, right = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
            seconds = []
            for _ in range(4):
                synchronize(self.device)
                start = time.perf_counter()
                left @ right
                synchronize(self.device)
                seconds.append(time.perf_counter() - start)
            values.append(2 * size**3 / min(seconds[1:]))

    def __getitem__(self, dtype: torch.dtype) -> float:
        """Operations a second open to a program under autocast to this type: float32 is, too, and may be the faster
        one."""
        return max(statistics.median(self.values[each]) for each in (torch.float32, dtype))

    def __str__(self):
        rates = [f"{statistics.median(values) / 1e9:.0f} GFLOP/s in {dtype}" for dtype, values in self.values.items()]
        return f"Matrix products: {', '.join(rates)}"


class SectionTimer:
    """Divides the time of training steps into sections, of which every moment belongs to one. The encoders' own
    sections are found by hooks. Backward goes through the head, then through the encoder that ran last, and then
    through the other, so each is left when the gradient of the next one's result is there."""

    def __init__(self, encoders: dict[str, nn.Module], device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        for name, encoder in encoders.items():
            encoder.register_forward_pre_hook(lambda *_: self.end("head"))
            encoder.register_forward_hook(partial(self._encoded, name))

    def start(self):
        """Forget what was measured; the first section starts."""
        synchronize(self.device)
        self.seconds.clear()
        self.last = time.perf_counter()

    def end(self, section: str):
        """What happened since the last section's end was `section`."""
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[section] += now - self.last
        self.last = now

    def backward(self, loss: torch.Tensor):
        """Run backward, divided into its sections."""
        self._reached = "head"
        loss.backward()
        self.end(self._reached)

    def _encoded(self, name, encoder, args, output):
        self.end(name)
        if output.last_hidden_state.requires_grad:
            output.last_hidden_state.register_hook(lambda grad: self._reach(name))

    def _reach(self, name):
        self.end(self._reached)
        self._reached = name
