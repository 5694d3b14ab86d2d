"""The configuration: defaults of the paper, legal values, and the round trip."""

import runpy

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassFieldValidationError

import configuration_rsa_cfn
import corpora
from configuration_rsa_cfn import EMOTIONS, RsaCfnConfig


def test_defaults_are_the_papers():
    config = RsaCfnConfig()
    assert config.fusion == "rsa_cfn"
    assert (config.projection_size, config.cross_attention_size, config.cross_residual_size) == (128, 96, 1024)
    assert (config.residual_size, config.attention_size, config.residual_dropout) == (512, 256, 0.3)
    assert (config.mixer_size, config.mixer_classifier_size, config.mixer_dropout) == (256, 512, 0.1)
    assert (config.max_text_tokens, config.max_audio_frames) == (256, 299)
    assert (config.multi_sample_dropout, config.multi_sample_draws) == (0.5, 5)
    assert config.id2label == dict(enumerate(EMOTIONS))
    # Datasets are written with the labels in this order too.
    assert EMOTIONS == corpora.EMOTIONS
    assert config.audio_family.shortest == 400


def test_an_older_transformers_is_told_in_one_line(monkeypatch):
    monkeypatch.delattr(transformers.configuration_utils, "SubConfigSpec")
    with pytest.raises(ImportError, match=r"^RSA-CFN needs transformers 5.23 or later, here is .*; pip install -U tr"):
        runpy.run_path(configuration_rsa_cfn.__file__)


def test_labels():
    assert RsaCfnConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert RsaCfnConfig(id2label={0: "calm", 1: "upset"}).label2id == {"calm": 0, "upset": 1}


def test_round_trip(make_config, tmp_path):
    config = make_config(audio_config={"model_type": "wavlm"}, fusion="early_fusion", pooling_mode="max")
    config.save_pretrained(tmp_path)
    reloaded = RsaCfnConfig.from_pretrained(tmp_path)
    assert reloaded.to_dict() == config.to_dict()
    assert type(reloaded.audio_config).__name__ == "WavLMConfig"


def test_attributes_keep_their_order_and_their_ranges(make_config, tmp_path):
    config = make_config(attributes=["valence", "arousal"], attribute_ranges=[[1.0, 5], [-1, 0.5]], attribute_weight=2)
    config.save_pretrained(tmp_path)
    reloaded = RsaCfnConfig.from_pretrained(tmp_path)
    assert (reloaded.attributes, reloaded.attribute_ranges) == (["valence", "arousal"], [[1, 5], [-1, 0.5]])
    assert (reloaded.attribute_loss, reloaded.attribute_weight) == ("ccc", 2)
    assert make_config(attributes=["pace"]).attribute_ranges == [[-1, 1]]


def test_a_model_without_attributes_says_nothing_of_them(make_config, tmp_path):
    """An earlier version refuses fields that it doesn't know."""
    make_config().save_pretrained(tmp_path)
    assert "attribute" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    "field, value",
    [("attribute_loss", "mae"), ("fusion", "sum"), ("pooling_mode", "median"), ("projection_size", "128")],
)
def test_an_illegal_value_names_field_and_value(field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=rf"{field}(.|\n)*{value}"):
        RsaCfnConfig(**{field: value})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"residual_size": 0}, "residual_size=0 is out of range; give an integer of at least 1"),
        ({"cross_fusion_rank": 0}, "cross_fusion_rank=0 is out of range"),
        ({"max_audio_frames": -1}, "max_audio_frames=-1 is out of range"),
        ({"multi_sample_draws": 0}, "multi_sample_draws=0 is out of range"),
        ({"residual_dropout": 1.0}, r"residual_dropout=1.0 is out of range; give a number in \[0, 1\)"),
        ({"mixer_dropout": -0.1}, "mixer_dropout=-0.1 is out of range"),
        ({"num_labels": 3, "id2label": {0: "calm", 1: "upset"}}, "num_labels=3 contradicts id2label, which names 2"),
        ({"attributes": ["a", "a"]}, r"attributes=\['a', 'a'\] don't fit .*; give each once"),
        ({"attributes": ["a"], "attribute_ranges": [[1, 1]]}, "give each once, and a number and a greater one for it"),
        ({"attribute_ranges": [[0, 1]]}, r"attributes=\[\] don't fit attribute_ranges=\[\[0, 1\]\]"),
        ({"attribute_weight": 0}, "attribute_weight=0 is out of range; give more than 0"),
        ({"problem_type": "regression"}, "problem_type='regression' isn't learnt; leave it out"),
        ({"problem_type": "multi_label_classification"}, "leave it out: a row has one class"),
        (
            {"text_config": {"model_type": "roberta", "hidden_size": 10, "num_attention_heads": 3}},
            "text_config.num_attention_heads=3 doesn't divide text_config.hidden_size=10",
        ),
        (
            {"audio_config": {"model_type": "wav2vec2", "num_attention_heads": 0}},
            "audio_config.num_attention_heads=0 doesn't divide",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RsaCfnConfig(**fields)
    if not any(name.endswith("_config") for name in fields):
        with pytest.raises(ValueError, match=message):
            RsaCfnConfig.from_dict(RsaCfnConfig().to_dict(), **fields)  # beside what was saved


@pytest.mark.parametrize("model_type", ["sew", "sew-d", "speecht5", "moonshine", "clap", "roberta"])
def test_a_backbone_of_another_family_is_refused(model_type):
    with pytest.raises(ValueError, match=f"model_type='{model_type}' is no audio encoder .*; give one of .*, whisper"):
        RsaCfnConfig(audio_config={"model_type": model_type})
