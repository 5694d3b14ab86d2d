"""Where a model comes from: licences as far as they can be known, and the corpus behind a dataset."""

import pytest

from prepare_dataset import prepare
from training.arguments import AUDIO_MODEL, TEXT_MODEL, ModelArguments
from training.origins import find_backbones, find_corpus


def test_a_licence_comes_from_the_hub_or_is_known_or_is_not(make_config, monkeypatch, tmp_path):
    cards = {"me/audio": {"license": "mit"}, "me/text": {}, AUDIO_MODEL: {"license": "other"}}
    monkeypatch.setattr("training.origins.hub_metadata", lambda name, repo_type: cards.get(name))

    def found(**names):
        backbones = find_backbones(ModelArguments(**names), make_config())
        return [(backbone.modality, backbone.licence, backbone.source.split(";")[0]) for backbone in backbones]

    assert found(audio_model="me/audio", text_model="me/text") == [
        ("audio", "mit", "according to https://huggingface.co/me/audio"),
        ("text", "unknown", "its card names none"),
    ]
    assert found(audio_model=AUDIO_MODEL, text_model=TEXT_MODEL) == [
        ("audio", "other", f"according to https://huggingface.co/{AUDIO_MODEL}"),
        ("text", "cc-by-sa-4.0", "as known when this card's code was written"),
    ]
    assert found(audio_model="tiny", text_model=str(tmp_path)) == [
        ("audio", "none needed", "small and randomly initialised, nothing pretrained is in it"),
        ("text", "unknown", "it was loaded from a folder"),
    ]
    assert found(audio_model="no/such", text_model="tiny")[0][1:] == ("unknown", "the Hub was not reached")


@pytest.mark.parametrize(("fusion", "modalities"), [("audio", ["audio"]), ("text", ["text"])])
def test_one_modality_has_one_backbone(make_config, fusion, modalities):
    given = ModelArguments(fusion=fusion, audio_model="tiny", text_model="tiny")
    backbones = find_backbones(given, make_config(fusion=fusion))
    assert [backbone.modality for backbone in backbones] == modalities


def test_the_corpus_of_a_dataset(demo_corpus_dir, tmp_path, monkeypatch):
    prepare("kemdy20", demo_corpus_dir, tmp_path / "dataset")
    assert find_corpus(str(tmp_path / "dataset"))[0] == "kemdy20"
    assert find_corpus(str(tmp_path))[0] == "csv"
    cards = {"me/kemdy": {"pretty_name": "KEMDy20"}, "me/speech": {"pretty_name": "Speech"}, "me/none": {}}
    monkeypatch.setattr("training.origins.hub_metadata", lambda name, repo_type: cards.get(name))
    assert [find_corpus(name)[0] for name in (*cards, "me/unreachable")] == ["kemdy20", "csv", "csv", "csv"]
