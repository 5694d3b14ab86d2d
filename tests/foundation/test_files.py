"""Folders that nothing can be written into are known before anything is, and have one owner; files are whole."""

import os
import subprocess
import sys

import pandas
import pytest

from foundation.errors import InputError
from foundation.files import (
    LOCK,
    MIB,
    REPOSITORY,
    check_output_dir,
    holds_files,
    owned,
    read_regular,
    write_csv,
    writing_whole,
)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("file", "file is a file"),
        ("file/a/b", "file is a file"),
        ("/dev/null/x", "/dev/null is a file"),
        ("new/" + "x" * 300, "name too long"),
        ("nul\0", "null byte"),
        ("", "it has no name"),
        (REPOSITORY, "holds the code of this repository; give a new folder"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(folder, reason, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"(?i)--output_dir x .*{reason}") as refused:
        check_output_dir(folder, "--output_dir x")
    assert "\n" not in str(refused.value)


def test_nothing_is_left_of_the_trial(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_output_dir("new/folder", "--output_dir")
    check_output_dir(tmp_path, "--output_dir")
    assert not list(tmp_path.iterdir())


OWNER = "import sys; from foundation.files import owned\nwith owned(sys.argv[1], 'x'): print(flush=True); input()"


def test_a_folder_has_one_owner_whose_lock_ends_with_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="^--output_dir x is being written by another process; .* give another"):
            with owned(folder, "--output_dir x"):
                pass
        other.kill()
        other.wait()
    (folder / ".tmp.rows.csv").touch()
    with owned(folder, "--output_dir x") as mine:
        assert [path.name for path in mine.iterdir()] == [LOCK]
        with pytest.raises(InputError, match="another process"), owned(folder, "--output_dir x"):
            pass
    assert not holds_files(folder)
    with pytest.raises(ValueError, match="of the block"), owned(folder, "--output_dir x"):
        raise ValueError("of the block")
    with owned(folder, "--output_dir x"):
        pass


def test_a_file_is_as_it_was_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("before")
    with pytest.raises(OSError, match="full"), writing_whole(file) as beside:
        beside.write_text("half")
        assert file.read_text() == "before"
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"] and file.read_text() == "before"


def test_a_csv_calculates_nothing(tmp_path):
    write_csv(tmp_path / "x.csv", pandas.DataFrame({"=a": ["=1+1", "-2", "- no", "@x", "그는 =", None]}))
    written = (tmp_path / "x.csv").read_bytes().decode("utf-8").split("\r\n")
    assert written == ["'=a", "'=1+1", "-2", "'- no", "'@x", "그는 =", '""', ""]


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * MIB)
    assert read_regular(tmp_path / "file", MIB) == b"x" * MIB
    os.truncate(tmp_path / "file", 2**40)
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {"file": "larger than 1 MiB", "pipe": "no file", "": "no file"}.items():
        with pytest.raises(OSError, match=reason):
            read_regular(tmp_path / name, MIB)
