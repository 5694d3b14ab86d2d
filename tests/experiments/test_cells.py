"""What a cell leaves, and what another start of it finds: the same arguments, or one line that says they aren't."""

import json

import pytest
import torch

from experiments.cells import ARGUMENTS, check_arguments, count_parameters
from experiments.plan import Cell
from foundation.errors import InputError


@pytest.mark.parametrize("fusion", ["audio", "early_fusion", "rsa_cfn"])
def test_parameters_are_counted_in_the_file(fusion, make_model, tmp_path):
    model = make_model(fusion=fusion)
    model.save_pretrained(tmp_path)
    counts = count_parameters(tmp_path)
    assert counts["parameters"] == sum(tensor.numel() for tensor in model.state_dict().values())
    backbones = [getattr(model, name, None) for name in ("audio_model", "text_model")]
    of_backbones = sum(
        tensor.numel()
        for backbone in backbones
        if isinstance(backbone, torch.nn.Module)
        for tensor in backbone.state_dict().values()
    )
    assert counts["fusion_parameters"] == counts["parameters"] - of_backbones > 0


def test_other_arguments_than_before_are_refused(tmp_path):
    cells = [Cell(f"paper/text/seed{seed}", "text", "paper", None, seed, ["--seed", str(seed)]) for seed in (1, 2)]
    check_arguments(cells, tmp_path)
    (tmp_path / cells[1].name).mkdir(parents=True)
    file = tmp_path / cells[1].name / ARGUMENTS
    file.write_text(json.dumps(cells[1].arguments))
    check_arguments(cells, tmp_path)
    file.write_text(json.dumps(["--seed", "3", "--bf16", "true"]))
    message = r"paper/text/seed2 was run with other arguments \(--seed 3, now 2; --bf16 true, now not given\); give"
    with pytest.raises(InputError, match=message):
        check_arguments(cells, tmp_path)
