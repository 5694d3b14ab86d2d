"""The model of a run: tiny, pretrained from folders, or saved; and what can't be loaded."""

import os

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from configuration_rsa_cfn import FUSIONS
from foundation.errors import InputError
from training.arguments import DataArguments, ModelArguments
from training.features import hash_weights
from training.model import load_model, train_tokenizer


NAMES = ["calm", "upset"]
TEXTS = ["오늘은 날씨가 좋아요", "정말 화가 났어요", "내일 다시 만나요"]
TINY = {"audio_model": "tiny", "text_model": "tiny"}


def test_tokenizer_is_deterministic_and_wraps_a_text():
    first, second = train_tokenizer(TEXTS), train_tokenizer(TEXTS)
    ids = first("화가 좋아요")["input_ids"]
    assert ids == second("화가 좋아요")["input_ids"]
    assert (ids[0], ids[-1]) == (first.bos_token_id, first.eos_token_id)
    assert first.decode(ids, skip_special_tokens=True).replace(" ", "") == "화가좋아요"
    assert first("")["input_ids"] == [first.bos_token_id, first.eos_token_id]


def test_tiny_model_takes_the_longest_input_the_limits_allow():
    data_args = DataArguments(max_audio_seconds=0.5, max_text_tokens=12)
    model, processor = load_model(ModelArguments(**TINY), data_args, NAMES, TEXTS)
    assert model.config.id2label == {0: "calm", 1: "upset"}
    assert all(parameter.requires_grad for parameter in model.audio_model.feature_extractor.parameters())
    batch = processor(audio=[torch.randn(32000)], text=[" ".join(TEXTS * 3)], return_tensors="pt")
    assert batch["input_values"].shape == (1, 8000) and batch["input_ids"].shape == (1, 12)
    assert torch.isfinite(model(**batch).logits).all()


def test_a_seed_stands_for_the_same_tiny_backbones_whatever_the_fusion():
    digests = {"audio": set(), "text": set()}
    for fusion in FUSIONS:
        torch.manual_seed(3)
        model, _ = load_model(ModelArguments(**TINY, fusion=fusion), DataArguments(max_text_tokens=12), NAMES, TEXTS)
        for modality in model.fusion.modalities:
            digests[modality].add(hash_weights(getattr(model, f"{modality}_model")))
    assert [len(found) for found in digests.values()] == [1, 1]


def test_pretrained_backbones_come_from_folders(make_model, processor, tmp_path):
    model = make_model()
    model.audio_model.save_pretrained(tmp_path / "audio")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "audio")
    model.text_model.save_pretrained(tmp_path / "text")
    processor.tokenizer.save_pretrained(tmp_path / "text")
    arguments = ModelArguments(
        audio_model=str(tmp_path / "audio"),
        text_model=str(tmp_path / "text"),
        fusion="early_fusion",
        pooling_mode="max",
    )
    loaded, loaded_processor = load_model(arguments, DataArguments(max_text_tokens=16), NAMES, TEXTS)
    assert (loaded.config.fusion, loaded.config.pooling_mode, loaded.config.num_labels) == ("early_fusion", "max", 2)
    assert not any(parameter.requires_grad for parameter in loaded.audio_model.feature_extractor.parameters())
    for name, weight in model.text_model.state_dict().items():
        assert torch.equal(loaded.text_model.state_dict()[name], weight), name
    assert "audio_attention_mask" in loaded_processor(audio=[torch.randn(800)], return_tensors="pt")


def test_saved_model_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the folder's code"))
    model, processor = load_model(ModelArguments(**TINY), DataArguments(), NAMES, TEXTS)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path))
    loaded, _ = load_model(arguments, DataArguments(), NAMES, TEXTS)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    options = ModelArguments(model_name_or_path=str(tmp_path), modality_dropout=0.2, freeze_text_encoder=True)
    other, _ = load_model(options, DataArguments(), NAMES, TEXTS, class_weights=[0.5, 1.5])
    assert (other.config.modality_dropout, other.config.class_weights) == (0.2, [0.5, 1.5])
    assert not any(parameter.requires_grad for parameter in other.text_model.parameters())
    with pytest.raises(InputError, match="knows the classes calm, upset; the dataset has calm, cross"):
        load_model(arguments, DataArguments(), ["calm", "cross"], TEXTS)


def test_a_truncated_saved_model_is_said_in_one_line(tmp_path):
    model, processor = load_model(ModelArguments(**TINY), DataArguments(), NAMES, TEXTS)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 1000)
    arguments = ModelArguments(model_name_or_path=str(tmp_path))
    with pytest.raises(InputError, match=f"--model_name_or_path {tmp_path} can't be loaded; give a folder") as error:
        load_model(arguments, DataArguments(), NAMES, TEXTS)
    assert "\n" not in str(error.value)


def test_options_reach_the_configuration():
    arguments = ModelArguments(
        **TINY, fusion="hybrid_fusion", cross_fusion_rank=2, modality_dropout=0.3, label_smoothing=0.1,
        use_weighted_layer_sum=True, freeze_text_encoder=True, freeze_audio_layers=1,
    )  # fmt: skip
    model, _ = load_model(arguments, DataArguments(), NAMES, TEXTS, class_weights=[0.5, 1.5])
    config = model.config
    assert (config.cross_fusion_rank, config.modality_dropout, config.label_smoothing) == (2, 0.3, 0.1)
    assert config.class_weights == [0.5, 1.5]
    assert model.audio_layer_weights.shape == (3,)
    assert not any(parameter.requires_grad for parameter in model.text_model.parameters())
    trains = {name.split(".")[2] for name, p in model.audio_model.encoder.named_parameters("e") if p.requires_grad}
    assert trains & {"0", "1"} == {"1"}


def test_what_is_scored_of_a_long_clip_is_a_matter_of_the_processor(tmp_path):
    for given, kept in ((None, "center"), ("random", "center"), ("head", "head")):
        model, processor = load_model(ModelArguments(**TINY), DataArguments(audio_crop=given), NAMES, TEXTS)
        assert processor.audio_crop == kept
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    saved = ModelArguments(model_name_or_path=str(tmp_path))
    for given, kept in ((None, "head"), ("random", "center")):
        assert load_model(saved, DataArguments(audio_crop=given), NAMES, TEXTS)[1].audio_crop == kept


def test_the_mixer_is_made_for_the_longest_clip():
    data_args = DataArguments(max_audio_seconds=0.5, max_text_tokens=12)
    model, processor = load_model(ModelArguments(**TINY, fusion="mlp_mixer"), data_args, NAMES, TEXTS)
    batch = processor(audio=[torch.randn(32000)], text=TEXTS[:1], return_tensors="pt")
    assert model(**batch).logits.shape == (1, 2)
    assert model.audio_model(batch["input_values"]).last_hidden_state.shape[1] == model.config.max_audio_frames


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({**TINY, "freeze_text_layers": 3}, "--freeze_text_layers=3 is out of range; text_config has 2 layers"),
        ({"audio_model": "tiny", "text_model": "some/model"}, "give tiny for both or for neither"),
        ({"audio_model": "no/such", "text_model": "no/such"}, "--audio_model no/such can't be loaded; give a wav2vec2"),
        ({"model_name_or_path": "no/such"}, "--model_name_or_path no/such can't be loaded; give a folder or Hub id"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        load_model(ModelArguments(**arguments), DataArguments(), NAMES, TEXTS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
