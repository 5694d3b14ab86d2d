"""Audio backbones of all families: a clip alone is the clip in a batch; how they are loaded and frozen."""

import pytest
import torch


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
STEADY = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
STEADY |= {"final_dropout": 0.0, "layerdrop": 0.0, "mask_time_prob": 0.0}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
CONFORMER = {"model_type": "wav2vec2-conformer", "conv_depthwise_kernel_size": 5, "conformer_conv_dropout": 0.0}
FILTERBANK = {**SIZES, **STEADY, "model_type": "wav2vec2-bert", "feature_projection_input_dim": 12}
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
    "num_mel_bins": 12,
    "max_source_positions": 100,
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
    in_training, together = model.train()(**batch), model.eval()(**batch)
    for row, clip in enumerate(clips):
        alone = model(**{model.config.audio_input: clip[None]})
        for output in (in_training, together):
            torch.testing.assert_close(output.audio_embeds[row], alone.audio_embeds[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(output.logits[row], alone.logits[0], atol=1e-5, rtol=0)
