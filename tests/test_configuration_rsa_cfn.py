"""The configuration: defaults of the paper, legal values, and the round trip."""

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from configuration_rsa_cfn import EMOTIONS, RsaCfnConfig


def test_defaults_are_the_papers():
    config = RsaCfnConfig()
    assert config.fusion == "rsa_cfn"
    assert (config.projection_size, config.cross_attention_size, config.cross_residual_size) == (128, 96, 1024)
    assert config.id2label == dict(enumerate(EMOTIONS))
    assert config.audio_receptive_field == 400


def test_labels():
    assert RsaCfnConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert RsaCfnConfig(id2label={0: "calm", 1: "upset"}).label2id == {"calm": 0, "upset": 1}


def test_round_trip(make_config, tmp_path):
    config = make_config(audio_config={"model_type": "wavlm"}, fusion="early_fusion", pooling_mode="max")
    config.save_pretrained(tmp_path)
    reloaded = RsaCfnConfig.from_pretrained(tmp_path)
    assert reloaded.to_dict() == config.to_dict()
    assert type(reloaded.audio_config).__name__ == "WavLMConfig"


@pytest.mark.parametrize("field, value", [("fusion", "sum"), ("pooling_mode", "median"), ("projection_size", "128")])
def test_an_illegal_value_names_field_and_value(field, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=rf"{field}(.|\n)*{value}"):
        RsaCfnConfig(**{field: value})


def test_a_backbone_that_reads_no_waveform_is_refused():
    with pytest.raises(ValueError, match="model_type='whisper' doesn't read raw waveforms"):
        RsaCfnConfig(audio_config={"model_type": "whisper"})
