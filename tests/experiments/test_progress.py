"""The progress of experiments: a line for each run that ends, and a table of all."""

import json

import pytest

from experiments.plan import Cell
from experiments.progress import Progress


@pytest.fixture
def cells(tmp_path):
    """Of two systems, two folds each; the first is finished."""
    made = [
        Cell(f"session/{system}/fold{fold}-seed1", system, "session", fold, 1, [])
        for system in ("rsa", "early_fusion")
        for fold in (1, 2)
    ]
    finish(made[0], tmp_path, 0.8125)
    return made


def finish(cell, folder, macro_f1):
    (folder / cell.name).mkdir(parents=True)
    (folder / cell.name / "all_results.json").write_text(json.dumps({"eval_macro_f1": macro_f1}))


def rows(table):
    return [line.split() for line in table.splitlines()]


def test_the_table_says_what_is_done_failed_and_left(cells, tmp_path, capsys):
    progress = Progress(cells, {cell.name for cell in cells[1:]}, 2, tmp_path)
    assert capsys.readouterr().out == "1 of 4 runs are finished; 2 run at a time.\n"
    assert rows(progress.table()) == [
        ["session", "session"],
        ["fold", "1", "fold", "2"],
        ["macro", "F1", "seed", "1", "seed", "1"],
        ["rsa", ".812", "·"],
        ["early_fusion", "·", "·"],
    ]
    progress.update(cells[1], "running")
    progress.update(cells[2], "running")
    finish(cells[1], tmp_path, 0.5)
    progress.update(cells[1], "done")
    progress.update(cells[2], "failed")
    assert rows(progress.table())[3:] == [["rsa", ".812", ".500"], ["early_fusion", "failed", "·"]]
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("[2/4] session/rsa/fold2-seed1: macro F1 .500, 0 s; 2 left")
    assert second.startswith("[3/4] session/early_fusion/fold1-seed1: failed, 0 s; 1 left")
    progress.update(cells[3], "running")
    progress.update(cells[3], "stopped")
    assert capsys.readouterr().out == "session/early_fusion/fold2-seed1: stopped; the same command resumes it\n"
    assert rows(progress.table())[4] == ["early_fusion", "failed", "·"]
    progress.close()
    assert rows(capsys.readouterr().out) == rows(progress.table())
