"""An explanation: what is withheld is what the model says without it; relevances add up over time and words."""

import numpy as np
import pytest
import soundfile
import torch

from configuration_rsa_cfn import FUSIONS
from explain import explain
from processing_rsa_cfn import RsaCfnProcessor


ATTENTION_MAPS = {"rsa": [28], "rsa_cfn": [6, 6], "hybrid_fusion": [6, 6]}


@pytest.fixture(scope="module")
def clip():
    """1.2 s of noise around a level that isn't 0."""
    return (0.1 * np.random.default_rng(0).standard_normal(19200) + 0.02).astype(np.float32)


def probabilities(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits[0].softmax(dim=0).numpy()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion(fusion, make_model, processor, clip, texts):
    model = make_model(fusion=fusion, max_audio_frames=200)
    explanation = explain(model, processor, clip, texts[0])
    inputs = processor(audio=[clip], text=texts[0], return_tensors="pt")
    audio = {name: inputs[name] for name in ("input_values", "audio_attention_mask")}
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    np.testing.assert_allclose(explanation.probabilities, probabilities(model, inputs), atol=1e-6)
    assert explanation.labels[explanation.probabilities.argmax()] == explanation.target
    modalities = model.fusion.modalities
    if len(modalities) == 2:
        assert list(explanation.withheld) == ["audio", "text"]
        np.testing.assert_allclose(explanation.withheld["audio"], probabilities(model, text), atol=1e-6)
        np.testing.assert_allclose(explanation.withheld["text"], probabilities(model, audio), atol=1e-6)
        index = explanation.probabilities.argmax()
        gain = explanation.probabilities[index] - explanation.withheld["text"][index]
        assert explanation.contributions["text"] == pytest.approx(gain)
    else:
        assert explanation.withheld == {} and explanation.contributions == {}
    assert explanation.words == (texts[0].split() if "text" in modalities else [])
    assert explanation.word_relevance.any() == ("text" in modalities)
    assert explanation.segment_relevance.shape == ((3,) if "audio" in modalities else (0,))
    assert explanation.segment_relevance.any() == ("audio" in modalities)
    if "audio" in modalities:
        np.testing.assert_allclose(explanation.segment_bounds, [[0, 0.5], [0.5, 1], [1, 1.2]])
        np.testing.assert_array_equal(explanation.waveform, clip)
    assert explanation.word_attention.shape == explanation.word_relevance.shape
    is_across = fusion == "cross_attention"
    assert explanation.word_attention.any() == is_across and len(explanation.frame_attention) == 119 * is_across
    assert [len(attention) for attention in explanation.attentions] == ATTENTION_MAPS.get(fusion, [])
    for attention in explanation.attentions:
        np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("fusion", ["cross_attention", "rsa", "audio"])
def test_attention_over_time(fusion, make_model, processor, clip, texts):
    """Of frames all, of words those of their tokens; none of one modality alone that would attend to the other."""
    model = make_model(fusion=fusion, pooling_mode="attentive_statistics")
    explanation = explain(model, processor, clip, texts[0])
    output = model(**processor(audio=[clip], text=texts[0], return_tensors="pt"), output_attentions=True)
    expected = output.audio_attentions[0][0].mean(dim=0).detach()
    np.testing.assert_allclose(explanation.frame_attention, expected, atol=1e-6)
    assert explanation.frame_attention.sum() == pytest.approx(1)
    if fusion != "audio":
        tokens = output.text_attentions[0][0].mean(dim=0).detach().numpy()  # <s> 안녕하세요 정말 반가워요 </s>
        np.testing.assert_allclose(explanation.word_attention[0], tokens[1:6].sum(), atol=1e-6)
        alone = explain(model, processor, text=texts[0])
        assert alone.word_attention.any() == (fusion == "rsa") and not len(alone.frame_attention)


def test_relevance_is_the_slope_of_the_score_when_what_it_belongs_to_grows(make_model, processor, clip, texts):
    """Gradient × input by central differences: of one half-second, and of one word's embeddings."""
    model = make_model(fusion="early_fusion").double()
    target = "sad"
    explanation = explain(model, processor, clip, texts[0], target=target)
    inputs = processor(audio=[clip], text=texts[0], return_tensors="pt")
    index = explanation.labels.index(target)

    def slope(scale):
        with torch.no_grad():
            scores = []
            for step in (1e-5, -1e-5):
                with scale(1 + step) as scaled:
                    logits = model(**{**inputs, **scaled}).logits[0]
                scores.append((logits[index] - logits.mean()).item())
        return (scores[0] - scores[1]) / 2e-5

    class Segment:
        def __init__(self, factor):
            self.values = inputs["input_values"].double().clone()
            self.values[:, 8000:16000] *= factor

        def __enter__(self):
            return {"input_values": self.values}

        def __exit__(self, *error):
            pass

    class Word:
        def __init__(self, factor):
            # The text is 안녕하세요 정말 반가워요 in single syllables and spaces, after the first special token.
            self.places, self.factor = [7, 8], factor

        def __enter__(self):
            def hook(module, arguments, embeddings):
                embeddings = embeddings.clone()
                embeddings[:, self.places] *= self.factor
                return embeddings

            self.handle = model.get_input_embeddings().register_forward_hook(hook)
            return {}

        def __exit__(self, *error):
            self.handle.remove()

    assert explanation.words[1] == "정말"
    assert explanation.segment_relevance[1] == pytest.approx(slope(Segment), rel=1e-3)
    assert explanation.word_relevance[1] == pytest.approx(slope(Word), rel=1e-3)


def test_a_long_clip_and_a_long_text(make_model, processor, texts, tmp_path):
    """Times are those of the clip, of which the middle is kept; words that the model wasn't given are counted."""
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, 8 * 8000).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", clip, 8000, subtype="FLOAT")
    text = "  정말 안녕하세요\n안녕하세요 반가워요 정말"
    explanation = explain(make_model(fusion="rsa"), processor, str(tmp_path / "clip.wav"), text)
    assert explanation.sampling_rate == 16000 and len(explanation.waveform) == 6 * 16000
    assert explanation.start == 1 and explanation.segment_bounds[-1].tolist() == [6.5, 7]
    assert explanation.words == ["정말", "안녕하세요", "안녕하세요"] and explanation.num_words_left == 2
    assert explanation.word_relevance.all()
    with pytest.raises(ValueError, match="text has 1,601 letters; give at most 1,600"):
        explain(make_model(fusion="rsa"), processor, text="정" * 1601)


@pytest.mark.parametrize("prefix", ["정말 ", "정말"])
def test_the_words_are_those_behind_a_prefix(prefix, make_model, processor):
    asking = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_text_tokens=16, text_prefix=prefix)
    explanation = explain(make_model(fusion="text"), asking, text="반가워요 정말 안녕하세요")
    assert explanation.words == ["반가워요", "정말", "안녕하세요"] and explanation.word_relevance.all()
    plain = explain(make_model(fusion="text"), processor, text=f"{prefix}반가워요 정말 안녕하세요")
    np.testing.assert_allclose(explanation.probabilities, plain.probabilities, atol=1e-6)
    np.testing.assert_allclose(explanation.word_relevance[1:], plain.word_relevance[-2:], atol=1e-6)


@pytest.mark.parametrize("given", [{"text": "정말"}, {"audio": np.ones(16000)}])
def test_what_is_not_finite_is_refused(given, make_model, processor):
    model = make_model(fusion="early_fusion")
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if "classifier" in name).fill_(torch.inf)
    with pytest.raises(ValueError, match="the model's outputs aren't finite"):
        explain(model, processor, **given)


def test_one_modality_alone(make_model, processor, clip, texts):
    model = make_model()
    audio = explain(model, processor, clip)
    assert audio.words == [] and audio.withheld == {} and audio.segment_relevance.any()
    for nothing in (None, clip[:0]):
        text = explain(model, processor, nothing, texts[0])
        assert not len(text.waveform) and not len(text.segment_bounds) and text.withheld == {}
        assert text.word_relevance.any()
    no_words = explain(model, processor, clip, "")
    assert no_words.words == [] and list(no_words.withheld) == ["audio", "text"]


def test_a_pad_behind_the_text_belongs_to_no_word(make_model, processor, texts):
    model = make_model(fusion="text", mask_padding=False, pooling_mode="attentive_statistics")
    explanation = explain(model, processor, text=texts[0])
    assert explanation.words == texts[0].split() and explanation.word_relevance.all()
    assert 0 < explanation.word_attention.sum() < 1


def test_what_is_refused(make_model, processor, clip, texts, tmp_path):
    with pytest.raises(ValueError, match="fusion='rsa_cfn' reads audio and text, and none is given"):
        explain(make_model(), processor)
    with pytest.raises(ValueError, match="fusion='audio' reads audio, and none is given"):
        explain(make_model(fusion="audio"), processor, text=texts[0])
    with pytest.raises(ValueError, match="target='joy' is no class of the model; give one of neutral, happy"):
        explain(make_model(), processor, clip, texts[0], target="joy")
    (tmp_path / "text.wav").write_text("정말")
    with pytest.raises(ValueError, match="audio can't be read"):
        explain(make_model(), processor, str(tmp_path / "text.wav"), texts[0])
