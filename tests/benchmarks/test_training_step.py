"""The table of the training benchmark, at a small size."""

import pytest

from benchmarks import measure, training_step


def rows_of(table):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    header, _, *rows = cells
    return [dict(zip(header, row)) for row in rows]


@pytest.mark.slow
def test_a_training_step_of_each_variant(capsys, monkeypatch):
    monkeypatch.setattr(measure, "PRODUCT_SIZE", 64)
    variants = ["baseline fp32", "ours fp32"]
    training_step.main(["--size", "small", "--batch_size", "2", "--steps", "2", "--variants", *variants])
    rows = rows_of(capsys.readouterr().out.splitlines())
    assert [row["variant"] for row in rows] == variants
    assert [row["steps"] for row in rows] == ["2", "2"] and rows[0]["ratio"] == "1.00"
    for row in rows:
        assert sum(int(row[section].rstrip("%")) for section in training_step.SECTIONS) in range(97, 104)
        assert float(row["peak GiB"]) > 0.1 and float(row["s/step"]) > 0


def test_the_step_is_the_same_whichever_kernel_the_optimizer_runs():
    benchmark = training_step.TrainingBenchmark("small", training_step.torch.device("cpu"), batch_size=2, steps=1)
    for name in ("ours fp32", "baseline fp32", "ours fp32"):
        variant = training_step.VARIANTS[name]
        benchmark.step(variant, benchmark.batches[variant.grouped][0])
    steps = {int(state["step"]) for state in benchmark.optimizer.state.values()}
    assert steps == {3}
