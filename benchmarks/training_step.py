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
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from benchmarks.baseline import PlainBaseline
from benchmarks.clips import (
    SIZES,
    benchmark_config,
    draw_durations,
    epoch_batches,
    make_processor,
    make_rows,
    representatives,
)
from benchmarks.measure import (
    GIBIBYTE,
    FlopCount,
    ProductPeaks,
    SectionTimer,
    check_memory,
    describe_run,
    is_emulated,
    peak_memory_bytes,
)
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from training.cpu import cpu_functions
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


VARIANTS = {
    "baseline fp32": Variant(True, torch.float32),
    "baseline bf16": Variant(True, torch.bfloat16),
    "baseline fp16": Variant(True, torch.float16),
    "ours fp32, random order": Variant(False, torch.float32),
    "ours fp32": Variant(False, torch.float32, grouped=True),
    "ours bf16": Variant(False, torch.bfloat16, grouped=True),
    "ours fp16": Variant(False, torch.float16, grouped=True),
}
CPU_VARIANTS = [name for name in VARIANTS if "fp16" not in name]


@dataclass
class Measured:
    """What the steps of a variant came to."""

    peak_bytes: int = 0
    rows: int = 0
    flops: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    sections: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def samples_per_second(self) -> float:
        return self.rows / sum(self.seconds)

    def add(self, step: "Measured"):
        """Count a further step."""
        self.rows += step.rows
        self.flops += step.flops
        self.seconds += step.seconds
        self.cpu_seconds += step.cpu_seconds
        for section, seconds in step.sections.items():
            self.sections[section] += seconds


class TrainingBenchmark:
    """
    One model and one optimizer, whose state all variants share, so that weights of gigabytes are there once.

    Args:
        size (`str`): `"full"` or `"small"`.
        device (`torch.device`): Where the model is.
        batch_size (`int`): Rows of a step.
        steps (`int`): Timed steps of each variant.
    """

    def __init__(self, size: str, device: torch.device, batch_size: int, steps: int):
        torch.manual_seed(0)
        config = benchmark_config(size)
        self.device = device
        self.model = RsaCfnForSequenceClassification(config).to(device).train()
        self.processor = make_processor(config.text_config.vocab_size)
        self.baseline = PlainBaseline(self.model, self.processor)
        self.collate = RsaCfnDataCollator(self.processor, audio_crop="random")
        self.optimizer = torch.optim.AdamW((p for p in self.model.parameters() if p.requires_grad), lr=1e-5)
        self.scaler = torch.amp.GradScaler(device.type)
        self.timer = SectionTimer({"audio": self.model.audio_model, "text": self.model.text_model}, device)
        durations = draw_durations(NUM_UTTERANCES, seed=0)
        lengths = durations.clip(max=self.processor.max_audio_seconds)
        self.batches = {}
        for grouped in (False, True):
            batches = representatives(epoch_batches(lengths, batch_size, grouped, seed=0), lengths, steps)
            self.batches[grouped] = [make_rows(durations, batch, config) for batch in batches]

    def step(self, variant: Variant, rows: list[dict]) -> Measured:
        """One step of a variant, from rows to new weights."""
        collate = self.collate
        if variant.is_baseline:
            rows, collate = self.baseline.load(rows), self.baseline.collate
        self.model.set_attn_implementation("eager" if variant.is_baseline else "sdpa")
        self._set_fused(not variant.is_baseline)
        scaler = self.scaler if variant.dtype == torch.float16 else None
        self.timer.start()
        start, cpu_start = time.perf_counter(), time.process_time()
        batch = {name: tensor.to(self.device) for name, tensor in collate(rows).items()}
        self.timer.end("loader")
        functions = nullcontext() if variant.is_baseline else cpu_functions(self.device)
        with FlopCount() as count:
            with functions, torch.autocast(self.device.type, variant.dtype, enabled=variant.dtype != torch.float32):
                loss = self.baseline.loss(**batch) if variant.is_baseline else self.model(**batch).loss
            self.timer.end("head")
            self.timer.backward(loss if scaler is None else scaler.scale(loss))
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.optimizer.zero_grad()
        self.timer.end("optimizer")
        return Measured(
            rows=len(rows),
            flops=count.flops,
            seconds=[time.perf_counter() - start],
            cpu_seconds=[time.process_time() - cpu_start],
            sections=dict(self.timer.seconds),
        )

    def _set_fused(self, fused: bool):
        """Fused as the Trainer has it, or what torch takes when nothing is said; the state is the same."""
        for group in self.optimizer.param_groups:
            group["fused"] = fused or None
        for state in self.optimizer.state.values():
            state["step"] = state["step"].to(self.device if fused else "cpu")

    def is_timed_once(self, variant: Variant) -> bool:
        """Whether the one step that is measured for memory is timed too: all of the baseline's are alike, and long."""
        return variant.is_baseline and is_emulated(self.device, variant.dtype)

    def measure(self, names: list[str]) -> tuple[dict[str, Measured], ProductPeaks]:
        """
        All variants, which take turns, and the speed of matrix products between them.

        The first step of each is measured for memory, on the longest of its batches; the others are timed.
        """
        variants = {name: VARIANTS[name] for name in names}
        measured = {name: Measured() for name in names}
        peaks = ProductPeaks(self.device, {variant.dtype for variant in variants.values()})
        self.step(Variant(False, torch.float32), self.batches[True][0])  # makes the optimizer's state
        for name, variant in variants.items():
            longest, steps = self.batches[variant.grouped][-1], []
            # What is drawn at random doesn't change the work, but spans that are masked are the same for all.
            torch.manual_seed(0)
            measured[name].peak_bytes = peak_memory_bytes(
                self.device, lambda v=variant, rows=longest, steps=steps: steps.append(self.step(v, rows))
            )
            if self.is_timed_once(variant):
                measured[name].add(steps[0])
            print(f"first step:{steps[0].seconds[0]:7.2f} s  {name}", flush=True)
        for index in range(len(self.batches[True])):
            peaks.measure()
            for name, variant in variants.items():
                if not self.is_timed_once(variant):
                    torch.manual_seed(index)
                    step = self.step(variant, self.batches[variant.grouped][index])
                    measured[name].add(step)
                    print(f"step {index + 1}:{step.seconds[0]:11.2f} s  {name}", flush=True)
        return measured, peaks


def format_table(measured: dict[str, Measured], peaks: ProductPeaks) -> str:
    """
    A Markdown table. Ratios are to the first variant. "of peak" is the operations a second against those of a matrix
    product; "at peak" is the ratio if the variant's products took their time at the peak, and nothing else took any.
    """
    columns = ["variant", "steps", "samples/s", "ratio", "s/step", "CPU s/step", "peak GiB", "TFLOP/step"]
    columns += ["of peak", "at peak"]
    lines = [f"| {' | '.join([*columns, *SECTIONS])} |", f"|---|{'---:|' * (len(columns) - 1 + len(SECTIONS))}"]
    reference = next(iter(measured.values())).samples_per_second
    for name, result in measured.items():
        steps, total = len(result.seconds), sum(result.seconds)
        peak = peaks[VARIANTS[name].dtype]
        cells = [
            name,
            f"{steps}",
            f"{result.samples_per_second:.3f}",
            f"{result.samples_per_second / reference:.2f}",
            f"{total / steps:.2f}",
            f"{sum(result.cpu_seconds) / steps:.2f}",
            f"{result.peak_bytes / GIBIBYTE:.2f}",
            f"{result.flops / steps / 1e12:.2f}",
            f"{result.flops / total / peak:.0%}",
            f"{result.rows / (result.flops / peak) / reference:.2f}",
            *(f"{result.sections[section] / total:.0%}" for section in SECTIONS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="A training step of rsa_cfn against the plain baseline.")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each variant")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all but those in fp16 on a CPU")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if arguments.size == "full" and device.type == "cpu":
        check_memory(parser, FULL_SIZE_GIBIBYTES)
    names = arguments.variants or (CPU_VARIANTS if device.type == "cpu" else list(VARIANTS))
    benchmark = TrainingBenchmark(arguments.size, device, arguments.batch_size, arguments.steps)
    measured, peaks = benchmark.measure(names)
    print(f"\n{describe_run(device)}; {arguments.size} size, batches of {arguments.batch_size}\n")
    print(format_table(measured, peaks))
    print(f"\n{peaks}")


if __name__ == "__main__":
    main()
