"""Each step of two small corpora is measured, and simulated runs are taken for finished ones."""

import pytest

from benchmarks import growth
from configuration_rsa_cfn import FUSIONS
from experiments.plan import read_plan
from experiments.scored_run import read_runs


@pytest.mark.slow
def test_every_step_of_two_corpora_and_the_picture(capsys, monkeypatch, tmp_path):
    run_script, finished = growth.run_script, []

    def look_first(script, *options):
        if script == "run_experiments.py":
            runs, damaged = read_runs(read_plan(options[0]).cells, options[-1] / "cells")
            finished.append((len(runs), damaged))
        return run_script(script, *options)

    monkeypatch.setattr(growth, "run_script", look_first)
    monkeypatch.setattr(growth, "NUM_SEEDS", 1)
    monkeypatch.setattr(growth, "NUM_FOLDS", 2)
    growth.main(["--rows", "120", "240", "--picture", str(tmp_path / "growth.png")])
    assert finished == [(2 * len(FUSIONS), {})] * 2
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[1].strip() for line in lines[1:3]] == ["120", "240"]
    assert all(float(cell) > 0 for line in lines[1:3] for cell in line[1:-1])
    assert (tmp_path / "growth.png").stat().st_size > 10_000
