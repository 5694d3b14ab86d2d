"""A mistyped option is told with the one that was meant."""

import pytest

from foundation.errors import OneLineParser, unknown_arguments


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
