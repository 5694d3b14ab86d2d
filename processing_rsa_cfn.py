"""RSA-CFN processor: audio and transcripts in, padded tensors with a mask of each modality out. And the pipeline around
it: speech of any length, its transcript, or both → emotions with their probabilities."""

import copy
import http.client
import ipaddress
import numbers
import re
import socket
import string
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import numpy as np
import torch
from transformers import BatchFeature, PretrainedConfig, ProcessorMixin, WhisperFeatureExtractor
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, TextKwargs, Unpack


try:
    from .audio_rsa_cfn import AudioError, check_rate, decode_audio, decode_blocks, find_sound, is_encoded, keep_stream
    from .configuration_rsa_cfn import CUSTOM_PIPELINES
except ImportError:
    if __package__:
        raise
    from audio_rsa_cfn import AudioError, check_rate, decode_audio, decode_blocks, find_sound, is_encoded, keep_stream
    from configuration_rsa_cfn import CUSTOM_PIPELINES


AUDIO_CROPS = ("center", "head")
# Seconds: of a server that says nothing, and of all of a download.
DOWNLOAD_TIMEOUT, DOWNLOAD_SECONDS = 30, 600
# Of a transcript no more than this is tokenized for each token that is kept: a word without end would take minutes.
LETTERS_PER_TOKEN = 100
# Of sound that is made into features: w2v-BERT joins two frames of 400 samples, 160 apart, and normalises by their
# variance. Whisper reflects 200 samples at either end.
MIN_SAMPLES_OF_FEATURES = 560
# What transformers' processors take, beside audio and text.
KEYWORDS = {*AudioKwargs.__annotations__, *TextKwargs.__annotations__, "audio_kwargs", "text_kwargs", "common_kwargs"}
UNSURE = "unsure"  # what a pipeline may answer beside the emotions
ROW_KEYS = ("audio", "text", "sampling_rate", "context")
# As the audio pipelines of transformers take them, beside the rate or the text.
AUDIO_KEYS = ("array", "raw", "bytes", "path")
FUNCTIONS = {"softmax": partial(torch.softmax, dim=-1), "sigmoid": torch.sigmoid, "none": torch.Tensor.float}

# How a fast tokenizer truncates and pads is state of its own: a thread that changes it changes it for all threads.
_tokenizing = threading.Lock()


def crop_audio(waveform: np.ndarray, num_samples: int, crop: str) -> np.ndarray:
    """
    The part of a waveform that is kept where it is longer than `num_samples`.

    Args:
        waveform (`np.ndarray` of shape `(length,)`)
        num_samples (`int`): The most samples that are kept.
        crop (`str`): `"head"`, `"center"`, or `"random"` for a place drawn from torch's random state.

    Returns:
        `np.ndarray` of shape `(min(length, num_samples),)`
    """
    excess = len(waveform) - num_samples
    if excess <= 0 or crop == "head":
        start = 0
    elif crop == "center":
        start = excess // 2
    else:
        # Of all generators, only torch's differs between the workers of any DataLoader and is in every checkpoint.
        start = int(torch.randint(excess + 1, ()))
    return waveform[start : start + num_samples]


class RsaCfnProcessor(ProcessorMixin):
    """
    An audio feature extractor and a tokenizer in one.

    Args:
        feature_extractor ([`SequenceFeatureExtractor`]): Normalises waveforms, as [`Wav2Vec2FeatureExtractor`], or
            makes features of them, as [`WhisperFeatureExtractor`] and [`SeamlessM4TFeatureExtractor`].
        tokenizer ([`PreTrainedTokenizerBase`]): Tokenizes transcripts.
        max_audio_seconds (`float`, defaults to 6.0): Longer clips are cropped, in seconds. The paper's value.
        max_text_tokens (`int`, defaults to 256): Longer transcripts are cut, in tokens. The paper's value.
        audio_crop (`str`, defaults to `"center"`): The part of a longer clip that is kept, `"center"` or, as in the
            paper, `"head"`.
        text_prefix (`str`, defaults to `""`): Put before every transcript, and cut with it: `"query: "` for E5.
        context_turns (`int`, defaults to 0): The most turns of a dialogue that are read before a transcript.
    """

    # Rather than the tokenizer's own, which are those of another task.
    text_kwargs = {"padding": True, "truncation": True, "return_token_type_ids": False}
    audio_kwargs = {"padding": True}

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        max_audio_seconds: float = 6.0,
        max_text_tokens: int = 256,
        audio_crop: str = "center",
        text_prefix: str = "",
        context_turns: int = 0,
    ):
        super().__init__(feature_extractor, tokenizer)
        _check_audio_crop(audio_crop, AUDIO_CROPS)
        self.max_audio_seconds = max_audio_seconds
        self._check_length(self._num_samples, f"max_audio_seconds={max_audio_seconds}")
        self.max_text_tokens = max_text_tokens
        self.audio_crop = audio_crop
        self.text_prefix = text_prefix
        self.context_turns = context_turns

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        # Without a configuration, AutoTokenizer reads the model's, and asks whether to run the code that it names.
        kwargs.setdefault("config", PretrainedConfig())
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args, processor_dict, **kwargs):
        # A processor saved before the field existed cropped the head.
        return super().from_args_and_dict(args, {"audio_crop": "head", **processor_dict}, **kwargs)

    @property
    def model_input_names(self):
        return [self.feature_extractor.model_input_names[0], "audio_attention_mask", "input_ids", "attention_mask"]

    @property
    def _num_samples(self) -> int:
        return round(self.max_audio_seconds * self.feature_extractor.sampling_rate)

    def __call__(
        self,
        audio=None,
        text: str | list[str | None] | None = None,
        *,
        context: list[str] | list[list[str] | None] | None = None,
        audio_crop: str | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """
        Args:
            audio: One clip or a list of clips, in any form [`decode_audio`] takes; `None` for a row without audio.
            text (`str` or `list[str | None]`): One transcript or a list of them; `None` for a row without text.
            context (`list[str]` or `list[list[str]]`, *optional*): The turns before one transcript, or before each,
                the earliest first. The last `context_turns` of them, as far as they fit as a whole, stand before the
                transcript as the first text of a pair.
            audio_crop (`str`, *optional*): The part of a clip over `max_audio_seconds` that is kept, where it isn't
                the processor's own: `"center"`, `"head"`, or `"random"`, by torch's random state.
            sampling_rate (`int`, *optional*): Of clips given as bare samples, in Hz.
            padding (`bool` or `str`, defaults to `True`): `True` pads each modality to its longest row, `"max_length"`
                to `max_audio_seconds` and `max_text_tokens`.
            truncation (`bool` or `str`, defaults to `True`): `False` keeps all of long clips and transcripts.
            max_length (`int`, *optional*): Tokens, in place of `max_text_tokens`; in `audio_kwargs`, samples.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            kwargs: As other processors of transformers take them: `pad_to_multiple_of`, what tokenizers know, and for
                one modality `audio_kwargs` and `text_kwargs`.

        Returns:
            [`BatchFeature`] with `input_values` and `audio_attention_mask` of shape `(batch_size, num_samples)`, or
            `input_features` of shape `(batch_size, num_frames, num_features)` and its mask of `(batch_size,
            num_frames)`, and `input_ids` and `attention_mask` of shape `(batch_size, num_tokens)`. The mask of a
            missing row is all 0, and so is that of a clip of no samples; a modality that every row lacks has no key.

        Raises:
            ValueError: A row has neither audio nor text, the modalities differ in their number of rows, `audio_crop` is
                unknown, or a clip is longer than the feature extractor takes.
            TypeError: A keyword is unknown.
        """
        if audio_crop is None:
            audio_crop = self.audio_crop
        _check_audio_crop(audio_crop, (*AUDIO_CROPS, "random"))
        unknown = {*kwargs, *kwargs.get("audio_kwargs", {}), *kwargs.get("text_kwargs", {})} - KEYWORDS
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))} is unknown; give some of {', '.join(sorted(KEYWORDS))}.")
        options = self._merge_kwargs(**kwargs)
        # A `max_length` for all is one of tokens: as samples, it would leave nothing of a clip.
        options["audio_kwargs"]["max_length"] = kwargs.get("audio_kwargs", {}).get("max_length")
        is_one_clip = isinstance(audio, (list, tuple)) and len(audio) > 0 and isinstance(audio[0], numbers.Real)
        clips = list(audio) if isinstance(audio, (list, tuple)) and not is_one_clip else [audio]
        transcripts = [text] if text is None or isinstance(text, str) else list(text)
        if audio is None:
            clips = [None] * len(transcripts)
        elif text is None:
            transcripts = [None] * len(clips)
        if len(clips) != len(transcripts):
            raise ValueError(f"audio has {len(clips)} rows and text {len(transcripts)}; give as many of each.")
        contexts = [context] if isinstance(text, str) else context or [None] * len(transcripts)
        if len(contexts) != len(transcripts):
            raise ValueError(f"context has {len(contexts)} rows and text {len(transcripts)}; give as many of each.")
        if any(contexts) and not self.context_turns:
            raise ValueError("context is given, and the model reads none (context_turns=0); leave it out.")
        target, rate = self.feature_extractor.sampling_rate, options["audio_kwargs"].get("sampling_rate")
        waveforms = [None if clip is None else decode_audio(clip, rate, target) for clip in clips]
        # A clip of no samples needs a transcript only beside other transcripts: a model of audio alone has none.
        no_audio = [waveform is None or (text is not None and not len(waveform)) for waveform in waveforms]
        empty = [row for row, transcript in enumerate(transcripts) if transcript is None and no_audio[row]]
        if empty:
            raise ValueError(f"rows {empty} have neither audio nor text; give at least one of them.")
        features = {}
        if any(waveform is not None for waveform in waveforms):
            features |= self._extract_audio(waveforms, audio_crop, options["audio_kwargs"])
        if any(transcript is not None for transcript in transcripts):
            features |= self._tokenize(transcripts, contexts, **options["text_kwargs"])
        return BatchFeature(features, tensor_type=None)

    def pad(
        self,
        encoded_inputs,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """
        One batch of rows that were processed before, as [`DataCollatorWithPadding`] asks for it.

        Args:
            encoded_inputs (`list[dict]` or `dict[str, list]`): Rows of what the processor gives, or a batch of them;
                a modality that is `None` is missing. What else they have, such as `labels`, is kept as it is.
            padding, max_length, pad_to_multiple_of, return_tensors: As in [`~RsaCfnProcessor.__call__`].
        """
        if not isinstance(encoded_inputs, Mapping):
            names = {name: None for row in encoded_inputs for name in row}
            encoded_inputs = {name: [row.get(name) for row in encoded_inputs] for name in names}
        names = self.model_input_names
        features = {name: rows for name, rows in encoded_inputs.items() if name not in names}
        features = dict(BatchFeature(features, tensor_type=return_tensors))
        limits = (1, 1)
        if padding == "max_length":
            limits = (self._num_frames(self._num_samples), max_length or self.max_text_tokens)
        values = (np.float32(0), np.int64(self.tokenizer.pad_token_id))
        for pair, limit, value in zip((names[:2], names[2:]), limits, values):
            # What a mask keeps is one row, and of a batch of one too, as a dataset has it that was mapped row by row.
            pairs = zip(*(encoded_inputs.get(name, []) for name in pair))
            rows = [row if row is None else np.asarray(row, value.dtype)[np.asarray(mask) == 1] for row, mask in pairs]
            nothing = next((row[:0] for row in rows if row is not None), None)
            if nothing is not None:
                rows = [nothing if row is None else row for row in rows]
                features |= _pad(pair, rows, limit, value, padding, pad_to_multiple_of, return_tensors)
        return BatchFeature(features, tensor_type=None)

    def windows(self, audio, sampling_rate: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """
        A clip of up to 24 hours as stretches that the model takes whole, each but the last half a stretch after the one
        before it. A file is read as far as the stretches go, so that hours of it need no more memory than minutes.

        Args:
            audio: One clip, in any form [`decode_audio`] takes.
            sampling_rate (`int`, *optional*): Of a clip given as bare samples, in Hz.

        Returns:
            The samples at which they begin, and waveforms of shape `(max_audio_seconds * 16000,)` for audio at 16 kHz,
            the last of which ends with the clip; for a clip that is no longer than that, the one waveform that it is.

        Raises:
            ValueError: As [`decode_audio`].
        """
        target, length = self.feature_extractor.sampling_rate, self._num_samples
        step = max(length // 2, 1)
        last, start, ahead = None, -step, np.zeros(0, np.float32)
        for block in decode_blocks(audio, sampling_rate, target):
            ahead = np.concatenate([ahead, block]) if len(ahead) else block
            while len(ahead) > length:
                last, start, ahead = ahead[:length], start + step, ahead[step:]
                yield start, last
        if last is None:
            yield 0, ahead
        else:
            more = ahead[length - step :]
            yield start + len(more), np.concatenate([last, more])[-length:]

    def _extract_audio(self, waveforms, audio_crop, options) -> dict:
        num_samples = options["max_length"] or self._num_samples
        waveforms = [np.zeros(0, np.float32) if clip is None else clip for clip in waveforms]
        if options.get("truncation") not in (False, "do_not_truncate"):
            waveforms = [crop_audio(clip, num_samples, audio_crop) for clip in waveforms]
        rows = [self._extract(clip) for clip in waveforms]
        limit = self._num_frames(num_samples) if options["padding"] == "max_length" else 1
        return _pad(self.model_input_names[:2], rows, limit, np.float32(0), **options)

    def _num_frames(self, num_samples: int) -> int:
        return len(self._extract(np.zeros(num_samples, np.float32)))

    def _extract(self, waveform: np.ndarray) -> np.ndarray:
        """Of one clip by itself, so that it ends where it ends: samples `(T,)`, or features `(T, num_features)`."""
        extractor, name = self.feature_extractor, self.model_input_names[0]
        self._check_length(len(waveform), f"audio of {len(waveform) / extractor.sampling_rate:g} seconds")
        shortest = MIN_SAMPLES_OF_FEATURES if name == "input_features" else 1
        padded = waveform if len(waveform) >= shortest else np.pad(waveform, (0, shortest - len(waveform)))
        options = {"sampling_rate": extractor.sampling_rate, "padding": False, "return_tensors": "np"}
        with torch.autocast("cpu", enabled=False):  # a spectrogram of half precision is none
            features = extractor(padded, **options)[name][0]
        features = features.T if isinstance(extractor, WhisperFeatureExtractor) else features
        return features if len(waveform) else features[:0]

    def _check_length(self, num_samples: float, what: str) -> None:
        # Whisper has positions for so much, and its feature extractor would drop the rest without a word.
        extractor = self.feature_extractor
        limit = getattr(extractor, "n_samples", num_samples)
        if num_samples > limit:
            seconds = limit / extractor.sampling_rate
            raise ValueError(f"{what} is more than {type(extractor).__name__} takes; give at most {seconds:g}.")

    def _tokenize(self, transcripts, contexts, truncation=True, max_length=None, **options) -> dict:
        max_length = max_length or self.max_text_tokens
        num_letters = LETTERS_PER_TOKEN * max_length
        texts = ["" if text is None else text for text in transcripts]
        if truncation in (False, "do_not_truncate"):
            max_length = max_length if options.get("padding") == "max_length" else None
        else:
            texts = [text if len(text) <= num_letters else text.strip()[:num_letters] for text in texts]
        texts = [self.text_prefix + text for text in texts]
        with _tokenizing:
            texts = [self._after(turns, text, max_length) if turns else text for turns, text in zip(contexts, texts)]
            encoded = self.tokenizer(texts, truncation=truncation, max_length=max_length, **options)
        for row, transcript in enumerate(transcripts):
            if transcript is None:  # the special tokens of the empty text that stood in for it
                for position in range(len(encoded["input_ids"][row])):
                    encoded["input_ids"][row][position] = self.tokenizer.pad_token_id
                    encoded["attention_mask"][row][position] = 0
        return dict(encoded)

    def _after(self, turns: list[str], text: str, max_length: int | None) -> str:
        """A text after the last turns that leave room for it, and for the tokens between and around a pair."""
        turns = [turn.strip()[: LETTERS_PER_TOKEN * self.max_text_tokens] for turn in turns[-self.context_turns :]]
        lengths = [len(ids) for ids in self.tokenizer([text, *turns], add_special_tokens=False)["input_ids"]]
        around = self.tokenizer.num_special_tokens_to_add()
        between = max(self.tokenizer.num_special_tokens_to_add(pair=True) - around, 1)
        separator = self.tokenizer.sep_token or self.tokenizer.eos_token or " "
        room, kept = (max_length or np.inf) - lengths[0] - around - between, []
        for turn, length in zip(turns[::-1], lengths[:0:-1]):
            room -= length + 1  # the blank between two turns
            if room < 0:
                break
            kept.insert(0, turn)
        return f"{' '.join(kept)}{separator * between}{text}" if kept else text


def _pad(names, rows, limit, value, padding=True, pad_to_multiple_of=None, return_tensors=None, **_) -> dict:
    """Rows of one modality, at least `limit` long, and their masks; a missing row has no positions."""
    lengths = [max(len(row), 1) for row in rows]
    if padding not in (False, "do_not_pad"):
        multiple = pad_to_multiple_of or 1
        lengths = [-(-max(*lengths, limit) // multiple) * multiple] * len(rows)
    filling = [np.full((length - len(row), *row.shape[1:]), value) for row, length in zip(rows, lengths)]
    padded = [np.concatenate(parts) for parts in zip(rows, filling)]
    masks = [np.repeat(np.int32([1, 0]), [len(row), len(more)]) for row, more in zip(rows, filling)]
    return dict(BatchFeature(dict(zip(names, (padded, masks))), tensor_type=return_tensors))


def _check_audio_crop(audio_crop: str, legal: tuple[str, ...]) -> None:
    if audio_crop not in legal:
        raise ValueError(f"audio_crop={audio_crop!r} is unknown; give one of {', '.join(legal)}.")


class RsaCfnPipeline(ChunkPipeline):
    """
    Emotion of utterances. Found by `pipeline(model=..., trust_remote_code=True)`; several threads may call one.

    A recording longer than the `max_audio_seconds` of the processor is read in windows that overlap by half, each with
    the whole transcript, or of one with times the part that is said in it. Its probabilities are the mean over the
    windows that aren't silent.

    Args:
        model ([`RsaCfnForSequenceClassification`]): Put into evaluation mode.
        processor ([`RsaCfnProcessor`]): The model's processor.
        top_k (`int`, *optional*): Give only the most probable emotions, so many.
        function_to_apply (`str`, defaults to `"softmax"`): Makes scores of logits: `"softmax"`, `"sigmoid"` or
            `"none"`.
        batch_size (`int`, defaults to 1): Windows that the model is given at once, of one recording or several.
        return_attributes (`bool`, defaults to `False`): Give `{"scores": [...], "attributes": {name: number}}` in place
            of the emotions, with what the model tells beside them, if anything.
        return_windows (`bool`, defaults to `False`): Give `{"scores": [...], "windows": [...]}` in place of the
            emotions, each window as `{"start": seconds, "end": seconds, "scores": [...]}` with what the model answers
            to it alone, and `"text"` of a transcript with times. Silent ones are left out; a text by itself has none.
        unsure_below (`float`, *optional*): Where no emotion is as probable, `"unsure"` stands before them all.
        on_error (`str`, defaults to `"raise"`): `"return"` gives `{"error": reason}` in place of the emotions of an
            input that can't be used, whatever it raises, and goes on with the next one.
        int8 (`bool`, defaults to `False`): Multiply in 8 bits within the encoders, on a CPU.
        kwargs: As in [`Pipeline`].
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, model, processor, int8=False, **kwargs):
        super().__init__(model=model, processor=processor, **kwargs)
        self.model.eval()
        if int8:
            self.model.to_int8()
        # `pipeline` replaced the names in there by classes, which can't be saved.
        self.model.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)

    def _sanitize_parameters(
        self,
        top_k="",
        function_to_apply=None,
        on_error=None,
        return_attributes=None,
        unsure_below=None,
        return_windows=None,
    ):
        if top_k not in ("", None) and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k={top_k!r} is out of range; give an integer of at least 1, or None for all.")
        if function_to_apply not in (None, *FUNCTIONS):
            raise ValueError(f"function_to_apply={function_to_apply!r} is unknown; give one of {', '.join(FUNCTIONS)}.")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error={on_error!r} is unknown; give 'raise' or 'return'.")
        preprocess_params = {} if on_error is None else {"on_error": on_error}
        if unsure_below is not None and not 0 <= unsure_below <= 1:
            raise ValueError(f"unsure_below={unsure_below!r} is no probability; give 0 to 1, or leave it out.")
        forward_params = {} if function_to_apply is None else {"function_to_apply": function_to_apply}
        given = {"return_attributes": return_attributes, "unsure_below": unsure_below, "return_windows": return_windows}
        given = {name: value for name, value in given.items() if value is not None}
        given |= {} if top_k == "" else {"top_k": top_k}
        return preprocess_params, preprocess_params | forward_params, preprocess_params | given

    def __call__(self, inputs, **kwargs):
        """
        Args:
            inputs: `{"audio": ..., "text": ..., "context": [...]}` with at least one of the first two, the audio alone,
                or a list, a generator or a dataset of such rows. `audio` is a path, a URL, encoded bytes, a row of a
                `datasets` Audio column, a decoder of torchcodec, or samples of shape `(num_samples,)` with
                `"sampling_rate"` in Hz beside them, which where they are alone is the model's; `{"raw": samples,
                "sampling_rate": ...}` or `"array"`, `"bytes"`, `"path"` may stand in its place. `text` is a `str`, or
                `{"text", "timestamp"}` of each word, as recognisers of transformers give them; `context` are the texts
                of the turns before it, which a model trained with them reads.
            kwargs: `top_k`, `function_to_apply`, `batch_size`, `return_attributes`, `return_windows`, `unsure_below`
                and `on_error`, where they differ from the pipeline's.

        Returns:
            `list[dict]`: `{"label": str, "score": float}` of each emotion, the most probable first; for a list of rows,
            a list of these, and for a generator or a dataset, an iterator that reads it as it goes.

        Raises:
            ValueError: A row has neither audio nor text, or none that the fusion reads; its text has no words and is
                alone; its audio can't be read or downloaded, is empty, silent or longer than 24 hours; what the model
                answers isn't finite; or it has a key that no row has.
        """
        if isinstance(inputs, (list, tuple)) and not (inputs and isinstance(inputs[0], numbers.Real)):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        if isinstance(inputs, (list, tuple)):
            inputs = np.array(inputs)
        is_row = isinstance(inputs, (Mapping, np.ndarray, torch.Tensor)) or is_encoded(inputs)
        if isinstance(inputs, (Iterable, KeyDataset)) and not is_row:
            inputs = _undecoded(inputs)
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs, on_error: str = "raise") -> Iterator[dict]:
        """The windows of one row; `is_last` marks where the next one's begin."""
        try:
            yield from self._windows(inputs)
        except Exception as error:
            if on_error == "raise":
                raise
            row = {"waveform": None, "place": None, "text": None, "context": None}
            yield row | {"error": _reason(error), "is_last": True}

    def _windows(self, inputs) -> Iterator[dict]:
        audio, sampling_rate, text, context = self._read_row(inputs)
        said = _spoken(text)
        row = {"waveform": None, "place": None, "context": context, "error": None, "is_last": True}
        if audio is None:
            yield row | {"text": said(0, np.inf)}
            return
        ahead, num_samples, rate = None, 0, self.processor.feature_extractor.sampling_rate
        with opened(audio) as source:
            for start, window in self.processor.windows(source, sampling_rate):
                num_samples += len(window)
                if not len(window) or window.min() == window.max():
                    continue
                if ahead is not None:
                    yield ahead | {"is_last": False}
                place = {"start": start / rate, "end": (start + len(window)) / rate}
                ahead = row | {"waveform": window, "place": place, "text": said(**place)}
                if text is not None and not isinstance(text, str):
                    place["text"] = ahead["text"]
        if ahead is None:
            what = "is silent" if num_samples else "has no samples"
            raise ValueError(f"audio {what}; give a recording with speech, or the text alone.")
        yield ahead

    def _read_row(self, inputs):
        """Audio, sampling rate, text and context of a row, each `None` where the model doesn't read it."""
        is_alone = not isinstance(inputs, Mapping)
        inputs = {"audio": inputs} if is_alone else inputs
        _check_keys(inputs, ROW_KEYS + AUDIO_KEYS)
        audio, text, sampling_rate, context = (inputs.get(name) for name in ROW_KEYS)
        if audio is None:
            audio = {name: inputs[name] for name in AUDIO_KEYS if name in inputs}
        if isinstance(audio, Mapping):
            _check_keys(audio, (*AUDIO_KEYS, "sampling_rate"))
            audio = audio if any(audio.get(name) is not None for name in AUDIO_KEYS) else None
        said = _spoken(text)
        is_list = context is None or isinstance(context, (list, tuple))
        if not (is_list and all(isinstance(turn, str) for turn in context or ())):
            raise ValueError("context isn't a list of texts; give the turns before this one, the earliest first.")
        if context and not self.processor.context_turns:
            raise ValueError("context is given, and the model was trained without; leave it out.")
        if audio is None and text is None:
            raise ValueError("neither audio nor text is given; give at least one of them.")
        audio = None if self.model.audio_model is None else audio
        text = None if self.model.text_model is None else text
        if audio is None and text is None:
            modality = "text" if self.model.audio_model is None else "audio"
            raise ValueError(
                f"the model (fusion={self.model.config.fusion!r}) reads nothing but {modality}; give {modality}."
            )
        if audio is None and not (said(0, np.inf) or "").strip():
            raise ValueError("text is empty, and it is all the model has to go by; give words, or audio too.")
        if audio is not None:
            audio, sampling_rate = find_sound(audio, sampling_rate)
            if not is_encoded(audio):
                # Bare samples are at the model's rate, as other audio pipelines take them.
                is_bare = is_alone and sampling_rate is None
                sampling_rate = self.processor.feature_extractor.sampling_rate if is_bare else check_rate(sampling_rate)
        return audio, sampling_rate, text, context

    def _forward(self, windows, function_to_apply="softmax", on_error="raise"):
        is_batch = isinstance(windows["is_last"], list)
        waveforms, texts, contexts, errors = (
            windows[name] if is_batch else [windows[name]] for name in ("waveform", "text", "context", "error")
        )
        config = self.model.config
        errors, given = list(errors), {"audio": waveforms, "text": texts, "context": contexts}
        answers = torch.zeros(len(errors), config.num_labels + len(config.attributes or ()))  # (B, C + K)

        def answer(rows: list[int]) -> None:
            batch = {name: [values[row] for row in rows] for name, values in given.items()}
            outputs = self.model(**self.processor(**batch, return_tensors="pt").to(self.device))
            told = [outputs.attributes] if config.attributes else []
            scores = FUNCTIONS[function_to_apply](outputs.logits.float())
            answers[rows] = torch.cat([scores, *told], dim=1).cpu()

        usable = [row for row, error in enumerate(errors) if error is None]
        try:
            if usable:
                answer(usable)
        except Exception:
            if on_error == "raise":
                raise
            for row in usable:  # one of them spoils the batch for all
                try:
                    answer([row])
                except Exception as error:
                    errors[row] = _reason(error)
        kept = {name: windows[name] for name in ("place", "is_last")}
        return {"answers": answers, "error": errors if is_batch else errors[0], **kept}

    def postprocess(
        self, windows, top_k=None, on_error="raise", return_attributes=False, unsure_below=0, return_windows=False
    ) -> list[dict] | dict:
        error = next((window["error"] for window in windows if window["error"] is not None), None)
        told = torch.cat([window["answers"] for window in windows])  # (windows, C + K)
        if error is None and not told.isfinite().all():
            error = "the model's answer isn't finite; give a model whose weights are, in a precision that holds them."
            if on_error == "raise":
                raise ValueError(error)
        if error is not None:
            return {"error": error}
        config = self.model.config

        def answer(told: torch.Tensor) -> dict:
            scores = told[: config.num_labels]
            best = scores.argsort(descending=True, stable=True)[:top_k].tolist()
            emotions = [{"label": config.id2label[index], "score": scores[index].item()} for index in best]
            if emotions[0]["score"] < unsure_below:
                emotions.insert(0, {"label": UNSURE, "score": 1 - emotions[0]["score"]})
            attributes = dict(zip(config.attributes or (), told[config.num_labels :].tolist()))
            return {"scores": emotions, "attributes": attributes} if return_attributes else {"scores": emotions}

        whole = answer(told.mean(dim=0))
        if return_windows:
            places = [window["place"] for window in windows if window["place"] is not None]
            whole["windows"] = [{**place, **answer(row)} for place, row in zip(places, told)]
        return whole if return_attributes or return_windows else whole["scores"]

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model, the processor and their code, as one checkpoint."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _check_keys(given: Mapping, legal: tuple[str, ...]) -> None:
    unknown = [repr(name) for name in given if name not in legal]
    if unknown:
        raise ValueError(f"input has an unknown key {', '.join(unknown)}; give only {', '.join(map(repr, legal))}.")


def _spoken(text: str | list[Mapping] | None) -> Callable[[float, float], str | None]:
    """What of a text is said between two seconds: of one with times, the chunks whose middle lies there, or that last
    over the middle of it. Raises `ValueError`."""
    if text is None or isinstance(text, str):
        return lambda start, end: text
    try:
        chunks = [chunk["text"].strip() for chunk in text]
        begins, ends = np.array([chunk["timestamp"] for chunk in text], float).reshape(-1, 2).T
        if np.isnan(begins).any():
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"text is a {type(text).__name__}; give a str, words with times, or leave it out.") from None
    middles = (begins + np.where(np.isnan(ends), begins, ends)) / 2

    def said(start: float, end: float) -> str | None:
        middle = (start + end) / 2
        is_there = (start <= middles) & (middles <= end) | (begins <= middle) & (middle < ends)
        return " ".join(chunks[place] for place in is_there.nonzero()[0]) or None

    return said


def _reason(error: Exception) -> str:
    told = " ".join(str(error).split())
    return told if isinstance(error, ValueError) and told else f"{type(error).__name__}: {told}"


def _undecoded(rows) -> Iterator:
    """The rows of a dataset without columns that no row has, or its one column where it is a `KeyDataset` or a
    column of `datasets`. Audio is left to the processor: `datasets` would ask for torchcodec."""
    key, names = getattr(rows, "key", getattr(rows, "column_name", None)), ROW_KEYS + AUDIO_KEYS
    if key is not None:
        rows, names = rows.dataset if isinstance(rows, KeyDataset) else rows.source, (key,)
    features = getattr(rows, "features", None) if hasattr(rows, "select_columns") else None
    if features:
        rows = rows.select_columns([name for name in features if name in names])
    for name in names:
        if getattr((features or {}).get(name), "decode", False):
            rows = rows.cast_column(name, replace(features[name], decode=False))
    rows = rows if isinstance(rows, Iterable) else map(rows.__getitem__, range(len(rows)))
    yield from rows if key is None else (row[key] for row in rows)


@contextmanager
def opened(audio):
    """The audio itself, or the file that a URL was downloaded to, so that hours of it need no memory. Raises
    `ValueError`, which tells nothing of a URL that may be secret."""
    scheme = re.match("([a-z][a-z0-9+.-]*)://", audio.lower()) if isinstance(audio, str) else None
    if scheme is None:
        yield audio
        return
    try:
        if scheme[1] not in ("http", "https"):
            raise OSError(f"{scheme[1]} is neither http nor https")
        file = _Download().fetch(audio)
    except AudioError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error) if isinstance(error, OSError) else type(error).__name__
        reason = f"HTTP status {error.code}" if isinstance(error, urllib.error.HTTPError) else reason
        message = f"audio {without_secrets(audio)} can't be downloaded ({reason}); give a URL that answers."
        raise AudioError("audio not downloaded", message) from None
    with file:
        yield file


def without_secrets(url: str) -> str:
    """A URL without user, password, query and fragment; any other name of a recording as it is."""
    shown = re.sub("(?<=://).*@", "...@", url, flags=re.S)
    return re.sub("[?#].*", "", shown, flags=re.S) if "://" in url else url


class _Download(urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.FTPHandler):
    """What a URL and its redirects lead to. Where the URL is public, so is all that follows: no server has addresses
    read that only this machine or its network reaches."""

    is_public = is_over = error = None
    ftp_open = urllib.request.UnknownHandler.unknown_open

    def fetch(self, url: str):
        self.sockets = []
        # A server that says a byte now and then, in its headers too, holds a thread, but nobody who waits for it.
        thread = threading.Thread(target=self._read, args=(url,), daemon=True)
        thread.start()
        thread.join(DOWNLOAD_SECONDS)
        if thread.is_alive():
            self.is_over = True
            for connected in self.sockets:
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
            raise TimeoutError(f"it takes longer than {DOWNLOAD_SECONDS} seconds")
        if self.error is not None:
            raise self.error
        return self.file

    def _read(self, url: str) -> None:
        # As it is sent: without Hangul and blanks, or the name of a user.
        url = re.sub("(?<=://)[^/?]*@", "", url.partition("#")[0])
        url = quote(url, safe=string.punctuation, errors="backslashreplace")
        try:
            with urllib.request.build_opener(self).open(url, timeout=DOWNLOAD_TIMEOUT) as response:
                if response.status != http.client.OK:
                    raise OSError(f"HTTP status {response.status}")
                self.file = keep_stream(response)
                if response.length:
                    raise OSError(f"the last {response.length} bytes didn't come")
        except Exception as error:
            self.error = error
        for connected in self.sockets:
            connected.close()

    def do_open(self, http_class, request, **options):
        def make(*args, **kwargs):
            connection = http_class(*args, **kwargs)
            connection._create_connection = self._connect
            return connection

        return super().do_open(make, request, **options)

    def _connect(self, address, *_):
        connected = socket.create_connection(address, DOWNLOAD_TIMEOUT)
        self.sockets.append(connected.dup())
        is_public = ipaddress.ip_address(connected.getpeername()[0].partition("%")[0]).is_global
        if self.is_over or (self.is_public and not is_public):
            raise OSError("it is redirected to an address that isn't public")
        self.is_public = is_public
        return connected


RsaCfnProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["RsaCfnPipeline", "RsaCfnProcessor", "crop_audio", "decode_audio", "decode_blocks"]
