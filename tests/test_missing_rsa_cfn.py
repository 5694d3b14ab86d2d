"""Very short, silent and missing inputs: finite logits, and the same alone as in a batch."""

import numpy as np
import pytest
import torch

from configuration_rsa_cfn import FUSIONS, POOLING_MODES
from modeling_rsa_cfn import drop_modalities


# The receptive field and hop of the real feature encoder, 400 and 320 samples, in three layers.
STEM = {"conv_kernel": (10, 7, 10), "conv_stride": (5, 8, 8)}
GROUP = {**STEM, "feat_extract_norm": "group", "do_stable_layer_norm": False}
SPEC_AUGMENT = {**STEM, "mask_time_prob": 0.5, "mask_time_length": 10}


@pytest.fixture(scope="module")
def odd_clips():
    """0, 1, 399, 400 and 8,000 samples of noise, and half a second of silence."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(n).astype(np.float32) for n in (0, 1, 399, 400, 8000)] + [np.zeros(8000, np.float32)]


@pytest.fixture(scope="module")
def odd_texts():
    return ["정말", "", "정말", "반가워요", "정말 반가워요", ""]


@pytest.mark.parametrize("audio_config", [STEM, GROUP], ids=["layer", "group"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_odd_inputs_through_the_processor(fusion, audio_config, make_model, processor, odd_clips, odd_texts):
    model = make_model(fusion=fusion, audio_config=audio_config)
    with torch.no_grad():
        together = model(**processor(audio=odd_clips, text=odd_texts, return_tensors="pt")).logits
        assert together.isfinite().all()
        for row, (clip, text) in enumerate(zip(odd_clips, odd_texts)):
            alone = model(**processor(audio=[clip], text=[text], return_tensors="pt")).logits
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling_mode", POOLING_MODES)
@pytest.mark.parametrize("mask_padding", [True, False])
def test_odd_inputs_directly(mask_padding, pooling_mode, make_model, odd_clips):
    model = make_model(pooling_mode=pooling_mode, mask_padding=mask_padding, audio_config=STEM)
    assert model.config.audio_family.shortest == 400
    ids = torch.tensor([[0, 5, 2]])
    with torch.no_grad():
        logits = [model(input_values=torch.from_numpy(clip)[None], input_ids=ids).logits for clip in odd_clips]
        assert torch.cat(logits).isfinite().all()
        assert torch.equal(logits[0], model(input_ids=ids).logits)
        no_tokens = model(input_values=torch.ones(1, 800), input_ids=torch.zeros(1, 0, dtype=torch.long)).logits
        assert torch.equal(no_tokens, model(input_values=torch.ones(1, 800)).logits)


def test_a_row_without_text_changes_no_other_row_of_an_unmasked_mixer(make_model, processor, clips, texts):
    model = make_model(fusion="mlp_mixer", mask_padding=False)
    clips = [clip[:2000] for clip in clips]
    with torch.no_grad():
        together = model(**processor(audio=clips, text=[texts[0], None, texts[2]], return_tensors="pt")).logits
        for row, text in ((0, texts[0]), (1, None), (2, texts[2])):
            alone = model(**processor(audio=[clips[row]], text=text, return_tensors="pt")).logits
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_samples_after_a_short_clip_are_silence(make_model):
    model = make_model(fusion="audio", audio_config=STEM)
    clip, mask = torch.randn(1, 800), (torch.arange(800) < 399).long()[None]
    with torch.no_grad():
        expected = model(input_values=clip[:, :399]).logits
        torch.testing.assert_close(model(input_values=clip, audio_attention_mask=mask).logits, expected)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("fusion", [*FUSIONS, "attentive_statistics"])
def test_a_missing_modality_is_a_vector_of_zeros(fusion, attn_implementation, make_model, processor, clips, texts):
    """Missing for the whole batch, or for a row of it: the same logits, alone or among others, and clean gradients."""
    fields = {"fusion": fusion} if fusion in FUSIONS else {"pooling_mode": fusion}
    model = make_model(attn_implementation=attn_implementation, **fields)
    inputs = {"audio": [clips[0], None, clips[1]], "text": [texts[0], texts[1], None]}
    mixed = processor(**inputs, return_tensors="pt")
    together = model(**mixed, labels=torch.tensor([0, 1, 2]))
    together.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    text_only = model(**processor(text=texts[1], return_tensors="pt"))
    audio_only = model(**processor(audio=clips[1], return_tensors="pt"))
    torch.testing.assert_close(text_only.logits[0], together.logits[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(audio_only.logits[0], together.logits[2], atol=1e-5, rtol=0)
    for output, row in ((together, 1), (text_only, 0)):
        assert output.audio_embeds is None or not output.audio_embeds[row].any()
    for output, row in ((together, 2), (audio_only, 0)):
        assert output.text_embeds is None or not output.text_embeds[row].any()


def test_the_encoder_of_a_modality_that_the_batch_lacks_does_not_run(make_model):
    model = make_model()
    model.audio_model.forward = model.text_model.forward = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(input_values=torch.ones(1, 800))
    model.audio_model = torch.nn.Module()  # one without a forward
    with pytest.raises(ZeroDivisionError):
        model(input_ids=torch.tensor([[5]]))


def test_rows_of_no_modality_are_named(make_model):
    model = make_model()
    with pytest.raises(ValueError, match="input_values=None and input_ids=None"):
        model()
    ids, mask = torch.full((3, 4), 5), torch.tensor([[1] * 4, [0] * 4, [0] * 4])
    audio = {"input_values": torch.ones(3, 800), "audio_attention_mask": torch.ones(3, 800, dtype=torch.long)}
    audio["audio_attention_mask"][:2] = 0
    with pytest.raises(ValueError, match=r"rows \[1\] have neither audio nor text"):
        model(**audio, input_ids=ids, attention_mask=mask)
    with pytest.raises(ValueError, match=r"rows \[1, 2\] have neither"):
        model(input_ids=ids, attention_mask=mask)


def test_drop_modalities_takes_at_most_one_from_a_row():
    audio, text = torch.ones(4000, 3, dtype=torch.bool), torch.full((4000, 2), 7)
    audio[:1000] = False
    text[1000:2000] = 0
    dropped_audio, dropped_text = drop_modalities(audio, text, 0.5)
    assert torch.equal(dropped_audio[:2000], audio[:2000]) and torch.equal(dropped_text[:2000], text[:2000])
    lost_audio, lost_text = ~dropped_audio[2000:].any(dim=1), ~dropped_text[2000:].any(dim=1)
    assert not (lost_audio & lost_text).any()
    assert lost_audio.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert lost_text.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_modality_dropout_is_for_training_alone(make_model, processor, clips, texts):
    model = make_model(modality_dropout=1.0)
    batch = processor(audio=clips, text=texts, return_tensors="pt")
    output = model(**batch)
    assert output.audio_embeds.any(dim=1).all() and output.text_embeds.any(dim=1).all()
    output = model.train()(**batch)
    assert (output.audio_embeds.any(dim=1) ^ output.text_embeds.any(dim=1)).all()


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_modality_dropout_is_a_probability(value, make_config):
    with pytest.raises(ValueError, match=f"modality_dropout={value} .* give 0 to 1"):
        make_config(modality_dropout=value)


@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
def test_spec_augment_lets_short_batches_train_and_masks_longer_ones(model_type, make_model):
    audio_config = {"model_type": model_type, **SPEC_AUGMENT}
    if model_type == "data2vec-audio":
        audio_config |= {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}
    model = make_model(fusion="audio", audio_config=audio_config).train()
    masked = []
    original = model.audio_model._mask_hidden_states

    def spy(hidden_states, *args, **kwargs):
        before = hidden_states.clone()
        after = original(hidden_states, *args, **kwargs)
        masked.append((before != after).any().item())
        return after

    model.audio_model._mask_hidden_states = spy
    for samples in (1, 400, 800, 16000):
        model(input_values=torch.randn(2, samples), labels=torch.tensor([0, 1])).loss.backward()
    assert masked == [False, False, False, True]
