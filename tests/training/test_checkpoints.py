"""Checkpoints on the disk: which are whole, which one comes next, and which are deleted."""

import json
import logging
import os

import pytest

from foundation.errors import InputError, RunStopped
from foundation.files import read_json
from training.checkpoints import (
    FILE_LIST,
    FINISHED,
    delete,
    find_checkpoint,
    find_damage,
    is_finished,
    is_half_written,
    list_checkpoints,
    remove_half_written,
    rotate,
    seal,
    writing,
)


@pytest.fixture
def make(tmp_path):
    """A function that makes a small checkpoint, whole or not."""

    def make(step, is_whole=True):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "code").mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.pt", "code/modeling.py"):
            (folder / name).write_text(name)
        if is_whole:
            seal(folder)
        return folder

    return make


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "training")


def test_a_whole_checkpoint_lists_all_its_files(make):
    folder = make(1)
    files = json.loads((folder / FILE_LIST).read_text())
    assert {name: size for name, (size, _) in files.items()} == {
        "code/modeling.py": 16,
        "model.safetensors": 17,
        "optimizer.pt": 12,
    }
    assert find_damage(folder) is None and not is_half_written(folder)
    (folder / "optimizer.pt").write_text("more than before")
    seal(folder)
    assert find_damage(folder) is None


def test_what_is_wrong_with_a_checkpoint_is_named(make):
    half, short, missing, light = make(1, is_whole=False), make(2), make(3), make(4, is_whole=False)
    other = make(5)
    (other / "optimizer.pt").write_text("0ptimizer.pt")
    (short / "model.safetensors").write_text("mod")
    (missing / "optimizer.pt").unlink()
    (light / "optimizer.pt").unlink()
    seal(light)
    assert "not written to its end" in find_damage(half)
    assert find_damage(short) == "model.safetensors has 3 bytes instead of 17"
    assert find_damage(other) == "optimizer.pt isn't as it was written"
    assert find_damage(missing) == "optimizer.pt is missing"
    assert find_damage(light) == "it holds no optimizer state"
    assert [is_half_written(folder) for folder in (half, short, missing, light)] == [True, False, False, False]


def test_steps_are_ordered_as_numbers(make, tmp_path):
    folders = [make(step) for step in (9, 10, 100)]
    (tmp_path / "checkpoint-last").mkdir()
    assert list_checkpoints(tmp_path) == folders


def test_a_run_goes_on_from_its_last_whole_checkpoint(make, tmp_path, caplog):
    whole, damaged = make(9), make(10)
    make(11, is_whole=False)
    (damaged / "model.safetensors").unlink()
    for resume in ("last", "true", "True"):
        assert find_checkpoint(resume, tmp_path) == whole
    assert find_checkpoint(str(whole), tmp_path / "elsewhere") == whole
    assert find_checkpoint(None, tmp_path) is None
    said = [f"{damaged} is left out: model.safetensors is missing.", f"Going on from {whole}."]
    assert caplog.messages[:2] == said


def test_a_run_without_any_checkpoint_starts_at_its_beginning(make, tmp_path, caplog):
    make(1, is_whole=False)
    assert find_checkpoint("last", tmp_path) is None
    assert find_checkpoint("last", tmp_path / "new") is None
    assert caplog.messages[0] == f"No whole checkpoint in {tmp_path}: training starts at the beginning."


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_again(make, tmp_path):
    (make(1) / "optimizer.pt").write_text("")
    with pytest.raises(InputError, match=r"no whole checkpoint in .* \(checkpoint-1: optimizer.pt has 0 bytes"):
        find_checkpoint("last", tmp_path)


def test_half_written_checkpoints_are_removed_and_damaged_ones_are_not(make, tmp_path, caplog):
    whole, damaged = make(1), make(2)
    (damaged / "model.safetensors").unlink()
    make(3, is_whole=False)
    remove_half_written(tmp_path)
    assert list_checkpoints(tmp_path) == [whole, damaged]
    assert caplog.messages == [f"Removed from {tmp_path}, because half-written: checkpoint-3."]
    remove_half_written(tmp_path)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "limit, keep, left", [(None, [], [1, 2, 3, 4, 5]), (2, [4], [3, 4, 5]), (1, [4], [4, 5]), (1, [4, 1], [1, 4, 5])]
)
def test_only_whole_checkpoints_are_counted_and_deleted(limit, keep, left, make, tmp_path):
    for step in (1, 2, 3, 4):
        make(step)
    make(5, is_whole=False)
    rotate(tmp_path, limit, {tmp_path / f"checkpoint-{step}" for step in keep})
    assert list_checkpoints(tmp_path) == [tmp_path / f"checkpoint-{step}" for step in left]


def test_a_checkpoint_half_deleted_is_a_half_written_one(make, monkeypatch):
    folder = make(1)
    monkeypatch.setattr("training.checkpoints.shutil.rmtree", lambda *arguments, **options: None)
    delete(folder)
    assert is_half_written(folder)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    with pytest.raises(RunStopped) as stopped, writing(tmp_path / "checkpoint-3"):
        raise RuntimeError("No space left on device\nraised from here\nand there")
    assert stopped.value.exit_code == 1
    assert "checkpoint-3 can't be written (No space left on device); earlier" in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\0" * 9])
def test_a_damaged_record_of_a_finished_run_is_named(content, tmp_path):
    assert not is_finished(tmp_path)
    (tmp_path / FINISHED).write_text(content)
    with pytest.raises(InputError, match=f"{tmp_path}/{FINISHED} .*; remove it, and the same command goes on") as error:
        is_finished(tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "arguments.json")
    with pytest.raises(InputError, match="can't be read as JSON"):
        read_json(tmp_path / "arguments.json")
