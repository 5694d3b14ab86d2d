"""
Logits of the same clips from `rsa_cfn` and from the plain baseline: speed, memory, and the cost of size and length.

```bash
python -m benchmarks.inference
python -m benchmarks.inference --device cuda --repeats 20
python -m benchmarks.inference --size small
```
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from benchmarks.baseline import PlainBaseline
from benchmarks.clips import SIZES, benchmark_config, draw_durations, make_processor, make_rows
from benchmarks.measure import (
    GIBIBYTE,
    FlopCount,
    ProductPeaks,
    check_memory,
    describe_run,
    is_emulated,
    median_seconds,
    peak_memory_bytes,
    synchronize,
)
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from training.cpu import cpu_functions
from training.trainer import RsaCfnDataCollator


FULL_SIZE_GIBIBYTES = 8
# One at a time, a clip takes so long that fewer of them tell.
NUM_CLIPS = {1: 4, 16: 16}
GRID_SECONDS, GRID_SIZES = (1.0, 2.0, 4.0, 6.0), (1, 2, 4)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Measured:
    """What running the clips came to."""

    peak_bytes: int
    flops: int
    seconds: list[float] = field(default_factory=list)


class InferenceBenchmark:
    """
    One model that both ways run, so that its weights are there once.

    Args:
        size (`str`): `"full"` or `"small"`.
        device (`torch.device`): Where the model is.
    """

    def __init__(self, size: str, device: torch.device):
        torch.manual_seed(0)
        self.device = device
        self.config = benchmark_config(size)
        self.model = RsaCfnForSequenceClassification(self.config).to(device).eval()
        processor = make_processor(self.config.text_config.vocab_size)
        self.baseline = PlainBaseline(self.model, processor)
        self.collate = RsaCfnDataCollator(processor)

    @torch.inference_mode()
    def run(self, is_baseline: bool, dtype: torch.dtype, rows: list[dict], batch_size: int):
        """Logits of all rows, from their files on; the baseline decodes all of them first."""
        self.model.set_attn_implementation("eager" if is_baseline else "sdpa")
        collate = self.baseline.collate if is_baseline else self.collate
        rows = self.baseline.load(rows) if is_baseline else rows
        # Ours as run_classification.py predicts.
        functions = nullcontext() if is_baseline else cpu_functions(self.device)
        with functions, torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            for start in range(0, len(rows), batch_size):
                batch = {name: x.to(self.device) for name, x in collate(rows[start : start + batch_size]).items()}
                del batch["labels"]
                self.baseline.logits(**batch) if is_baseline else self.model(**batch)
        synchronize(self.device)

    def compare(self, dtypes: list[str], batch_size: int, repeats: int, peaks: ProductPeaks) -> list[str]:
        """Rows of a Markdown table of both ways, on clips at even quantiles of the durations, in random order."""
        num_clips = NUM_CLIPS[batch_size]
        durations = np.quantile(draw_durations(10_000, seed=0), (np.arange(num_clips) + 0.5) / num_clips)
        rows = make_rows(durations, np.random.default_rng(0).permutation(num_clips), self.config)
        variants = {
            f"{name} {dtype}": (is_baseline, DTYPES[dtype])
            for dtype in dtypes
            for name, is_baseline in (("baseline", True), ("ours", False))
        }
        measured = self.measure(variants, rows, batch_size, repeats, peaks)
        medians = {name: statistics.median(result.seconds) for name, result in measured.items()}
        reference = next(iter(medians.values()))
        lines = []
        for name, seconds in medians.items():
            result = measured[name]
            cells = [
                f"{batch_size}",
                name,
                f"{num_clips / seconds:.2f}",
                f"{reference / seconds:.2f}",
                f"{1000 * seconds / num_clips:.0f}",
                f"{result.peak_bytes / GIBIBYTE:.2f}",
                f"{result.flops / num_clips / 1e9:.1f}",
                f"{result.flops / seconds / peaks[variants[name][1]]:.0%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def measure(
        self, variants: dict, rows: list[dict], batch_size: int, repeats: int, peaks: ProductPeaks
    ) -> dict[str, Measured]:
        """
        What each variant comes to; they take turns, after a first call of each that is measured for memory.

        The baseline is timed in that call alone where the device emulates its products: all its batches are alike.
        """
        measured = {}
        for repeat in range(repeats + 1):
            peaks.measure()
            for name, (is_baseline, dtype) in variants.items():
                is_timed_once = is_baseline and is_emulated(self.device, dtype)
                run = partial(self.run, is_baseline, dtype, rows, batch_size)
                start = time.perf_counter()
                if not repeat:
                    with FlopCount() as count:
                        peak = peak_memory_bytes(self.device, run)
                    measured[name] = Measured(peak, count.flops)
                elif not is_timed_once:
                    run()
                if is_timed_once == (not repeat):
                    measured[name].seconds.append(time.perf_counter() - start)
        return measured

    def grid(self, repeats: int) -> list[str]:
        """A Markdown table of milliseconds a clip in float32, by batch size and length of all clips."""
        lines = [
            f"| batch | baseline | {' | '.join(f'ours, {seconds:g} s' for seconds in GRID_SECONDS)} |",
            f"|---:|{'---:|' * (len(GRID_SECONDS) + 1)}",
        ]
        for batch_size in GRID_SIZES:
            functions = {}
            for is_baseline, duration in [(True, GRID_SECONDS[-1]), *((False, seconds) for seconds in GRID_SECONDS)]:
                rows = make_rows(np.full(batch_size, duration), np.arange(batch_size), self.config)
                functions[is_baseline, duration] = lambda b=is_baseline, r=rows: self.run(b, torch.float32, r, len(r))
            seconds = median_seconds(functions, repeats)
            cells = [f"{1000 * duration / batch_size:.0f}" for duration in seconds.values()]
            lines.append(f"| {batch_size} | {' | '.join(cells)} |")
        return lines


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Inference of rsa_cfn against the plain baseline.")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=1, help="timed calls of each variant, of which the median is")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if arguments.size == "full" and device.type == "cpu":
        check_memory(parser, FULL_SIZE_GIBIBYTES)
    benchmark = InferenceBenchmark(arguments.size, device)
    peaks = ProductPeaks(device, {DTYPES[dtype] for dtype in arguments.dtypes})
    print(f"{describe_run(device)}; {arguments.size} size\n")
    columns = ["batch", "variant", "clips/s", "ratio", "ms/clip", "peak GiB", "GFLOP/clip", "of peak"]
    print(f"| {' | '.join(columns)} |\n|---:|---|{'---:|' * (len(columns) - 2)}", flush=True)
    for batch_size in NUM_CLIPS:
        print("\n".join(benchmark.compare(arguments.dtypes, batch_size, arguments.repeats, peaks)), flush=True)
    print(f"\n{peaks}")
    print("\nMilliseconds a clip in fp32; the baseline pads every clip to 6 s\n")
    print("\n".join(benchmark.grid(arguments.repeats)))


if __name__ == "__main__":
    main()
