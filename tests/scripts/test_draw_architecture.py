"""The diagram: it is drawn, and every name in it is one in the code."""

import torch

from fusion_rsa_cfn import cross_features
from modeling_rsa_cfn import RsaCfnForSequenceClassification, pool
from scripts.draw_architecture import joint_parts, main, modality_parts
from scripts.fusion_table import full_size_config


def test_the_diagram_is_an_image(tmp_path):
    main(["--output", str(tmp_path / "new" / "rsa_cfn.png")])
    assert (tmp_path / "new" / "rsa_cfn.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_those_of_the_code():
    config = full_size_config("rsa_cfn")
    with torch.device("meta"):
        model = RsaCfnForSequenceClassification(config)
    parts = joint_parts(config)
    for modality in ("audio", "text"):
        parts += modality_parts(modality, config)[1:]
    for name in {name for joined, _, _ in parts for name in joined.split(", ")} - {"pool", "cross_features", "skip"}:
        assert model.get_submodule(name if name.endswith("_model") else f"fusion.{name}")
    assert callable(pool) and callable(cross_features)
