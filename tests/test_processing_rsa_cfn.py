"""The processor: forms of audio, masks of each modality, length limits, and errors."""

import copy
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import (
    CONFIG_MAPPING,
    DataCollatorWithPadding,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

import processing_rsa_cfn
from processing_rsa_cfn import RsaCfnProcessor


@pytest.fixture
def tone():
    """One second of 440 Hz at 16 kHz."""
    return np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) * 0.5


# w2v-BERT's own pads with 1.
EXTRACTORS = {
    "wav2vec2": Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "whisper": WhisperFeatureExtractor(),
    "w2v-bert": SeamlessM4TFeatureExtractor(padding_value=1),
}


@pytest.fixture(params=EXTRACTORS)
def hearing(request, processor):
    """A processor with the feature extractor of each kind of audio backbone."""
    return RsaCfnProcessor(EXTRACTORS[request.param], processor.tokenizer, max_audio_seconds=0.25)


def test_each_modality_keeps_its_mask(processor, clips, texts):
    batch = processor(audio=clips, text=texts, sampling_rate=16000, padding=True, return_tensors="pt")
    assert list(batch) == processor.model_input_names
    assert batch["input_values"].shape == batch["audio_attention_mask"].shape == (3, 16000)
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == [8000, 2000, 16000]
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    # <s>, </s> and a token for each syllable, blanks included
    assert batch["attention_mask"].sum(dim=1).tolist() == [15, 4, 9]


def test_each_clip_is_normalised_alone(processor, clips):
    batch = processor(audio=clips, return_tensors="pt")
    for row, mask in zip(batch["input_values"], batch["audio_attention_mask"]):
        valid = row[mask == 1]
        assert abs(valid.mean()) < 1e-5 and abs(valid.var(unbiased=False) - 1) < 1e-3
        assert (row[mask == 0] == 0).all()


def test_a_clip_alone_is_as_in_any_batch(hearing):
    name = hearing.model_input_names[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = [*rng.integers(1, 1000, size=4), *rng.integers(1000, 5000, size=3), None, 0]
        clips = [None if n is None else rng.standard_normal(n).astype(np.float32) for n in rng.permutation(lengths)]
        batch = hearing(audio=clips, text=["정말"] * len(clips), return_tensors="pt")
        for clip, row, mask in zip(clips, batch[name], batch["audio_attention_mask"]):
            if clip is None or not len(clip):
                assert not mask.any() and not row.any()
                continue
            alone = hearing(audio=clip, return_tensors="pt")
            assert alone["audio_attention_mask"].all()
            (alone,) = alone[name]
            assert torch.equal(row[: len(alone)], alone) and not row[len(alone) :].any()
            assert mask.tolist() == [1] * len(alone) + [0] * (len(row) - len(alone))


@pytest.mark.parametrize("kind, num_frames, frame", [("whisper", 25, (80,)), ("w2v-bert", 11, (160,))])
def test_features_are_frames_of_the_clip_and_no_more(kind, num_frames, frame, processor, tone):
    extractor = EXTRACTORS[kind]
    short = RsaCfnProcessor(extractor, processor.tokenizer, max_audio_seconds=0.25, audio_crop="head")
    batch = short(audio=[tone, tone[:700]], padding="max_length", return_tensors="pt")
    assert list(batch) == short.model_input_names[:2] == ["input_features", "audio_attention_mask"]
    assert batch["input_features"].dtype == torch.float32
    assert batch["input_features"].shape == (2, num_frames, *frame)
    own = extractor(tone[:4000], padding=False, sampling_rate=16000, return_tensors="np")["input_features"][0]
    np.testing.assert_array_equal(batch["input_features"][0], own.T if kind == "whisper" else own)
    # As many where every row is as short.
    assert short(audio=tone[:700], padding="max_length", return_tensors="np")["input_features"].shape[1] == num_frames


def test_no_more_is_heard_than_the_feature_extractor_takes(processor, tone):
    extractor = WhisperFeatureExtractor(chunk_length=2)
    message = "is more than WhisperFeatureExtractor takes; give at most 2"
    with pytest.raises(ValueError, match=f"max_audio_seconds=2.5 {message}"):
        RsaCfnProcessor(extractor, processor.tokenizer, max_audio_seconds=2.5)
    longest = RsaCfnProcessor(extractor, processor.tokenizer, max_audio_seconds=2)
    assert longest(audio=np.tile(tone, 3), return_tensors="np")["input_features"].shape == (1, 200, 80)
    with pytest.raises(ValueError, match=f"audio of 3 seconds {message}"):
        longest(audio=np.tile(tone, 3), truncation=False)


def test_a_list_of_numbers_of_any_kind_is_one_clip(tone, processor):
    expected = processor(audio=tone, return_tensors="np")["input_values"]
    for clip in (tone.tolist(), list(tone), tuple(tone), list(tone.astype(np.float64))):
        np.testing.assert_allclose(processor(audio=clip, return_tensors="np")["input_values"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "num_samples, starts", [(0, [0]), (5, [0]), (10, [0]), (11, [0, 1]), (15, [0, 5]), (27, [0, 5, 10, 15, 17])]
)
@pytest.mark.parametrize("samples_per_block", [1, 4, 100])
def test_windows_overlap_by_half_and_reach_to_the_end(num_samples, starts, samples_per_block, processor, monkeypatch):
    clip = np.arange(num_samples, dtype=np.float32)
    blocks = [clip[start : start + samples_per_block] for start in range(0, num_samples, samples_per_block)]
    monkeypatch.setattr(processing_rsa_cfn, "decode_blocks", lambda *args: blocks)
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=10 / 16000)
    windows = [window.tolist() for _, window in short.windows(clip)]
    assert windows == [clip[start : start + 10].tolist() for start in starts]


def test_a_prefix_stands_before_every_transcript(processor, tmp_path):
    RsaCfnProcessor(
        processor.feature_extractor, processor.tokenizer, max_text_tokens=5, text_prefix="안녕"
    ).save_pretrained(tmp_path)
    reloaded = RsaCfnProcessor.from_pretrained(tmp_path)
    batch = reloaded(audio=[np.ones(800)] * 4, text=["하세요", None, "", "안"], return_tensors="pt")
    expected = processor(text=["안녕하", "안녕", "안녕안"], return_tensors="pt")  # cut with its transcript
    assert torch.equal(batch["input_ids"][[0, 2, 3]], expected["input_ids"])
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 0, 4, 5]


def test_the_last_turns_that_fit_stand_before_a_transcript_as_in_a_pair(processor, texts, tmp_path):
    tokenizer = copy.deepcopy(processor.tokenizer)
    template = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}
    special_tokens = [("<s>", 0), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(**template, special_tokens=special_tokens)
    RsaCfnProcessor(processor.feature_extractor, tokenizer, context_turns=2).save_pretrained(tmp_path)
    reloaded = RsaCfnProcessor.from_pretrained(tmp_path)
    turns = [["left out", *texts[:2]], [], None, texts[:1]]
    batch = reloaded(text=[texts[2], texts[0], texts[1], None], context=turns, audio=[np.ones(800)] * 4)
    expected = [tokenizer(" ".join(texts[:2]), texts[2]), tokenizer(texts[0]), tokenizer(texts[1])]
    masks = [np.asarray(mask) == 1 for mask in batch["attention_mask"]]
    for ids, mask, pair in zip(batch["input_ids"], masks, expected):
        assert np.asarray(ids)[mask].tolist() == pair["input_ids"]
    assert not masks[3].any()
    alone = reloaded(text=texts[2], context=turns[0])["input_ids"][0]
    assert list(alone) == expected[0]["input_ids"]
    # A turn that doesn't fit is left out as a whole, and those before it; the transcript is kept.
    limit = len(tokenizer(texts[1], texts[2])["input_ids"]) + 1
    ids = reloaded(text=texts[2], context=turns[0], max_length=limit)["input_ids"][0]
    assert list(ids) == tokenizer(texts[1], texts[2])["input_ids"]
    ids = reloaded(text=texts[2], context=turns[0], max_length=5)["input_ids"][0]
    assert list(ids) == tokenizer(texts[2], truncation=True, max_length=5)["input_ids"]
    with pytest.raises(ValueError, match="context is given, and the model reads none"):
        processor(text=texts[2], context=turns[0])
    with pytest.raises(ValueError, match="context has 1 rows and text 2; give as many of each"):
        reloaded(text=texts[:2], context=turns[:1])


def test_threads_may_share_a_processor(processor):
    """A fast tokenizer that one thread tells to pad otherwise, while another uses it, pads otherwise for both."""

    def tokenize(number):
        return processor(text=["정말", "반가워요"], padding=(True, "max_length")[number % 2], return_tensors="pt")

    expected = [tokenize(number)["input_ids"] for number in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(tokenize, range(2000)))
    finally:
        sys.setswitchinterval(interval)
    assert all(torch.equal(batch["input_ids"], expected[number % 2]) for number, batch in enumerate(batches))


def test_limits_cut_and_pad(processor, tone, texts):
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=0.25, max_text_tokens=5)
    batch = short(audio=[tone, tone[:100]], text=texts[:2], padding="max_length", return_tensors="pt")
    assert batch["input_values"].shape == (2, 4000)
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == [4000, 100]
    assert batch["input_ids"].shape == (2, 5)


def test_options_are_for_all_or_for_one_modality(processor, tone):
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=0.25, max_text_tokens=4)
    text = "정말 반가워요"

    def shapes(**options):
        batch = short(audio=tone, text=text, return_tensors="np", **options)
        return batch["input_values"].shape[1], batch["input_ids"].shape[1]

    assert shapes(truncation=False) == (16000, 9)
    assert shapes(max_length=6) == (4000, 6)  # tokens; a clip of 6 samples would be none
    assert shapes(text_kwargs={"max_length": 6}, audio_kwargs={"max_length": 800}) == (800, 6)
    assert shapes(pad_to_multiple_of=2) == (4000, 4)
    assert shapes(audio_kwargs={"pad_to_multiple_of": 7}) == (4004, 4)
    assert shapes(text_kwargs={"padding": "max_length", "max_length": 12}) == (4000, 12)
    assert shapes(audio_kwargs={"truncation": False}, text_kwargs={"add_special_tokens": False}) == (16000, 4)
    assert shapes(common_kwargs={"padding": "max_length"}, truncation=False) == (16000, 9)
    assert "offset_mapping" in short(text=text, return_offsets_mapping=True)


@pytest.mark.parametrize("options", [{"sample_rate": 8000}, {"audio_kwargs": {"sample_rate": 8000}}])
def test_an_unknown_option_is_refused(options, processor, tone):
    with pytest.raises(TypeError, match="sample_rate is unknown; give some of .*sampling_rate"):
        processor(audio=tone, **options)


def test_of_a_text_without_end_only_the_beginning_is_tokenized(processor, monkeypatch):
    monkeypatch.setattr(processing_rsa_cfn, "LETTERS_PER_TOKEN", 1)
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_text_tokens=4)
    given = []
    monkeypatch.setattr(short, "tokenizer", lambda texts, **options: given.extend(texts) or processor.tokenizer(texts))
    short(text=["정말", " " * 9 + "정말 반가워요"])
    assert given == ["정말", "정말 반"]


@pytest.fixture
def cropping(processor):
    """A processor of at most 4 samples, which leaves their values alone."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return RsaCfnProcessor(extractor, processor.tokenizer, max_audio_seconds=4 / 16000)


@pytest.mark.parametrize(
    "crop, even, odd",
    [("head", [0, 1, 2, 3], [0, 1, 2, 3]), ("center", [3, 4, 5, 6], [2, 3, 4, 5])],
)
def test_a_long_clip_is_cropped(cropping, crop, even, odd):
    ramps = [np.arange(length, dtype=np.float32) for length in (10, 9, 4, 2)]
    batch = cropping(audio=ramps, audio_crop=crop, return_tensors="pt")
    assert batch["input_values"].tolist() == [even, odd, [0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == [4, 4, 4, 2]
    for ramp, row in zip(ramps, batch["input_values"]):  # whatever it is beside
        alone = cropping(audio=ramp, audio_crop=crop, return_tensors="pt")["input_values"][0]
        assert torch.equal(alone, row[: len(alone)])


def test_a_random_crop_is_any_stretch_and_follows_torchs_seed(cropping):
    ramp = np.arange(7, dtype=np.float32)

    def starts():
        batch = cropping(audio=[ramp] * 60, audio_crop="random", return_tensors="pt")["input_values"]
        assert torch.equal(batch, batch[:, :1] + torch.arange(4))
        return batch[:, 0].tolist()

    torch.manual_seed(1)
    drawn = starts()
    assert set(drawn) == {0, 1, 2, 3}
    assert starts() != drawn
    torch.manual_seed(1)
    np.random.seed(1)
    assert starts() == drawn


def test_a_clip_is_cropped_before_it_is_normalised(processor):
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=0.25)
    clip = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    clip[:2000] += 100
    kept = short(audio=clip, return_tensors="pt")["input_values"][0]
    expected = (clip[2000:6000] - clip[2000:6000].mean()) / clip[2000:6000].std()
    np.testing.assert_allclose(kept, expected, atol=1e-4)


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize("padding", [True, "max_length"])
def test_a_mapped_dataset_is_collated_as_by_transformers_own(is_batched, padding, hearing, clips, texts):
    def encode(row):
        return hearing(audio=row["audio"], text=row["text"], padding=False)

    columns = {"audio": clips + clips[:1], "text": texts + texts[:1]}
    if is_batched:  # row by row, datasets asks for the same columns of each
        columns["audio"][3] = columns["text"][1] = None
    rows = Dataset.from_dict({**columns, "label": [0, 1, 2, 3]})
    rows = rows.map(encode, batched=is_batched, batch_size=2, remove_columns=list(columns))
    batch = DataCollatorWithPadding(hearing, padding=padding)(list(rows))
    expected = hearing(**columns, padding=padding, return_tensors="pt")
    assert batch.pop("labels").tolist() == [0, 1, 2, 3]
    for name, values in batch.items():
        torch.testing.assert_close(values, expected[name], check_dtype=name == hearing.model_input_names[0])
    assert list(batch) == hearing.model_input_names


def test_samples_of_one_channel_may_have_its_axis(processor, tone):
    expected = processor(audio=tone, return_tensors="pt")["input_values"]
    for clip in (torch.from_numpy(tone)[None], tone[:, None]):  # of torchaudio and of soundfile
        assert torch.equal(processor(audio=clip, return_tensors="pt")["input_values"], expected)
        assert torch.equal(processor(audio=[clip], return_tensors="pt")["input_values"], expected)


def test_one_clip_and_one_text_make_a_batch_of_one(processor, tone):
    batch = processor(audio=tone, text="정말", sampling_rate=16000, return_tensors="pt")
    assert {len(values) for values in batch.values()} == {1}


def test_a_clip_of_no_samples_is_all_padding(hearing, tone):
    nothing, name = np.zeros(0, dtype=np.float32), hearing.model_input_names[0]
    batch = hearing(audio=[tone, nothing], return_tensors="pt")
    assert batch["audio_attention_mask"].any(dim=1).tolist() == [True, False]
    assert torch.isfinite(batch[name]).all()
    alone = hearing(audio=nothing, return_tensors="pt")
    assert alone["audio_attention_mask"].tolist() == [[0]]
    assert torch.equal(alone[name], torch.zeros_like(batch[name][1:, :1]))


def test_round_trip(processor, tmp_path, clips, texts):
    short = RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, max_audio_seconds=0.5)
    short.save_pretrained(tmp_path)
    reloaded = RsaCfnProcessor.from_pretrained(tmp_path)
    assert (reloaded.max_audio_seconds, reloaded.max_text_tokens) == (0.5, 256)
    expected = processor(text=texts, return_tensors="pt")["input_ids"]
    assert torch.equal(reloaded(text=texts, return_tensors="pt")["input_ids"], expected)
    batch = reloaded(audio=clips, return_tensors="pt")["input_values"]
    assert batch.shape == (3, 8000)
    assert torch.equal(batch, short(audio=clips, return_tensors="pt")["input_values"])


def test_the_class_at_hand_is_loaded_without_a_question(processor, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the folder's code"))
    make_model().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert "rsa_cfn" not in CONFIG_MAPPING  # or nobody would be asked
    reloaded = RsaCfnProcessor.from_pretrained(tmp_path)
    assert reloaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


LOAD_ELSEWHERE = """
import sys
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
print(*processor(audio=sys.argv[2], return_tensors="np")["input_values"].shape, type(processor).__module__)
"""


@pytest.mark.slow
def test_a_saved_processor_brings_its_reader_of_recordings_along(processor, tone, tmp_path):
    processor.save_pretrained(tmp_path / "saved")
    saved = {file.name for file in (tmp_path / "saved").glob("*.py")}
    assert saved == {f"{name}_rsa_cfn.py" for name in ("audio", "configuration", "encoders", "processing")}
    soundfile.write(tmp_path / "tone.wav", tone[:8000], 8000)
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD_ELSEWHERE, str(tmp_path / "saved"), str(tmp_path / "tone.wav")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.stdout.startswith("1 16000 transformers_modules."), done.stderr


@pytest.mark.parametrize("saved, loaded", [("center", "center"), ("head", "head"), (None, "head")])
def test_the_crop_is_saved_and_was_the_head_before(saved, loaded, processor, tmp_path):
    extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    RsaCfnProcessor(extractor, tokenizer, audio_crop=saved or "center").save_pretrained(tmp_path)
    if saved is None:  # as written before there was a choice
        file = tmp_path / "processor_config.json"
        fields = json.loads(file.read_text())
        del fields["audio_crop"]
        file.write_text(json.dumps(fields))
    assert RsaCfnProcessor.from_pretrained(tmp_path).audio_crop == loaded


def test_an_unknown_crop_is_refused(processor, clips):
    with pytest.raises(ValueError, match="audio_crop='tail' is unknown; give one of center, head, random"):
        processor(audio=clips, audio_crop="tail")
    # A saved model gives the same clip the same scores every time.
    with pytest.raises(ValueError, match="audio_crop='random' is unknown; give one of center, head"):
        RsaCfnProcessor(processor.feature_extractor, processor.tokenizer, audio_crop="random")


@pytest.mark.parametrize(
    "audio, message",
    [
        (b"RIFF....", "audio can't be read"),
        ("nowhere.wav", r"audio can't be read \(/.*/nowhere.wav isn't there\); give the path"),
        (np.array([0.0, np.nan], dtype=np.float32), "NaN or infinite"),
        (np.zeros((2, 100), dtype=np.float32), r"shape \(2, 100\)"),
    ],
)
def test_bad_audio_is_named(processor, audio, message):
    with pytest.raises(ValueError, match=message):
        processor(audio=[audio], text=["정말"])


def test_rows_must_match(processor, clips, texts):
    with pytest.raises(ValueError, match="audio has 3 rows and text 2"):
        processor(audio=clips, text=texts[:2], return_tensors="pt")


def test_a_row_may_lack_one_modality(processor, clips):
    batch = processor(audio=[clips[0], None, clips[1]], text=[None, "정말", "정말"], return_tensors="pt")
    assert batch["audio_attention_mask"].sum(dim=1).tolist() == [8000, 0, 2000]
    assert batch["attention_mask"].sum(dim=1).tolist() == [0, 4, 4]
    assert (batch["input_ids"][0] == processor.tokenizer.pad_token_id).all()
    assert (batch["input_values"][1] == 0).all()
    unpadded = processor(audio=[clips[0], None], text=[None, "정말"], padding=False)
    assert [sum(mask) for mask in unpadded["attention_mask"]] == [0, 4]


@pytest.mark.parametrize("nothing", [None, [None, None]])
def test_a_modality_that_every_row_lacks_has_no_key(nothing, processor, clips, texts):
    assert list(processor(audio=clips[:2], text=nothing)) == ["input_values", "audio_attention_mask"]
    assert list(processor(audio=nothing, text=texts[:2])) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    "audio, text, rows",
    [
        (None, None, r"\[0\]"),
        ([np.ones(800), None], ["정말", None], r"\[1\]"),
        ([None, np.ones(800), None], None, r"\[0, 2\]"),
        ([np.ones(800), np.zeros(0)], ["정말", None], r"\[1\]"),
    ],
)
def test_rows_of_no_modality_are_named(processor, audio, text, rows):
    with pytest.raises(ValueError, match=f"rows {rows} have neither audio nor text"):
        processor(audio=audio, text=text)
