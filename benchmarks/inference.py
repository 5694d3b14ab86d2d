"""
Logits of the same clips from `rsa_cfn` and from the plain baseline: speed and memory.

```bash
python -m benchmarks.inference
python -m benchmarks.inference --device cuda --repeats 20
python -m benchmarks.inference --size small
```
"""

import argparse
import copy
from contextlib import nullcontext
from functools import cached_property, partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.baseline import PlainBaseline
from benchmarks.clips import benchmark_config, draw_durations, make_processor, make_rows
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from training.cpu import cpu_functions
from training.trainer import RsaCfnDataCollator


FULL_SIZE_GIBIBYTES = 8
# One at a time, a clip takes so long that fewer of them tell.
NUM_CLIPS = {1: 4, 16: 16}
# In int8 the rest is in fp32, whose products are the peak that it is held against.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}


class InferenceBenchmark:
    """One model that both ways run, so that its weights are there once, and a copy of it in int8."""

    def __init__(self, size: str, device: torch.device):
        torch.manual_seed(0)
        self.device = device
        self.config = benchmark_config(size)
        self.model = RsaCfnForSequenceClassification(self.config).to(device).eval().requires_grad_(False)
        processor = make_processor(self.config.text_config.vocab_size)
        self.baseline = PlainBaseline(self.model, processor)
        self.collate = RsaCfnDataCollator(processor)
        self.functions = cpu_functions(device)  # one context for all batches, as run_classification.py predicts

    @cached_property
    def int8_model(self) -> RsaCfnForSequenceClassification:
        return copy.deepcopy(self.model).to_int8()

    @torch.inference_mode()
    def run(self, is_baseline: bool, dtype_name: str, rows: list[dict], batch_size: int):
        """Logits of all rows, from their files on; the baseline decodes all of them first."""
        self.model.set_attn_implementation("eager" if is_baseline else "sdpa")
        model, dtype = self.int8_model if dtype_name == "int8" else self.model, DTYPES[dtype_name]
        collate = self.baseline.collate if is_baseline else self.collate
        rows = self.baseline.load(rows) if is_baseline else rows
        functions = nullcontext() if is_baseline else self.functions
        with functions, torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            for start in range(0, len(rows), batch_size):
                batch = {name: x.to(self.device) for name, x in collate(rows[start : start + batch_size]).items()}
                del batch["labels"]
                self.baseline.logits(**batch) if is_baseline else model(**batch)
        measure.synchronize(self.device)

    def compare(self, dtypes: list[str], batch_size: int, repeats: int, peaks) -> list[dict[str, str]]:
        """Both ways, on clips at even quantiles of the durations, in random order."""
        num_clips = NUM_CLIPS[batch_size]
        durations = np.quantile(draw_durations(10_000, seed=0), (np.arange(num_clips) + 0.5) / num_clips)
        rows = make_rows(durations, np.random.default_rng(0).permutation(num_clips), self.config)
        runs, flops, peak_bytes = {}, {}, {}
        for dtype in dtypes:
            for way in ("baseline", "ours") if dtype != "int8" else ("ours",):
                name = f"{way} {dtype}"
                runs[name] = partial(self.run, way == "baseline", dtype, rows, batch_size)
                with FlopCounterMode(display=False) as count:
                    peak_bytes[name] = measure.peak_memory_bytes(self.device, runs[name])
                # Products in int8 aren't counted; they are as many.
                flops[name] = flops.get("ours fp32", 0) if dtype == "int8" else count.get_total_flops()
        seconds = measure.median_seconds(runs | {"products": peaks.measure}, repeats)
        return [
            {
                "variant": name,
                "batch": f"{batch_size}",
                "clips/s": f"{num_clips / seconds[name]:.2f}",
                "ratio": f"{next(iter(seconds.values())) / seconds[name]:.2f}",
                "ms/clip": f"{1000 * seconds[name] / num_clips:.0f}",
                "peak GiB": f"{peak_bytes[name] / measure.GIBIBYTE:.2f}",
                "GFLOP/clip": f"{flops[name] / num_clips / 1e9:.1f}",
                "of peak": f"{flops[name] / seconds[name] / peaks[DTYPES[name.split()[1]]]:.0%}",
            }
            for name in runs
        ]


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Inference of rsa_cfn against the plain baseline.")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, help="default: fp32, bf16 if fast, int8 on a CPU")
    parser.add_argument("--repeats", type=int, default=1, help="timed calls of each variant, of which the median is")
    arguments = measure.parse_arguments(parser, argv, FULL_SIZE_GIBIBYTES)
    device = arguments.device
    is_fast = {"fp32": True, "bf16": not measure.is_emulated(device, torch.bfloat16), "int8": device.type == "cpu"}
    dtypes = arguments.dtypes or [dtype for dtype in is_fast if is_fast[dtype]]
    benchmark = InferenceBenchmark(arguments.size, device)
    peaks = measure.ProductPeaks(device, {DTYPES[dtype] for dtype in dtypes})
    print(f"{measure.describe_run(device)}; {arguments.size} size\n")
    rows = [row for size in NUM_CLIPS for row in benchmark.compare(dtypes, size, arguments.repeats, peaks)]
    print(f"{measure.markdown_table(rows)}\n\n{peaks}")


if __name__ == "__main__":
    main()
