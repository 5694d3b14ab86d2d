"""The table: every fusion has the size of the paper's, and that which the pages say."""

from pathlib import Path

from scripts.fusion_table import main
from tests.markdown import table


# Parameters of the heads of the original code.
HEAD_PARAMETERS = {
    "early_fusion": "16,135",
    "late_fusion": "12,572",
    "mlp_mixer": "1,344,207",
    "stack": "16,135",
    "residual": "5,064,711",
    "rsa": "5,065,737",
    "rsa_cfn": "328,300,813",
    "hybrid_fusion": "333,394,245",
}
BACKBONE_PARAMETERS = 315_438_720 + 110_618_112 - 590_592  # the text encoder's pooler is left out


def test_sizes_are_the_papers(capsys):
    main(["--repeats", "0"])
    printed = capsys.readouterr().out
    rows = {}
    for line in printed.splitlines()[2:]:
        fusion, head, total = (cell.strip(" `") for cell in line.strip("|").split("|"))
        rows[fusion] = head
        if fusion in HEAD_PARAMETERS:
            assert int(total.replace(",", "")) == BACKBONE_PARAMETERS + int(head.replace(",", ""))
    assert {fusion: rows[fusion] for fusion in HEAD_PARAMETERS} == HEAD_PARAMETERS
    for page, first, num_columns in (("README.md", "`--fusion`", 2), ("docs/fusions.md", "fusion", 3)):
        text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
        told = [row[:num_columns] for row in table(text, first)]
        assert told == [row[:num_columns] for row in table(printed, "fusion")], page
