"""Folders that nothing can be written into are known before anything is."""

import pytest

from foundation.errors import InputError
from foundation.files import REPOSITORY, check_output_dir


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
