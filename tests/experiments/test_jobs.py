"""Cells as jobs: what Slurm would be given, refusals in one line, and jobs that are killed or whose time is up."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psutil
import pytest

import run_experiments
from experiments.cells import is_finished
from experiments.jobs import Job, make_executor
from experiments.plan import Cell
from experiments.schedule import run_cells
from foundation.errors import InputError
from tests.test_run_experiments import run_in, write_plan


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Jobs have variables set, and find or don't find Slurm."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A machine where submitit finds Slurm."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def test_a_dry_run_shows_what_slurm_would_be_given(slurm, prepared_dir, tmp_path):
    plan = write_plan(tmp_path, prepared_dir)
    given = ["partition=gpu", "timeout_min=600", "gpus_per_node=1", "cpus_per_task=8", "mem_gb=32"]
    code, output, errors = run_in(tmp_path, plan, "--launcher", "slurm", "--slurm", *given, "--dry_run")
    assert code == 0, errors
    first, *lines = output.splitlines()
    assert first == "6 jobs are left; the first:"
    assert "#!/bin/bash" in lines
    told = ["partition=gpu", "time=600", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "dependency=singleton"]
    told += ["signal=USR2@90"]
    assert {f"#SBATCH --{option}" for option in told} <= set(lines)
    assert any(line.startswith("#SBATCH --job-name=session/rsa/fold2-seed7-") for line in lines)
    assert any(line.startswith("srun ") and "submitit.core._submit" in line for line in lines)
    assert not list(tmp_path.glob("results/small/cells/*"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--launcher", "slurm"], 'Could not detect "srun"'),
        (["--launcher", "slurm", "--slurm", "partitoin=gpu"], "Unknown argument 'partitoin'"),
        (["--launcher", "slurm", "--slurm", "timeout_min=long"], '"timeout_min" expected type'),
        (["--launcher", "slurm", "--slurm", "cluster=none"], "executor named none"),
        (["--dry_run"], "--slurm and --dry_run are for jobs of Slurm; give --launcher slurm too"),
    ],
)
def test_what_is_refused_says_so_in_one_line(arguments, message, prepared_dir, tmp_path, request):
    if "srun" not in message:
        request.getfixturevalue("slurm")
    code, output, errors = run_in(tmp_path, write_plan(tmp_path, prepared_dir), *arguments)
    assert (code, output) == (2, "") and message in errors.splitlines()[-1]


def test_missing_submitit_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(run_experiments, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="^--launcher slurm needs submitit; pip install submitit$"):
        run_experiments.parse_command(["plan.json", "--launcher", "slurm"])


@pytest.fixture
def cell(prepared_dir):
    given = ["--dataset_name", str(prepared_dir), "--audio_model", "tiny", "--text_model", "tiny", "--fusion", "text"]
    given += ["--disable_tqdm", "true", "--resume_from_checkpoint", "last", "--num_train_epochs", "30"]
    return Cell("session/text", "text", "session", None, 1, [*given, "--save_strategy", "epoch"])


def send(number, folder, file):
    """A signal to the process that runs the job, as soon as there is a file in the folder; to how many it was sent."""
    end = time.monotonic() + 300
    while not list(folder.glob(file)) and time.monotonic() < end:
        time.sleep(0.01)
    sent = 0
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and str(folder.parents[1]) in words[-1]:
            process.send_signal(number)
            sent += 1
    return sent


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGKILL])
def test_a_job_whose_time_is_up_goes_on_and_one_that_is_killed_is_told(number, cell, tmp_path):
    folder, launch = tmp_path / cell.name, partial(Job, make_executor(tmp_path / "jobs", ["cluster=local"]))
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send, number, folder, "checkpoint-*/trainer_state.json")
        errors = run_cells([cell], tmp_path, 1, lambda *_: None, launch)
        assert sent.result() == 1
    if number == signal.SIGUSR2:
        assert not errors
        log = next((tmp_path / "jobs").glob("*.err")).read_text() + (folder / "log.txt").read_text()
        assert "Requeued job" in log
    else:
        assert re.fullmatch(r"job \d+ ended as \w+; .*\.err has what it said last", errors[cell.name])
        assert not run_cells([cell], tmp_path, 1, lambda *_: None, launch)
    assert is_finished(folder)
