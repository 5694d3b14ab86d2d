"""Ensembles and soups: their answers are those of their members, in every way that a model is loaded; and refusals."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

from foundation.files import write_json
from processing_rsa_cfn import RsaCfnProcessor
from scripts.ensemble import main
from scripts.export_onnx import export


@pytest.fixture(scope="module")
def members(make_model, processor, tmp_path_factory):
    """Three saved models of different weights, the last of another fusion."""
    folder = tmp_path_factory.mktemp("members")
    for number, fusion in enumerate(("early_fusion", "early_fusion", "rsa")):
        model = make_model(fusion=fusion)
        torch.manual_seed(number)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder / str(number))
        processor.save_pretrained(folder / str(number))
    return folder


def load(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()


def test_an_ensemble_answers_by_the_mean_of_its_members_probabilities(members, clips, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(members)
    assert main(["0", "1", "2", "--output_dir", str(tmp_path / "joined")]) == 0
    joined = load(tmp_path / "joined")
    batch = AutoProcessor.from_pretrained(tmp_path / "joined", trust_remote_code=True)(
        audio=[*clips, None], text=[None, *texts], return_tensors="pt"
    )
    with torch.no_grad():
        expected = torch.stack([load(members / str(n))(**batch).logits.softmax(dim=-1) for n in range(3)]).mean(dim=0)
        torch.testing.assert_close(joined(**batch).logits.exp(), expected, atol=1e-6, rtol=0)
        loss = joined(**batch, labels=torch.arange(4)).loss
        torch.testing.assert_close(loss, -expected[torch.arange(4), torch.arange(4)].log().mean())
    answer = pipeline(model=str(tmp_path / "joined"), trust_remote_code=True)({"text": texts[0]})
    assert sum(entry["score"] for entry in answer) == pytest.approx(1)
    with pytest.raises(ValueError, match="embeds are those of one model"):
        joined(audio_embeds=torch.zeros(1, 16), input_ids=torch.ones(1, 2, dtype=torch.long))
    joined.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "again")(**batch).logits, joined(**batch).logits)


@pytest.mark.slow
def test_an_ensemble_is_exported_and_rounded_like_a_model(members, tmp_path, monkeypatch, processor):
    monkeypatch.chdir(members)
    assert main(["0", "2", "--output_dir", str(tmp_path / "joined")]) == 0
    assert export(load(tmp_path / "joined"), tmp_path / "model.onnx", processor) < 1e-4
    assert load(tmp_path / "joined").to_int8() is not None


def test_a_soup_is_one_model_of_the_mean_weights(members, tmp_path, monkeypatch):
    monkeypatch.chdir(members)
    assert main(["0", "1", "--soup", "--output_dir", str(tmp_path / "soup")]) == 0
    first, second, soup = (load(folder).state_dict() for folder in (members / "0", members / "1", tmp_path / "soup"))
    assert all(torch.equal(soup[name], torch.stack([first[name], second[name]]).mean(dim=0)) for name in first)


def test_what_does_not_belong_together_is_refused(members, make_model, processor, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(members)
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=1.0, max_text_tokens=16)
    for name, fields, its in (("classes", labels, processor), ("modality", {}, processor), ("limits", {}, short)):
        fusion = "audio" if name == "modality" else "early_fusion"
        make_model(fusion=fusion, **fields).save_pretrained(tmp_path / name)
        its.save_pretrained(tmp_path / name)
    (tmp_path / "full").mkdir()
    write_json(tmp_path / "full" / "file.json", {})
    out = ["--output_dir", str(tmp_path / "new")]
    assert main(["0", "1", "--output_dir", str(tmp_path / "joined")]) == 0
    capsys.readouterr()
    for arguments, told in (
        (["0", *out], "0 alone is no ensemble; give two models or more"),
        (["0", str(tmp_path / "classes"), *out], "differs from 0 in its classes; give models of one kind"),
        (["0", str(tmp_path / "modality"), *out], "differs from 0 in its modalities; give models of one kind"),
        (["0", str(tmp_path / "limits"), *out], "differs from 0 in its limits; give models of one kind"),
        (["0", str(tmp_path / "joined"), *out], "is an ensemble itself; give its members"),
        (["0", "2", "--soup", *out], "--soup takes models of one architecture, and 2 has another than 0"),
        (["0", "1", "--output_dir", str(tmp_path / "full")], "isn't empty; give a new folder, or remove this one"),
        (["0", "nowhere", *out], "nowhere"),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "new" / "config.json").exists()
