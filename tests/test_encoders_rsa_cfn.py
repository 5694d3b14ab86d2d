"""Audio backbones of all families: a clip alone is the clip in a batch; how they are loaded and frozen."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    SeamlessM4TFeatureExtractor,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from configuration_rsa_cfn import FUSIONS, RsaCfnConfig
from encoders_rsa_cfn import WhisperAudioEncoder, audio_family
from explain import explain
from modeling_rsa_cfn import RsaCfnForSequenceClassification
from processing_rsa_cfn import RsaCfnProcessor
from scripts.export_onnx import export
from tests.slow import mostly_slow
from training.model import max_audio_frames


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
STEADY = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
STEADY |= {"final_dropout": 0.0, "layerdrop": 0.0, "mask_time_prob": 0.0}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
CONFORMER = {"model_type": "wav2vec2-conformer", "conv_depthwise_kernel_size": 5, "conformer_conv_dropout": 0.0}
FILTERBANK = {**SIZES, **STEADY, "model_type": "wav2vec2-bert", "feature_projection_input_dim": 160}
FILTERBANK |= {"conv_depthwise_kernel_size": 5, "conformer_conv_dropout": 0.0}
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 8,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "num_mel_bins": 80,
    "max_source_positions": 300,
}
BACKBONES = {
    "wav2vec2 layer": {},
    "wav2vec2 group": GROUP,
    "wav2vec2 adapter": {"add_adapter": True, "num_adapter_layers": 2},
    "hubert layer": {"model_type": "hubert"},
    "hubert group": {"model_type": "hubert", **GROUP},
    "hubert batch norm": {"model_type": "hubert", "conv_pos_batch_norm": True},
    "wavlm layer": {"model_type": "wavlm"},
    "wavlm group": {"model_type": "wavlm", **GROUP},
    "wavlm adapter": {"model_type": "wavlm", "add_adapter": True, "num_adapter_layers": 2},
    "unispeech": {"model_type": "unispeech", **GROUP},
    "unispeech-sat": {"model_type": "unispeech-sat"},
    "data2vec-audio": {"model_type": "data2vec-audio", "conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 3},
    "conformer relative": {**CONFORMER, "position_embeddings_type": "relative"},
    "conformer rotary": {**CONFORMER, "position_embeddings_type": "rotary"},
    "conformer no positions, adapter": {**CONFORMER, "position_embeddings_type": None, "add_adapter": True},
    "whisper": WHISPER,
    "w2v-bert relative_key": FILTERBANK,
    "w2v-bert relative": {**FILTERBANK, "position_embeddings_type": "relative"},
    "w2v-bert rotary": {**FILTERBANK, "position_embeddings_type": "rotary"},
    "w2v-bert adapter": {**FILTERBANK, "add_adapter": True, "num_adapter_layers": 2},
    "w2v-bert ffn": {**FILTERBANK, "add_adapter": True, "use_intermediate_ffn_before_adapter": True},
}


EXTRACTORS = {"whisper": WhisperFeatureExtractor(), "w2v-bert relative_key": SeamlessM4TFeatureExtractor()}
OF_FEATURES = pytest.mark.parametrize("name", EXTRACTORS)


@pytest.fixture(scope="session")
def make_audio_model(make_model):
    """A function that gives a model of audio without dropout, whose batch norms have seen other clips."""

    def make(audio_config, **fields):
        model = make_model(**{"fusion": "audio", **fields}, audio_config={**STEADY, **audio_config})
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                torch.nn.init.normal_(module.running_mean)
        return model

    return make


@pytest.fixture(scope="session")
def make_clips():
    """A function that gives clips as the model reads them, and those padded together with their mask."""

    def make(model, seconds=(0.05, 0.31, 1.0, 0.62)):
        family, generator = model.config.audio_family, torch.Generator().manual_seed(1)
        clips = []
        for row, length in enumerate(seconds):
            length = family.input_length(round(16_000 * length))
            clips.append(torch.randn(length, *family.input_shape, generator=generator) * (row + 1) + row)
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=7.0)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(clip), dtype=torch.long) for clip in clips], True)
        return clips, {family.input_name: padded, "audio_attention_mask": mask}

    return make


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_clip_alone_is_the_clip_in_a_batch(name, make_audio_model, make_clips):
    model = make_audio_model(BACKBONES[name])
    clips, batch = make_clips(model)
    model.runs_lengths_apart = False
    in_training = model.train()(**batch)
    del model.runs_lengths_apart
    together = model.eval()(**batch)
    for row, clip in enumerate(clips):
        alone = model(**{model.config.audio_input: clip[None]})
        for output in (in_training, together):
            torch.testing.assert_close(output.audio_embeds[row], alone.audio_embeds[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(output.logits[row], alone.logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", mostly_slow(BACKBONES, "whisper", "wavlm layer", "w2v-bert relative_key"))
@torch.no_grad()
def test_int8_changes_little_and_no_clip_changes_another(name, make_audio_model, make_clips, tmp_path):
    model = make_audio_model(BACKBONES[name])
    clips, batch = make_clips(model)
    expected = model.eval()(**batch).audio_embeds
    model.to_int8()
    together = model(**batch).audio_embeds
    assert 0 < (together - expected).abs().max() < 0.02 * expected.abs().max()
    for row, clip in enumerate(clips):
        alone = model(**{model.config.audio_input: clip[None]}).audio_embeds[0]
        torch.testing.assert_close(together[row], alone, atol=0.005, rtol=0)  # at the edge of a step of 1/127
    batch[model.config.audio_input][1] = torch.nan
    assert model(**batch).logits.isfinite().all(dim=1).tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="int8 can't be saved"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("name", mostly_slow(BACKBONES, "whisper", "w2v-bert adapter", "conformer relative"))
def test_activation_checkpointing_changes_no_gradient(name, make_audio_model, make_clips):
    """Each part that isn't frozen has a gradient, and a backward that follows two forwards sees the lengths of each."""
    plain = make_audio_model(BACKBONES[name]).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        batches = [make_clips(model)[1], make_clips(model, (0.9, 0.2, 0.3, 0.1))[1]]
        sum(model(**batch, labels=torch.tensor([0, 1, 2, 3])).loss for batch in batches).backward()
    for (parameter_name, expected), parameter in zip(plain.named_parameters(), checkpointed.parameters()):
        assert (parameter.grad is not None) == (expected.grad is not None) == parameter.requires_grad, parameter_name
        torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-6, rtol=1e-4, msg=parameter_name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_onnxruntime_agrees_with_pytorch(name, make_audio_model, tmp_path):
    assert export(make_audio_model(BACKBONES[name]), tmp_path / "model.onnx") <= 1e-5


@OF_FEATURES
@pytest.mark.parametrize("fusion", mostly_slow(FUSIONS, "rsa_cfn", "mlp_mixer"))
def test_features_go_through_every_fusion(fusion, name, make_audio_model, processor, clips, texts):
    """A clip of less than a frame, one that is missing and one over the limit, alone and together; and a step."""
    processor = RsaCfnProcessor(EXTRACTORS[name], processor.tokenizer, max_audio_seconds=0.8, max_text_tokens=16)
    config = RsaCfnConfig(audio_config=BACKBONES[name]).audio_config
    model = make_audio_model(BACKBONES[name], fusion=fusion, max_audio_frames=max_audio_frames(config, 0.8))
    audio, text = [*clips, clips[0][:50], None], [texts[0], None, *texts[1:], texts[0]]
    batch = processor(audio=audio, text=text, return_tensors="pt")
    if fusion == "text":
        batch["attention_mask"][1, :1] = 1
    together = model(**batch, labels=torch.arange(5))
    together.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for row in {"audio": range(4), "text": (0, 2, 3, 4)}.get(fusion, range(5)):
        alone = model(**processor(audio=[audio[row]], text=[text[row]], return_tensors="pt")).logits
        torch.testing.assert_close(alone[0], together.logits[row], atol=1e-5, rtol=0)


@OF_FEATURES
def test_the_mixer_is_made_for_the_longest_clip_of_features(name, processor):
    processor = RsaCfnProcessor(EXTRACTORS[name], processor.tokenizer)
    config = RsaCfnConfig(audio_config=BACKBONES[name]).audio_config
    for seconds in (0.5, 1.01, 6.0):
        features = processor(audio=[np.ones(round(16_000 * seconds))], return_tensors="np")["input_features"]
        spare = max_audio_frames(config, seconds) - audio_family(config).num_frames(features.shape[1])
        assert 0 <= spare <= 2


@OF_FEATURES
def test_the_relevance_of_features_is_told_by_half_seconds(name, make_audio_model, processor):
    processor = RsaCfnProcessor(EXTRACTORS[name], processor.tokenizer)
    clip = np.random.default_rng(0).standard_normal(19_200).astype(np.float32)
    explanation = explain(make_audio_model(BACKBONES[name]), processor, clip)
    np.testing.assert_allclose(explanation.segment_bounds, [[0, 0.5], [0.5, 1], [1, 1.2]])
    assert np.abs(explanation.segment_relevance).min() > 0


@pytest.mark.parametrize(
    "whisper_class", [WhisperForConditionalGeneration, WhisperModel, WhisperForAudioClassification]
)
def test_of_a_whisper_the_encoder_alone_is_loaded_and_saved(whisper_class, make_config, processor, tmp_path):
    config = make_config(audio_config=WHISPER)
    whole = whisper_class(config.audio_config)
    whole.save_pretrained(tmp_path / "whisper")
    AutoModel.from_config(config.text_config).save_pretrained(tmp_path / "text")
    model, info = RsaCfnForSequenceClassification.from_audio_text_pretrained(
        str(tmp_path / "whisper"), str(tmp_path / "text"), fusion="audio", output_loading_info=True
    )
    assert not any(info["audio_model"].values()) and list(info) == ["audio_model"]
    assert isinstance(model.audio_model, WhisperAudioEncoder)
    encoder = whole.get_encoder() if hasattr(whole, "get_encoder") else whole.encoder
    for weights, expected in zip(model.audio_model.state_dict().items(), encoder.state_dict().items(), strict=True):
        assert weights[0] == expected[0] and torch.equal(weights[1], expected[1])
    features = torch.randn(1, 600, 80)  # of all of its positions, as Whisper runs
    with torch.no_grad():
        states = model.eval().get_audio_states(input_features=features)[0]
        torch.testing.assert_close(states, encoder.eval()(features.transpose(1, 2)).last_hidden_state)
    model.save_pretrained(tmp_path / "model")
    reloaded = RsaCfnForSequenceClassification.from_pretrained(tmp_path / "model")
    frozen = {name for name, parameter in reloaded.audio_model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "embed_positions.weight"}


def test_layers_of_whisper_are_frozen_and_weighed(make_audio_model, make_clips):
    model = make_audio_model({**WHISPER, "encoder_layerdrop": 0.5}, use_weighted_layer_sum=True, freeze_audio_layers=1)
    assert model.config.audio_config.encoder_layerdrop == 0 and len(model.audio_layer_weights) == 3
    below = ("conv1.", "conv2.", "embed_positions.", "layers.0.")
    for name, parameter in model.audio_model.named_parameters():
        assert parameter.requires_grad != name.startswith(below), name
    batch = make_clips(model)[1]
    assert len(model(**batch, output_hidden_states=True).audio_hidden_states) == 3


def test_the_layers_of_data2vec_are_frozen_and_not_its_positions(make_audio_model):
    model = make_audio_model(BACKBONES["data2vec-audio"], freeze_audio_layers=1)
    layers = model.audio_model.encoder.layers
    assert not any(p.requires_grad for p in layers[0].parameters()) and all(
        p.requires_grad for p in layers[1].parameters()
    )
    assert not any(p.requires_grad for p in model.audio_model.encoder.pos_conv_embed.parameters())


def test_what_a_backbone_does_not_read_is_refused(make_audio_model):
    model = make_audio_model(WHISPER)
    with pytest.raises(ValueError, match="6.01 s is longer than what model_type='whisper' .*; give at most 6 s"):
        model(input_features=torch.zeros(1, 601, 80))
    with pytest.raises(
        ValueError, match="model_type='whisper' reads input_features; give what its own feature extract"
    ):
        model(input_values=torch.zeros(1, 601))
    with pytest.raises(ValueError, match="model_type='wav2vec2' reads input_values"):
        make_audio_model({})(input_features=torch.zeros(1, 601, 80))
    with pytest.raises(
        ValueError, match="output_hidden_size=8 isn't its hidden_size, 16; give an adapter of that width"
    ):
        make_audio_model({"add_adapter": True, "output_hidden_size": 8})


@pytest.mark.parametrize("pooling_mode", ["mean", "sum"])
@torch.no_grad()
def test_pooled_layers_stand_in_for_a_learned_sum(pooling_mode, make_audio_model, make_clips):
    model = make_audio_model(WHISPER, use_weighted_layer_sum=True, pooling_mode=pooling_mode)
    torch.nn.init.normal_(model.audio_layer_weights)
    batch = make_clips(model)[1]
    expected = model(**batch)
    _, counts, layers = model.get_audio_states(**batch, each_layer=True)
    summed = torch.stack([(layer * counts.unsqueeze(-1)).sum(dim=1, keepdim=True) for layer in layers], dim=1)
    pooled = summed / counts.sum(dim=1)[:, None, None, None] if pooling_mode == "mean" else summed  # (B, L, 1, H)
    given = model(audio_embeds=pooled)
    torch.testing.assert_close(given.logits, expected.logits, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="of layers; give those of one, or use_weighted_layer_sum=True"):
        make_audio_model(WHISPER)(audio_embeds=pooled)
