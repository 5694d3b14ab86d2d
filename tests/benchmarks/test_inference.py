"""The table of the inference benchmark, at a small size."""

import pytest

from benchmarks import inference, measure


@pytest.mark.slow
def test_both_ways_at_both_batch_sizes(capsys, monkeypatch):
    monkeypatch.setattr(measure, "PRODUCT_SIZE", 64)
    inference.main(["--size", "small", "--repeats", "1", "--dtypes", "fp32"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    compared = [line.split("|")[2:0:-1] for line in lines[1:]]
    assert [[cell.strip() for cell in cells] for cells in compared] == [
        ["1", "baseline fp32"],
        ["1", "ours fp32"],
        ["16", "baseline fp32"],
        ["16", "ours fp32"],
    ]
