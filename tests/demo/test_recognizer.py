"""What the app shows: the pipeline's probabilities, with and without a modality, in any thread, or one sentence."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from demo.recognizer import Recognizer, in_korean
from processing_rsa_cfn import RsaCfnPipeline, RsaCfnProcessor


@pytest.fixture(scope="module")
def recognizer(make_model, processor):
    return Recognizer(make_model(fusion="rsa_cfn"), processor)


@pytest.fixture(scope="module")
def pipe(make_model, processor):
    return RsaCfnPipeline(make_model(fusion="rsa_cfn"), processor, device="cpu")


def expected(pipe, inputs):
    return {in_korean(entry["label"]): entry["score"] for entry in pipe(inputs)}


def test_probabilities_are_the_pipelines(recognizer, pipe, examples):
    example = examples[2]
    audio, text = str(example.audio), example.text
    answer = recognizer(audio, text)
    assert set(answer.probabilities) == {"all", "audio", "text"}
    assert answer.probabilities["all"] == pytest.approx(expected(pipe, {"audio": audio, "text": text}))
    assert answer.probabilities["audio"] == pytest.approx(expected(pipe, {"text": text}))
    assert answer.probabilities["text"] == pytest.approx(expected(pipe, {"audio": audio}))
    assert "분노 angry" in answer.probabilities["all"] and len(answer.probabilities["all"]) == 7
    assert answer.explained is None and answer.timeline is None
    assert answer.picture.width > 600 and len(answer.picture.convert("L").getcolors(256)) > 10


def test_attributes_are_told_beside_the_emotions(make_model, processor):
    fields = {"attributes": ["valence", "pace_of_it"], "attribute_ranges": [[1, 5], [0, 9]]}
    recognizer = Recognizer(make_model(fusion="early_fusion", **fields), processor)
    answer = recognizer(None, "정말")
    expected = recognizer.pipe({"text": "정말"}, return_attributes=True)["attributes"]
    assert answer.attributes == expected and list(expected) == ["valence", "pace_of_it"]


@pytest.mark.parametrize("blank", [None, "", "  \n"])
def test_one_modality_is_enough(blank, recognizer, pipe, examples):
    audio = str(examples[0].audio)
    answer = recognizer(audio, blank)
    assert answer.probabilities == {"all": pytest.approx(expected(pipe, {"audio": audio}))}
    assert list(recognizer(None, "정말 반가워요").probabilities) == ["all"]


def test_of_a_long_recording_the_picture_explains_a_part(make_model, processor, clips, texts, tmp_path):
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, 0.5, max_text_tokens=16)
    recognizer = Recognizer(make_model(fusion="early_fusion"), short)
    soundfile.write(tmp_path / "long.wav", 0.1 * clips[2] / np.abs(clips[2]).max(), 16000)
    answer = recognizer(str(tmp_path / "long.wav"), texts[0])
    assert answer.explained == pytest.approx((0.25, 0.75))
    assert answer.timeline.width > 500 and len(answer.timeline.convert("RGB").getcolors(10**6)) > 6
    given = {"audio": str(tmp_path / "long.wav"), "text": texts[0]}
    assert answer.probabilities["all"] == pytest.approx(expected(recognizer.pipe, given))


def test_a_model_of_text_alone_leaves_the_recording_out(make_model, processor, examples):
    recognizer = Recognizer(make_model(fusion="text"), processor)
    assert recognizer.modalities == ("text",)
    answer = recognizer(str(examples[0].audio), "정말")
    assert list(answer.probabilities) == ["all"]
    with pytest.raises(ValueError, match="^nothing is given; give a transcript"):
        recognizer(str(examples[0].audio), "")


def test_what_cannot_be_used_is_said_in_a_sentence(recognizer, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio", encoding="utf-8")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.raises(ValueError, match="^nothing is given; give a recording or a transcript"):
        recognizer(None, " ")
    with pytest.raises(ValueError, match="^audio can't be read") as refused:
        recognizer(str(tmp_path / "bad.wav"), "정말")
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(ValueError, match="^audio is silent"):
        recognizer(str(tmp_path / "silent.wav"), "정말")


def test_more_than_the_limits_is_refused(recognizer, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(121 * 1000), 1000, subtype="PCM_U8")
    with pytest.raises(ValueError, match="^audio longer than 2 minutes; give a part of it[.]$"):
        recognizer(str(tmp_path / "long.wav"), "정말")
    with pytest.raises(ValueError, match="^the text has 5,001 letters; give at most 5,000"):
        recognizer(None, "정" * 5001)


@pytest.mark.slow
def test_threads_share_a_recognizer(recognizer, examples):
    given = [(str(example.audio), example.text) for example in examples[:3]]
    one_by_one = [recognizer(*inputs).probabilities for inputs in given]
    with ThreadPoolExecutor(3) as threads:
        together = [answer.probabilities for answer in threads.map(lambda inputs: recognizer(*inputs), given)]
    for alone, shared in zip(one_by_one, together, strict=True):
        assert {name: pytest.approx(values) for name, values in alone.items()} == shared


def test_labels_that_are_not_kemdys_stay(recognizer):
    assert in_korean("disgust") == "혐오 disgust" and in_korean("LABEL_0") == "LABEL_0"
