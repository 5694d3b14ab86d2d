"""The export to ONNX: onnxruntime gives PyTorch's logits at any sizes and with what is missing; and what is refused."""

import json
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch

from configuration_rsa_cfn import FUSIONS, RsaCfnConfig
from foundation.errors import InputError
from processing_rsa_cfn import RsaCfnProcessor
from scripts import export_onnx
from scripts.export_onnx import export, main
from tests.slow import mostly_slow


# The time of an export grows with the nodes of its graph: the fusions are behind backbones without layers.
STEM = {"conv_dim": (8,), "conv_kernel": (160,), "conv_stride": (160,)}
NO_LAYERS = {"audio_config": {**STEM, "num_hidden_layers": 0}, "text_config": {"num_hidden_layers": 0}}
GROUP = {**STEM, "num_hidden_layers": 1, "feat_extract_norm": "group", "do_stable_layer_norm": False}


@pytest.fixture(scope="module")
def batches(processor, clips, texts):
    """Padded rows, a row without each modality, a batch of one, a clip shorter than a frame, and no audio at all."""
    no_audio = {"input_values": torch.zeros(1, 1), "audio_attention_mask": torch.zeros(1, 1, dtype=torch.int32)}
    return [
        processor(audio=clips, text=texts, return_tensors="pt"),
        processor(audio=[*clips, None], text=[texts[0], None, *texts[1:]], return_tensors="pt"),
        processor(audio=[clips[1]], text="정", return_tensors="pt"),
        processor(audio=[clips[1][:20]], text=texts[0], return_tensors="pt"),
        {**processor(text=texts[0], return_tensors="pt"), **no_audio},
    ]


def assert_agrees(model, file, batches):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    for batch in batches:
        with torch.no_grad():
            expected = model(**batch)
        given = {name: batch[name].numpy() for name in names}
        for output in session.get_outputs():
            (values,) = session.run([output.name], given)
            np.testing.assert_allclose(values, expected[output.name].numpy(), atol=1e-4, rtol=0)
    return session


# Of another, rsa_cfn, a saved model is exported below.
@pytest.mark.parametrize("fusion", mostly_slow([*FUSIONS, "attentive_statistics"]))
def test_onnxruntime_agrees_with_pytorch(fusion, make_model, batches, tmp_path):
    fields = {"fusion": fusion} if fusion in FUSIONS else {"fusion": "early_fusion", "pooling_mode": fusion}
    model = make_model(**fields, **NO_LAYERS)
    assert export(model, tmp_path / "model.onnx") <= 1e-4
    assert_agrees(model, tmp_path / "model.onnx", batches)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_attributes_are_an_output_too(fusion, make_model, batches, tmp_path):
    attributes = {"attributes": ["valence", "arousal"], "attribute_ranges": [[1, 5], [-2, 0]]}
    model = make_model(fusion=fusion, **attributes, **NO_LAYERS)
    assert export(model, tmp_path / "model.onnx") <= 1e-4
    session = assert_agrees(model, tmp_path / "model.onnx", batches)
    assert [output.name for output in session.get_outputs()] == ["logits", "attributes"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["attributes"]) == ["valence", "arousal"]
    if fusion == "rsa_cfn":
        assert export(model, tmp_path / "int8.onnx", int8=True) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_int8_answers_alike(fusion, make_model, tmp_path):
    layers = {"audio_config": {"num_hidden_layers": 1}, "text_config": {"num_hidden_layers": 1}}
    assert 0 < export(make_model(fusion=fusion, **layers), tmp_path / "model.onnx", int8=True) < 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_unmasked_padding_and_a_group_norm(make_model, batches, tmp_path):
    """A converted model counts its padding; one row of each batch is as long as `max_text_tokens`."""
    model = make_model(fusion="mlp_mixer", mask_padding=False, audio_config=GROUP, text_config={"num_hidden_layers": 1})
    export(model, tmp_path / "model.onnx")
    full = {name: tensor.clone() for name, tensor in batches[0].items()}
    full["input_ids"] = torch.arange(3 * 16).reshape(3, 16) % 9 + 4
    full["attention_mask"] = (torch.arange(16) < torch.tensor([[16], [5], [1]])).long()
    full["input_ids"][full["attention_mask"] == 0] = 1
    # Clips of one frame are left out: torch's group norm refuses them.
    assert_agrees(model, tmp_path / "model.onnx", [*batches[:3], full])


@pytest.mark.slow
def test_a_saved_model_from_the_command_line(make_model, processor, batches, tmp_path, capsys):
    """All that is needed to use the graph lies beside it."""
    model = make_model(fusion="rsa_cfn", audio_config=GROUP, text_config={"num_hidden_layers": 1})
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "new" / "exported"
    assert main([str(tmp_path / "saved"), str(folder / "model.onnx")]) == 0
    assert "onnxruntime differs from PyTorch by at most" in capsys.readouterr().out
    assert_agrees(model, folder / "model.onnx", batches)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = RsaCfnProcessor.from_pretrained(folder)(audio=[np.ones(900)], text="정말", return_tensors="np")
    (logits,) = session.run(["logits"], dict(inputs))
    assert logits.shape == (1, 7)
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    assert labels == list(model.config.id2label.values())
    assert RsaCfnConfig.from_pretrained(folder).id2label == model.config.id2label
    export_onnx.quantise(folder / "model.onnx", folder / "int8.onnx")
    assert 0 < export_onnx.compare(model, folder / "int8.onnx", partial(torch.softmax, dim=1)) < 0.02
    assert (folder / "int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(folder / "int8.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == labels


@pytest.mark.slow
def test_a_graph_that_is_off_is_not_written(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "compare", lambda model, file: float("nan"))
    with pytest.raises(InputError, match="off by nan, more than 0.0001, so it isn't written"):
        export(make_model(fusion="text", **NO_LAYERS), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_that_torch_cannot_export_is_refused_in_a_line(make_model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("of many\nlines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(InputError, match=r"of wav2vec2 and roberta; give one of other backbones \(of many\)$"):
        export(make_model(fusion="text", **NO_LAYERS), tmp_path / "model.onnx")


def test_int8_that_answers_otherwise_is_not_written(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "compare", lambda model, file, *of: 0.2 if of else 0.0)
    monkeypatch.setattr(export_onnx, "quantise", lambda file, output: output.touch())
    with pytest.raises(InputError, match="int8 shifts a probability by 0.20, so it isn't written; give no --int8"):
        export(make_model(fusion="text", **NO_LAYERS), tmp_path / "model.onnx", int8=True)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_says_so_in_one_line(tmp_path, capsys, monkeypatch):
    def refused(*argv):
        assert main([str(argument) for argument in argv]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "isn't called .onnx; give a file such as" in refused("models/no", tmp_path / "model.pt")
    assert "models/no is no folder here and can't be reached" in refused("models/no", tmp_path / "model.onnx")
    assert "code of this repository" in refused(
        "models/no", export_onnx.Path(export_onnx.__file__).parents[1] / "m.onnx"
    )
    (tmp_path / "model.onnx").touch()
    assert "is there already" in refused("models/no", tmp_path / "model.onnx")
    (tmp_path / "config.json").touch()
    assert "holds another model" in refused("models/no", tmp_path / "other.onnx")
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    line = refused("models/no", tmp_path / "model.onnx")
    assert line == "export_onnx: the export needs onnxscript; pip install onnx onnxscript onnxruntime"
