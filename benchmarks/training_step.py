"""
A training step of `rsa_cfn` against the plain baseline: speed, memory, the share of each part and of the device's peak.

```bash
python -m benchmarks.training_step --batch_size 4 --steps 4
python -m benchmarks.training_step --device cuda --steps 16
python -m benchmarks.training_step --size small
```
"""

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from pandas import DataFrame
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.baseline import PlainBaseline
from benchmarks.clips import benchmark_config, draw_durations, epoch_batches, make_processor, make_rows, representatives
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from training.cpu import cpu_functions, keep_freed_memory
from training.trainer import RsaCfnDataCollator


NUM_UTTERANCES = 512
SECTIONS = ("loader", "audio", "text", "head", "optimizer")
# At full size: weights, gradients, optimizer state and the activations of the baseline.
FULL_SIZE_GIBIBYTES = 18


@dataclass(frozen=True)
class Variant:
    """One way to train: the baseline's or ours, the precision, and the order of the rows."""

    is_baseline: bool
    dtype: torch.dtype
    grouped: bool = False
    is_apart: bool = True


VARIANTS = {
    "baseline fp32": Variant(True, torch.float32),
    "baseline bf16": Variant(True, torch.bfloat16),
    "ours fp32, padded": Variant(False, torch.float32, is_apart=False),
    "ours fp32, by length": Variant(False, torch.float32, grouped=True),
    "ours fp32": Variant(False, torch.float32),
    "ours bf16": Variant(False, torch.bfloat16),
    "ours fp16": Variant(False, torch.float16),
}


class TrainingBenchmark:
    """One model and one optimizer, whose state all variants share, so that weights of gigabytes are there once."""

    def __init__(self, size: str, device: torch.device, batch_size: int, steps: int):
        torch.manual_seed(0)
        config = benchmark_config(size)
        self.device = device
        self.model = RsaCfnForSequenceClassification(config).to(device).train()
        self.processor = make_processor(config.text_config.vocab_size)
        self.baseline = PlainBaseline(self.model, self.processor)
        self.collate = RsaCfnDataCollator(self.processor, audio_crop="random")
        self.optimizer = torch.optim.AdamW((p for p in self.model.parameters() if p.requires_grad), lr=1e-5)
        self.timer = measure.SectionTimer({"audio": self.model.audio_model, "text": self.model.text_model}, device)
        durations = draw_durations(NUM_UTTERANCES, seed=0)
        lengths = durations.clip(max=self.processor.max_audio_seconds)
        self.batches = {}
        for grouped in (False, True):
            batches = representatives(epoch_batches(lengths, batch_size, grouped, seed=0), lengths, steps)
            self.batches[grouped] = [make_rows(durations, batch, config) for batch in batches]

    def step(self, variant: Variant, rows: list[dict]) -> dict[str, float]:
        """One step of a variant, from rows to new weights: rows and seconds, and those of its sections."""
        collate = self.collate
        if variant.is_baseline:
            rows, collate = self.baseline.load(rows), self.baseline.collate
        self.model.set_attn_implementation("eager" if variant.is_baseline else "sdpa")
        self.model.runs_lengths_apart = variant.is_apart
        # Fused as the Trainer has it, or what torch takes when nothing is said; the state is the same.
        for group in self.optimizer.param_groups:
            group["fused"] = None if variant.is_baseline else True
        for state in self.optimizer.state.values():
            state["step"] = state["step"].to("cpu" if variant.is_baseline else self.device)
        keep_freed_memory(self.device.type == "cpu" and not variant.is_baseline)
        self.timer.start()
        start, cpu_start = time.perf_counter(), time.process_time()
        batch = {name: tensor.to(self.device) for name, tensor in collate(rows).items()}
        self.timer.end("loader")
        functions = nullcontext() if variant.is_baseline else cpu_functions(self.device)
        with functions, torch.autocast(self.device.type, variant.dtype, enabled=variant.dtype != torch.float32):
            loss = self.baseline.loss(**batch) if variant.is_baseline else self.model(**batch).loss
        self.timer.end("head")
        self.timer.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.timer.end("optimizer")
        seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
        return {"rows": len(rows)} | seconds | self.timer.seconds

    def count(self, variant: Variant, rows: list[dict]) -> dict[str, float]:
        """A step and its products; counting them slows each operation, which is much where a GPU waits for the next."""
        with FlopCounterMode(display=False) as count:
            step = self.step(variant, rows)
        step = step if self.device.type == "cpu" else self.step(variant, rows)
        return step | {"flops": count.get_total_flops()}

    def measure(self, names: list[str], peaks: measure.ProductPeaks) -> DataFrame:
        """What the steps of each variant took in all, by name; they take turns, and the speed of matrix products is
        measured between them. The first step of each is measured for memory alone, on the longest of its batches."""
        steps, peak_bytes = [], {}
        self.step(Variant(False, torch.float32), self.batches[True][0])  # makes the optimizer's state
        for name in names:
            # What is drawn at random doesn't change the work, but spans that are masked are the same for all.
            torch.manual_seed(0)
            step = partial(self.step, VARIANTS[name], self.batches[VARIANTS[name].grouped][-1])
            peak_bytes[name] = measure.peak_memory_bytes(self.device, step)
        for index in range(len(self.batches[False])):
            peaks.measure()
            for name in names:
                torch.manual_seed(index)
                step = self.count(VARIANTS[name], self.batches[VARIANTS[name].grouped][index])
                steps.append({"variant": name, "steps": 1} | step)
                print(f"step {index + 1}:{step['seconds']:11.2f} s  {name}", flush=True)
        return DataFrame(steps).groupby("variant", sort=False).sum().assign(peak_bytes=peak_bytes)


def format_table(measured: DataFrame, peaks: measure.ProductPeaks) -> str:
    """A Markdown table. Ratios are to the first variant. "of peak" is the operations a second against those of a matrix
    product; "at peak" is the ratio if the variant's products took their time at the peak, and nothing else took any."""
    speeds, rows = measured.rows / measured.seconds, []
    for name, total in measured.iterrows():
        peak = peaks[VARIANTS[name].dtype]
        cells = {
            "variant": name,
            "steps": f"{total.steps:.0f}",
            "samples/s": f"{speeds[name]:.3f}",
            "ratio": f"{speeds[name] / speeds.iloc[0]:.2f}",
            "s/step": f"{total.seconds / total.steps:.2f}",
            "CPU s/step": f"{total.cpu_seconds / total.steps:.2f}",
            "peak GiB": f"{total.peak_bytes / measure.GIBIBYTE:.2f}",
            "TFLOP/step": f"{total.flops / total.steps / 1e12:.2f}",
            "of peak": f"{total.flops / total.seconds / peak:.0%}",
            "at peak": f"{total.rows / (total.flops / peak) / speeds.iloc[0]:.2f}",
        }
        rows.append(cells | {section: f"{total[section] / total.seconds:.0%}" for section in SECTIONS})
    return measure.markdown_table(rows)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="A training step of rsa_cfn against the plain baseline.")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each variant")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all that the device doesn't emulate")
    arguments = measure.parse_arguments(parser, argv, FULL_SIZE_GIBIBYTES)
    device = arguments.device
    fast = [name for name, variant in VARIANTS.items() if not measure.is_emulated(device, variant.dtype)]
    names = arguments.variants or fast
    peaks = measure.ProductPeaks(device, {VARIANTS[name].dtype for name in names})
    measured = TrainingBenchmark(arguments.size, device, arguments.batch_size, arguments.steps).measure(names, peaks)
    print(f"\n{measure.describe_run(device)}; {arguments.size} size, batches of {arguments.batch_size}\n")
    print(format_table(measured, peaks))
    print(f"\n{peaks}")


if __name__ == "__main__":
    main()
