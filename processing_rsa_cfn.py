"""RSA-CFN processor: audio and transcripts in, padded tensors with a mask of each modality out."""

import io
import os

import numpy as np
import soundfile
from transformers import BatchFeature, ProcessorMixin


def decode_audio(audio, sampling_rate: int | None, target_sampling_rate: int) -> np.ndarray:
    """
    Decode one clip to a mono waveform.

    Args:
        audio: A file path; encoded bytes; a row of a `datasets` Audio column (`{"bytes", "path"}`, `{"array",
            "sampling_rate"}` or a torchcodec decoder); or samples, an array, tensor or list of shape `(num_samples,)`.
        sampling_rate (`int`, *optional*): Of bare samples, in Hz; `target_sampling_rate` when left out.
        target_sampling_rate (`int`): Hz of the result; a clip at another rate is resampled.

    Returns:
        `np.ndarray` of shape `(num_samples,)`, float32.

    Raises:
        ValueError: The clip can't be read, has several channels of bare samples, or holds NaN or infinity.
    """
    if isinstance(audio, dict) and audio.get("array") is not None:
        audio, sampling_rate = audio["array"], audio["sampling_rate"]
    elif isinstance(audio, dict):
        audio = audio["path"] if audio.get("bytes") is None else audio["bytes"]
    elif hasattr(audio, "get_all_samples"):
        decoded = audio.get_all_samples()
        audio, sampling_rate = decoded.data.mean(dim=0), decoded.sample_rate
    if isinstance(audio, (str, os.PathLike, bytes)):
        try:
            source = io.BytesIO(audio) if isinstance(audio, bytes) else audio
            audio, sampling_rate = soundfile.read(source, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            message = f"audio can't be read ({error}); give a file that soundfile decodes, such as wav or flac."
            raise ValueError(message) from error
        audio = audio.mean(axis=1)
    waveform = np.asarray(audio, dtype=np.float32)
    if waveform.ndim != 1:
        raise ValueError(f"audio has shape {waveform.shape}; give one channel, of shape (num_samples,).")
    if not np.isfinite(waveform).all():
        raise ValueError("audio holds NaN or infinite samples; give finite ones.")
    if sampling_rate not in (None, target_sampling_rate):
        import soxr  # only clips at another rate need it

        waveform = soxr.resample(waveform, sampling_rate, target_sampling_rate)
    return waveform


class RsaCfnProcessor(ProcessorMixin):
    """
    An audio feature extractor and a tokenizer in one.

    Args:
        feature_extractor ([`Wav2Vec2FeatureExtractor`]): Normalises and pads waveforms.
        tokenizer ([`PreTrainedTokenizerBase`]): Tokenizes and pads transcripts.
        max_audio_seconds (`float`, defaults to 6.0): Longer clips are cut, in seconds. The paper's value.
        max_text_tokens (`int`, defaults to 256): Longer transcripts are cut, in tokens. The paper's value.
    """

    def __init__(self, feature_extractor, tokenizer, max_audio_seconds: float = 6.0, max_text_tokens: int = 256):
        super().__init__(feature_extractor, tokenizer)
        self.max_audio_seconds = max_audio_seconds
        self.max_text_tokens = max_text_tokens

    @property
    def model_input_names(self):
        return ["input_values", "audio_attention_mask", "input_ids", "attention_mask"]

    def __call__(
        self,
        audio=None,
        text: str | list[str] | None = None,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """
        Args:
            audio: One clip or a list of clips, in any form [`decode_audio`] takes.
            text (`str` or `list[str]`): One transcript or a list of them.
            sampling_rate (`int`, *optional*): Of clips given as bare samples, in Hz.
            padding (`bool` or `str`, defaults to `True`): `True` pads each modality to its longest row, `"max_length"`
                to `max_audio_seconds` and `max_text_tokens`.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.

        Returns:
            [`BatchFeature`] with `input_values` and `audio_attention_mask` of shape `(batch_size, num_samples)`, and
            `input_ids` and `attention_mask` of shape `(batch_size, num_tokens)`.
        """
        features = {}
        if audio is not None:
            features.update(self._extract_audio(audio, sampling_rate, padding, return_tensors))
        if text is not None:
            encoded = self.tokenizer(
                [text] if isinstance(text, str) else list(text),
                padding=padding,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors=return_tensors,
            )
            features.update({name: encoded[name] for name in ("input_ids", "attention_mask")})
        if audio is None and text is None:
            raise ValueError("audio=None and text=None; give at least one of them.")
        sizes = {len(values) for values in features.values()}
        if len(sizes) > 1:
            raise ValueError(f"audio has {len(features['input_values'])} rows and text {len(features['input_ids'])}.")
        return BatchFeature(features, tensor_type=None)

    def _extract_audio(self, audio, sampling_rate, padding, return_tensors) -> dict:
        target = self.feature_extractor.sampling_rate
        is_batch = isinstance(audio, (list, tuple)) and not (audio and isinstance(audio[0], (int, float)))
        clips = [decode_audio(clip, sampling_rate, target) for clip in (audio if is_batch else [audio])]
        extracted = self.feature_extractor(
            # The feature extractor can't normalise a clip of no samples; it is one of silence, masked out below.
            [clip if len(clip) else np.zeros(1, dtype=np.float32) for clip in clips],
            sampling_rate=target,
            padding=padding,
            truncation=True,
            max_length=round(self.max_audio_seconds * target),
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        audio_attention_mask = extracted["attention_mask"]
        for index, clip in enumerate(clips):
            if not len(clip):
                audio_attention_mask[index][0] = 0
        return {"input_values": extracted["input_values"], "audio_attention_mask": audio_attention_mask}


RsaCfnProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["RsaCfnProcessor", "decode_audio"]
