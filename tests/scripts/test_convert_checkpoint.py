"""The converter: a checkpoint of the original gives the original's numbers, and anything else is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from modeling_rsa_cfn import RsaCfnForSequenceClassification
from scripts.convert_checkpoint import convert_state_dict, main


GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
FUSIONS = {"mlp_mixer_nopad": "mlp_mixer", "wav2vec2_uni": "audio", "roberta_uni": "text"}


@pytest.fixture
def golden(tmp_path):
    """A function that gives the tensors of a golden file by kind, and the arguments that convert its state dict."""

    def read(name):
        tensors = {}
        for key, tensor in load_file(GOLDEN / f"{name}.safetensors").items():
            kind, _, rest = key.partition(".")
            tensors.setdefault(kind, {})[rest] = tensor
        frozen = json.loads((GOLDEN / f"{name}.json").read_text())
        arguments = [str(tmp_path / "original.pth"), "--fusion", FUSIONS.get(name, name), "--max_text_tokens", "16"]
        arguments += ["--output_dir", str(tmp_path / "converted")]
        for modality, config in (("audio", frozen["wav_config"]), ("text", frozen["text_config"])):
            if config is not None:
                (tmp_path / f"{modality}.json").write_text(json.dumps(config))
                arguments += [f"--{modality}_model", str(tmp_path / f"{modality}.json")]
        torch.save(tensors["state"], arguments[0])
        return tensors, arguments

    return read


def load(tmp_path):
    model = RsaCfnForSequenceClassification.from_pretrained(tmp_path / "converted")
    assert not model.config.mask_padding
    return model.eval()


def inputs(golden_inputs):
    batch = {name: golden_inputs[name] for name in ("input_values", "input_ids", "attention_mask")}
    return {"labels": golden_inputs["labels"], **batch}


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_and_gradients_are_the_originals(name, golden, tmp_path):
    tensors, arguments = golden(name)
    assert main(arguments) == 0
    model = load(tmp_path)
    output = model(**inputs(tensors["input"]))
    torch.testing.assert_close(output.logits.double(), tensors["output"]["logits_f64"], atol=2e-5, rtol=0)
    torch.testing.assert_close(output.loss, tensors["output"]["loss"].squeeze(), atol=2e-5, rtol=0)
    output.loss.backward()
    gradients, dropped = convert_state_dict(tensors["grad"], model.config.fusion)
    assert gradients and not dropped
    for parameter, expected in gradients.items():
        assert relative_error(model.get_parameter(parameter).grad, expected) < 1e-4, parameter
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    # The bias of an attention's key has no effect, so it doesn't train either.
    assert all(name.startswith("audio_model.feature_extractor.") or name.endswith(".key.bias") for name in frozen)
    assert bool(frozen) == (name != "roberta_uni")


@pytest.mark.parametrize("pooling_mode", ["sum", "max"])
def test_pooling_modes_of_the_audio_classifier(pooling_mode, golden, tmp_path):
    tensors, arguments = golden("wav2vec2_uni")
    assert main([*arguments, "--pooling_mode", pooling_mode]) == 0
    logits = load(tmp_path)(**inputs(tensors["input"])).logits
    torch.testing.assert_close(logits, tensors["output"][f"logits_{pooling_mode}"], atol=2e-5, rtol=0)


def test_attention_weights_of_rsa(golden, tmp_path):
    tensors, arguments = golden("rsa")
    assert main(arguments) == 0
    (attention,) = load(tmp_path)(**inputs(tensors["input"]), output_attentions=True).attentions
    torch.testing.assert_close(attention, tensors["output"]["attn_weights"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["rsa_cfn", "wav2vec2_uni", "roberta_uni"])
def test_names_of_older_releases(name, golden, tmp_path):
    """Weight norm under its old names, and position ids in the file."""
    tensors, arguments = golden(name)
    old = {}
    for key, tensor in tensors["state"].items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        old[key.replace("parametrizations.weight.original1", "weight_v")] = tensor
    text = "roberta." if name == "roberta_uni" else "rnn_model."
    if name != "wav2vec2_uni":
        old[f"{text}embeddings.position_ids"] = torch.arange(24)[None]
    torch.save(old, arguments[0])
    assert main(arguments) == 0
    logits = load(tmp_path)(**inputs(tensors["input"])).logits
    torch.testing.assert_close(logits.double(), tensors["output"]["logits_f64"], atol=2e-5, rtol=0)


def test_safetensors_are_read(golden, tmp_path):
    tensors, arguments = golden("late_fusion")
    save_file(tensors["state"], tmp_path / "original.safetensors")
    assert main([str(tmp_path / "original.safetensors"), *arguments[1:]]) == 0
    logits = load(tmp_path)(**inputs(tensors["input"])).logits
    torch.testing.assert_close(logits.double(), tensors["output"]["logits_f64"], atol=2e-5, rtol=0)


def test_what_is_dropped_is_reported(golden, capsys):
    tensors, arguments = golden("roberta_uni")
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    dropped = {line.removeprefix("dropped: ") for line in printed if line.startswith("dropped: ")}
    expected = {n for n in tensors["state"] if n.startswith(("embeddings.", "encoder.", "pooler.", "roberta.pooler."))}
    assert dropped == expected
    assert "no processor saved: it takes the folders or Hub ids of both backbones" in printed


def test_backbones_by_name_bring_a_processor(golden, processor, tmp_path, capsys):
    tensors, arguments = golden("early_fusion")
    config = dict(zip(arguments[1::2], arguments[2::2]))
    for modality in ("audio", "text"):
        (tmp_path / modality).mkdir()
        (tmp_path / modality / "config.json").write_text(Path(config[f"--{modality}_model"]).read_text())
    by_name = arguments[:7] + ["--audio_model", str(tmp_path / "audio"), "--text_model", str(tmp_path / "text")]
    assert main(by_name) == 0
    assert "no processor saved" in capsys.readouterr().out
    processor.feature_extractor.save_pretrained(tmp_path / "audio")
    processor.tokenizer.save_pretrained(tmp_path / "text")
    shutil.rmtree(tmp_path / "converted")
    assert main(by_name) == 0
    assert "no processor saved" not in capsys.readouterr().out
    saved = AutoProcessor.from_pretrained(tmp_path / "converted", trust_remote_code=True)
    assert saved.max_text_tokens == 16
    assert saved(text=["정말"])["input_ids"] == processor(text=["정말"])["input_ids"]
    assert saved.audio_crop == "head"
    model = AutoModel.from_pretrained(tmp_path / "converted", trust_remote_code=True).eval()
    assert model.config.text_config.hidden_dropout_prob == 0.0
    logits = model(**inputs(tensors["input"])).logits
    torch.testing.assert_close(logits.double(), tensors["output"]["logits_f64"], atol=2e-5, rtol=0)


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_runs_code_is_refused(golden, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, arguments = golden("early_fusion")
    torch.save({"weight": Malicious()}, arguments[0])
    assert main(arguments) == 2
    assert not Path("ran").exists() and not Path("converted").exists()
    (message,) = capsys.readouterr().err.splitlines()
    assert "original.pth holds more than tensors" in message and "torch.save(model.state_dict(), PATH)" in message


def test_tensors_that_do_not_fit_are_all_named(golden, tmp_path, capsys):
    tensors, arguments = golden("rsa_cfn")
    state = tensors["state"]
    del state["classifier.classifier.0.weight"], state["wav_model.masked_spec_embed"]
    state["classifier.extra"] = torch.zeros(1)
    state["classifier.rnn_norm.bias"] = torch.zeros(3)
    torch.save(state, arguments[0])
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("convert_checkpoint: The file doesn't fit fusion='rsa_cfn' and the given backbones, ")
    assert 'Missing key(s) in state_dict: "audio_model.masked_spec_embed", "fusion.cross_network.dense.weight"' in told
    assert 'Unexpected key(s) in state_dict: "classifier.extra"' in told
    assert "size mismatch for fusion.text_norm.bias" in told
    assert not (tmp_path / "converted").exists()


def test_another_fusion_is_refused(golden, capsys):
    _, arguments = golden("rsa")
    arguments[arguments.index("rsa")] = "residual"
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert all(f'"classifier.attn.{letter}.{kind}"' in told for letter in "QKV" for kind in ("weight", "bias"))
    assert "Missing" not in told and "size mismatch" not in told


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"--max_text_tokens": "56"},
            "max_text_tokens=56 leaves no audio frames in the 56 positions of the mixer",
        ),
        ({"--audio_model": None}, "fusion='mlp_mixer' reads audio; give --audio_model"),
        ({"--text_model": "missing.json"}, "text_model='missing.json' gives no configuration"),
        ({"--output_dir": str(Path(__file__).parents[2])}, "holds the code of this repository; give a new folder"),
    ],
)
def test_an_illegal_argument_is_refused_in_one_line(changes, message, golden, capsys):
    _, arguments = golden("mlp_mixer")
    given = {**dict(zip(arguments[1::2], arguments[2::2])), **changes}
    flat = [part for item in given.items() if item[1] is not None for part in item]
    assert main([arguments[0], *flat]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("content", [b"no checkpoint", None, [torch.zeros(2)], {"model": {"weight": torch.zeros(2)}}])
def test_a_file_that_is_no_state_dict_is_refused(content, golden, capsys):
    _, arguments = golden("early_fusion")
    if content is None:
        Path(arguments[0]).unlink()
    elif isinstance(content, bytes):
        Path(arguments[0]).write_bytes(content)
    else:
        torch.save(content, arguments[0])
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "original.pth" in line


def test_a_folder_with_another_model_is_left_alone(golden, capsys, tmp_path):
    _, arguments = golden("early_fusion")
    assert main(arguments) == 0
    weights = (tmp_path / "converted" / "model.safetensors").read_bytes()
    _, arguments = golden("stack")
    capsys.readouterr()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "isn't empty; give a new folder" in line
    assert (tmp_path / "converted" / "model.safetensors").read_bytes() == weights
