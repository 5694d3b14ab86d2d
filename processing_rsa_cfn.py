"""RSA-CFN processor: audio and transcripts in, padded tensors with a mask of each modality out."""

import io
import os
import threading
from collections.abc import Iterator

import numpy as np
import soundfile
import torch
from transformers import BatchFeature, ProcessorMixin


AUDIO_CROPS = ("center", "head")
SECONDS_PER_BLOCK = 60

# How a fast tokenizer truncates and pads is state of its own: a thread that changes it changes it for all threads.
_tokenizing = threading.Lock()


def decode_audio(audio, sampling_rate: int | None, target_sampling_rate: int) -> np.ndarray:
    """
    Decode one clip to a mono waveform.

    Args:
        audio: A file path; encoded bytes; a binary file object; a row of a `datasets` Audio column (`{"bytes",
            "path"}`, `{"array", "sampling_rate"}` or a torchcodec decoder); or samples, an array, tensor or list of
            shape `(num_samples,)`.
        sampling_rate (`int`, *optional*): Of bare samples, in Hz; `target_sampling_rate` when left out.
        target_sampling_rate (`int`): Hz of the result; a clip at another rate is resampled.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32.

    Raises:
        ValueError: The clip can't be read, has several channels of bare samples, or holds NaN or infinity.
    """
    blocks = list(decode_blocks(audio, sampling_rate, target_sampling_rate))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])


def decode_blocks(audio, sampling_rate: int | None, target_sampling_rate: int) -> Iterator[np.ndarray]:
    """[`decode_audio`] in blocks, so that of a file that lasts hours only a minute is in memory at a time."""
    if isinstance(audio, dict) and audio.get("array") is not None:
        audio, sampling_rate = audio["array"], audio["sampling_rate"]
    elif isinstance(audio, dict):
        audio = audio["path"] if audio.get("bytes") is None else audio["bytes"]
    elif hasattr(audio, "get_all_samples"):
        decoded = audio.get_all_samples()
        audio, sampling_rate = decoded.data.mean(dim=0), decoded.sample_rate
    if isinstance(audio, (str, os.PathLike, bytes)) or hasattr(audio, "read"):
        blocks = _read_blocks(io.BytesIO(audio) if isinstance(audio, bytes) else audio, target_sampling_rate)
    else:
        blocks = [_resample(np.asarray(audio, dtype=np.float32), sampling_rate, target_sampling_rate)]
    for block in blocks:
        if not np.isfinite(block).all():
            raise ValueError("audio holds NaN or infinite samples; give finite ones.")
        yield block


def _read_blocks(source, target_sampling_rate: int) -> Iterator[np.ndarray]:
    try:
        if isinstance(source, (str, os.PathLike)) and not os.path.exists(source):
            raise FileNotFoundError(f"{os.fspath(source)} isn't there")
        with soundfile.SoundFile(source) as sound:
            resampler = None
            if sound.samplerate != target_sampling_rate:
                import soxr  # only clips at another rate need it

                resampler = soxr.ResampleStream(sound.samplerate, target_sampling_rate, 1, dtype="float32")
            is_last = False
            while not is_last:
                samples = sound.read(SECONDS_PER_BLOCK * sound.samplerate, dtype="float32", always_2d=True)
                is_last = not len(samples)
                block = samples.mean(axis=1)
                if resampler is not None:
                    block = resampler.resample_chunk(block, last=is_last)
                if len(block):
                    yield block
    except (soundfile.LibsndfileError, OSError) as error:
        reason = error.error_string.rstrip(".") if isinstance(error, soundfile.LibsndfileError) else error
        message = f"audio can't be read ({reason}); give a file that soundfile decodes, such as wav or flac."
        raise ValueError(message) from error


def _resample(waveform: np.ndarray, sampling_rate: int | None, target_sampling_rate: int) -> np.ndarray:
    if waveform.ndim != 1:
        raise ValueError(f"audio has shape {waveform.shape}; give one channel, of shape (num_samples,).")
    if sampling_rate in (None, target_sampling_rate):
        return waveform
    import soxr  # only clips at another rate need it

    return soxr.resample(waveform, sampling_rate, target_sampling_rate)


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
        feature_extractor ([`Wav2Vec2FeatureExtractor`]): Normalises and pads waveforms.
        tokenizer ([`PreTrainedTokenizerBase`]): Tokenizes and pads transcripts.
        max_audio_seconds (`float`, defaults to 6.0): Longer clips are cropped, in seconds. The paper's value.
        max_text_tokens (`int`, defaults to 256): Longer transcripts are cut, in tokens. The paper's value.
        audio_crop (`str`, defaults to `"center"`): The part of a longer clip that is kept, `"center"` or, as in the
            paper, `"head"`.
    """

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        max_audio_seconds: float = 6.0,
        max_text_tokens: int = 256,
        audio_crop: str = "center",
    ):
        super().__init__(feature_extractor, tokenizer)
        _check_audio_crop(audio_crop, AUDIO_CROPS)
        self.max_audio_seconds = max_audio_seconds
        self.max_text_tokens = max_text_tokens
        self.audio_crop = audio_crop

    @classmethod
    def from_args_and_dict(cls, args, processor_dict, **kwargs):
        # A processor saved before the field existed cropped the head.
        return super().from_args_and_dict(args, {"audio_crop": "head", **processor_dict}, **kwargs)

    @property
    def model_input_names(self):
        return ["input_values", "audio_attention_mask", "input_ids", "attention_mask"]

    def __call__(
        self,
        audio=None,
        text: str | list[str | None] | None = None,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        audio_crop: str | None = None,
    ) -> BatchFeature:
        """
        Args:
            audio: One clip or a list of clips, in any form [`decode_audio`] takes; `None` for a row without audio.
            text (`str` or `list[str | None]`): One transcript or a list of them; `None` for a row without text.
            sampling_rate (`int`, *optional*): Of clips given as bare samples, in Hz.
            padding (`bool` or `str`, defaults to `True`): `True` pads each modality to its longest row, `"max_length"`
                to `max_audio_seconds` and `max_text_tokens`.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            audio_crop (`str`, *optional*): The part of a clip over `max_audio_seconds` that is kept, where it isn't
                the processor's own: `"center"`, `"head"`, or `"random"`, by torch's random state.

        Returns:
            [`BatchFeature`] with `input_values` and `audio_attention_mask` of shape `(batch_size, num_samples)`, and
            `input_ids` and `attention_mask` of shape `(batch_size, num_tokens)`. The mask of a missing row is all 0,
            and so is that of a clip of no samples; a modality that every row lacks has no key.

        Raises:
            ValueError: A row has neither audio nor text, the modalities differ in their number of rows, or
                `audio_crop` is unknown.
        """
        if audio_crop is None:
            audio_crop = self.audio_crop
        _check_audio_crop(audio_crop, (*AUDIO_CROPS, "random"))
        is_one_clip = isinstance(audio, (list, tuple)) and len(audio) > 0 and isinstance(audio[0], (int, float))
        clips = list(audio) if isinstance(audio, (list, tuple)) and not is_one_clip else [audio]
        transcripts = [text] if text is None or isinstance(text, str) else list(text)
        if audio is None:
            clips = [None] * len(transcripts)
        elif text is None:
            transcripts = [None] * len(clips)
        if len(clips) != len(transcripts):
            raise ValueError(f"audio has {len(clips)} rows and text {len(transcripts)}; give as many of each.")
        target = self.feature_extractor.sampling_rate
        waveforms = [None if clip is None else decode_audio(clip, sampling_rate, target) for clip in clips]
        # A clip of no samples needs a transcript only beside other transcripts: a model of audio alone has none.
        no_audio = [waveform is None or (text is not None and not len(waveform)) for waveform in waveforms]
        empty = [row for row, transcript in enumerate(transcripts) if transcript is None and no_audio[row]]
        if empty:
            raise ValueError(f"rows {empty} have neither audio nor text; give at least one of them.")
        features = {}
        if any(waveform is not None for waveform in waveforms):
            features |= self._extract_audio(waveforms, padding, return_tensors, audio_crop)
        if any(transcript is not None for transcript in transcripts):
            features |= self._tokenize(transcripts, padding, return_tensors)
        return BatchFeature(features, tensor_type=None)

    def windows(self, audio, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
        """
        A clip of any length as stretches that the model takes whole, each but the last half a stretch after the one
        before it. A file is read as far as the stretches go, so that hours of it need no more memory than minutes.

        Args:
            audio: One clip, in any form [`decode_audio`] takes.
            sampling_rate (`int`, *optional*): Of a clip given as bare samples, in Hz.

        Returns:
            Waveforms of shape `(max_audio_seconds * 16000,)` for audio at 16 kHz, the last of which ends with the
            clip; for a clip that is no longer than that, the one waveform that it is.

        Raises:
            ValueError: As [`decode_audio`].
        """
        target = self.feature_extractor.sampling_rate
        length = round(self.max_audio_seconds * target)
        step = max(length // 2, 1)
        last, ahead = None, np.zeros(0, np.float32)
        for block in decode_blocks(audio, sampling_rate, target):
            ahead = np.concatenate([ahead, block]) if len(ahead) else block
            while len(ahead) > length:
                last, ahead = ahead[:length], ahead[step:]
                yield last
        if last is None:
            yield ahead
        else:
            yield np.concatenate([last, ahead[length - step :]])[-length:]

    def _extract_audio(self, waveforms, padding, return_tensors, audio_crop) -> dict:
        target = self.feature_extractor.sampling_rate
        max_length = round(self.max_audio_seconds * target)
        waveforms = [None if clip is None else crop_audio(clip, max_length, audio_crop) for clip in waveforms]
        silence = np.zeros(1, dtype=np.float32)
        extracted = self.feature_extractor(
            # The feature extractor can't normalise a clip of no samples; give it silence, which is masked out below.
            [silence if waveform is None or not len(waveform) else waveform for waveform in waveforms],
            sampling_rate=target,
            padding=padding,
            max_length=max_length,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        audio_attention_mask = extracted["attention_mask"]
        for row, waveform in enumerate(waveforms):
            if waveform is None or not len(waveform):
                audio_attention_mask[row][0] = 0
        return {"input_values": extracted["input_values"], "audio_attention_mask": audio_attention_mask}

    def _tokenize(self, transcripts, padding, return_tensors) -> dict:
        with _tokenizing:
            encoded = self.tokenizer(
                ["" if transcript is None else transcript for transcript in transcripts],
                padding=padding,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors=return_tensors,
            )
        for row, transcript in enumerate(transcripts):
            if transcript is None:  # the special tokens of the empty text that stood in for it
                for position in range(len(encoded["input_ids"][row])):
                    encoded["input_ids"][row][position] = self.tokenizer.pad_token_id
                    encoded["attention_mask"][row][position] = 0
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _check_audio_crop(audio_crop: str, legal: tuple[str, ...]) -> None:
    if audio_crop not in legal:
        raise ValueError(f"audio_crop={audio_crop!r} is unknown; give one of {', '.join(legal)}.")


RsaCfnProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["RsaCfnProcessor", "crop_audio", "decode_audio", "decode_blocks"]
