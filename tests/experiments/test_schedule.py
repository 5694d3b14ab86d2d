"""Cells in processes of their own: side by side, failing alone, stopped by signals, and going on where they were."""

import os
import signal

import pytest

from experiments import schedule
from experiments.cells import LOG
from experiments.plan import Cell
from experiments.schedule import choose_num_processes, run_cells


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """The scheduler sets variables for its processes."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, "1" if name == "OMP_NUM_THREADS" else ""))
    monkeypatch.chdir(tmp_path)


def make_cells(prepared_dir, *more, fusions=("text",)):
    given = ["--dataset_name", str(prepared_dir), "--audio_model", "tiny", "--text_model", "tiny", "--max_steps", "1"]
    given += ["--disable_tqdm", "true", "--resume_from_checkpoint", "last", *more]
    return [Cell(f"session/{name}", name, "session", None, 1, [*given, "--fusion", name]) for name in fusions]


@pytest.mark.slow
def test_a_failed_cell_leaves_the_rest_going_on(prepared_dir, tmp_path):
    good, bad = make_cells(prepared_dir, fusions=("text", "early_fusion"))
    bad.arguments += ["--model_name_or_path", "nowhere"]
    changes = []
    errors = run_cells([bad, good], tmp_path, 1, lambda cell, state: changes.append((cell.system, state)))
    assert list(errors) == [bad.name]
    assert errors[bad.name].startswith("--model_name_or_path brings its own backbones")
    assert changes == [("early_fusion", "running"), ("early_fusion", "failed"), ("text", "running"), ("text", "done")]
    assert "macro F1" in (tmp_path / good.name / LOG).read_text()
    assert (tmp_path / good.name / "predictions.csv").is_file()


def test_a_cell_that_is_killed_names_the_signal(prepared_dir, tmp_path):
    (cell,) = make_cells(prepared_dir)

    def kill_it(cell, state):
        if state == "running":
            # Other tests of this process may have left servers and their children.
            children = schedule.psutil.Process().children(recursive=True)
            alive = [child for child in children if child.status() != schedule.psutil.STATUS_ZOMBIE]
            forked = [child for child in alive if "forkserver" in "".join(child.cmdline())]
            max(forked, key=lambda child: child.create_time()).send_signal(signal.SIGKILL)

    errors = run_cells([cell], tmp_path, 1, kill_it)
    assert errors == {cell.name: errors[cell.name]} and errors[cell.name].startswith("ended by SIGKILL")


@pytest.mark.parametrize(
    "is_tiny, num_cells, cores, gibibytes, expected",
    [(True, 40, 8, 100, 8), (True, 3, 8, 100, 3), (True, 40, 8, 5, 2), (True, 40, 8, 1, 1), (False, 40, 8, 100, 1)],
)
def test_as_many_side_by_side_as_cores_and_memory_allow(is_tiny, num_cells, cores, gibibytes, expected, monkeypatch):
    memory = type("Memory", (), {"available": gibibytes * 2**30})
    monkeypatch.setattr(schedule.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(schedule, "num_cores", lambda: cores)
    monkeypatch.setattr(schedule.torch.accelerator, "is_available", lambda: False)
    assert choose_num_processes(is_tiny, num_cells) == expected


def test_one_for_each_accelerator(monkeypatch):
    monkeypatch.setattr(schedule.torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(schedule.torch.accelerator, "device_count", lambda: 4)
    assert [choose_num_processes(is_tiny, 9) for is_tiny in (True, False)] == [4, 4]
    monkeypatch.setattr(schedule.torch.accelerator, "current_accelerator", lambda: schedule.torch.device("cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    assert [schedule._environment(place)["CUDA_VISIBLE_DEVICES"] for place in (0, 3, 4)] == ["2", "7", "2"]
