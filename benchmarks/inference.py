"""
Logits of the same clips from `rsa_cfn` and from the plain baseline: speed, memory, and the cost of size and length.

```bash
python -m benchmarks.inference
python -m benchmarks.inference --device cuda --repeats 20
python -m benchmarks.inference --size small
```
"""

import argparse
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baseline import PlainBaseline
from benchmarks.clips import benchmark_config, draw_durations, make_processor, make_rows
from benchmarks.measure import (
    GIBIBYTE,
    ProductPeaks,
    describe_run,
    is_emulated,
    median_seconds,
    parse_arguments,
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
        self.model = RsaCfnForSequenceClassification(self.config).to(device).eval().requires_grad_(False)
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
        runs, dtype_of, flops, peak_bytes = {}, {}, {}, {}
        for dtype in dtypes:
            for way, is_baseline in (("baseline", True), ("ours", False)):
                name = f"{way} {dtype}"
                dtype_of[name] = DTYPES[dtype]
                runs[name] = partial(self.run, is_baseline, DTYPES[dtype], rows, batch_size)
                with FlopCounterMode(display=False) as count:
                    peak_bytes[name] = peak_memory_bytes(self.device, runs[name])
                flops[name] = count.get_total_flops()
        seconds = median_seconds(runs | {"products": peaks.measure}, repeats)
        lines = []
        for name in runs:
            cells = [
                f"{batch_size}",
                name,
                f"{num_clips / seconds[name]:.2f}",
                f"{next(iter(seconds.values())) / seconds[name]:.2f}",
                f"{1000 * seconds[name] / num_clips:.0f}",
                f"{peak_bytes[name] / GIBIBYTE:.2f}",
                f"{flops[name] / num_clips / 1e9:.1f}",
                f"{flops[name] / seconds[name] / peaks[dtype_of[name]]:.0%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return lines

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
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default: fp32, and bf16 if it isn't emulated")
    parser.add_argument("--repeats", type=int, default=1, help="timed calls of each variant, of which the median is")
    arguments = parse_arguments(parser, argv, FULL_SIZE_GIBIBYTES)
    device = arguments.device
    dtypes = arguments.dtypes or ["fp32", *["bf16"] * (not is_emulated(device, torch.bfloat16))]
    benchmark = InferenceBenchmark(arguments.size, device)
    peaks = ProductPeaks(device, {DTYPES[dtype] for dtype in dtypes})
    print(f"{describe_run(device)}; {arguments.size} size\n")
    columns = ["batch", "variant", "clips/s", "ratio", "ms/clip", "peak GiB", "GFLOP/clip", "of peak"]
    print(f"| {' | '.join(columns)} |\n|---:|---|{'---:|' * (len(columns) - 2)}", flush=True)
    for batch_size in NUM_CLIPS:
        print("\n".join(benchmark.compare(dtypes, batch_size, arguments.repeats, peaks)), flush=True)
    print(f"\n{peaks}")
    print("\nMilliseconds a clip in fp32; the baseline pads every clip to 6 s\n")
    print("\n".join(benchmark.grid(arguments.repeats)))


if __name__ == "__main__":
    main()
