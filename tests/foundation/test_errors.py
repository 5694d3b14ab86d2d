"""A mistyped option is told with the one that was meant."""

import subprocess
import sys

import pytest

from foundation.errors import OneLineParser, unknown_arguments
from foundation.files import REPOSITORY


def test_a_mistyped_option_is_told_before_what_is_missing(capsys):
    parser = OneLineParser(prog="prepare")
    parser.add_argument("--output_dir", required=True)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--output_dri=x"])
    told = "prepare: unknown arguments: --output_dri=x; did you mean --output_dir? (see --help)\n"
    assert (stopped.value.code, capsys.readouterr().err) == (2, told)
    assert parser.parse_args(["--output_dir", "-- a text"]).output_dir == "-- a text"


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        (["-seed", "3"], "; did you mean --seed?"),
        (["seed", "3"], "; did you mean --seed?"),
        (["--colour"], ""),
    ],
)
def test_only_what_is_close_is_suggested(unknown, meant):
    assert (
        unknown_arguments(unknown, ["--seed", "--fusion"])
        == f"unknown arguments: {' '.join(unknown)}{meant} (see --help)"
    )


def test_a_command_runs_to_its_end_where_nobody_reads_it(tmp_path):
    program = (
        "import pathlib, sys; from foundation.errors import run_script\n"
        "def main(arguments):\n"
        "    print(*range(10**5), sep='\\n'); pathlib.Path(arguments[0]).touch(); return 3\n"
        "run_script('prepare', main)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "done")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        said = run.stderr.read().decode()
    assert (run.returncode, (tmp_path / "done").exists()) == (3, True)
    assert said.startswith("prepare: what it printed last is lost") and said.count("\n") == 1
