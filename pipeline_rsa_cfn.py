"""RSA-CFN pipeline: speech of any length, its transcript, or both → emotions with their probabilities."""

import copy
import http.client
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline


try:
    from .configuration_rsa_cfn import CUSTOM_PIPELINES
except ImportError:
    if __package__:
        raise
    from configuration_rsa_cfn import CUSTOM_PIPELINES


DOWNLOAD_TIMEOUT = 30
AUDIO_KEYS = ("bytes", "path", "array")


class RsaCfnPipeline(ChunkPipeline):
    """
    Emotion of utterances. Found by `pipeline(model=..., trust_remote_code=True)`; several threads may call one.

    A recording longer than the `max_audio_seconds` of the processor is read in windows that overlap by half, each with
    the whole transcript, and its probabilities are the mean over the windows that aren't silent.

    Args:
        model ([`RsaCfnForSequenceClassification`]): Put into evaluation mode.
        processor ([`RsaCfnProcessor`]): The model's processor.
        top_k (`int`, *optional*): Give only the most probable emotions, so many.
        batch_size (`int`, defaults to 1): Windows that the model is given at once, of one recording or several.
        on_error (`str`, defaults to `"raise"`): `"return"` gives `{"error": reason}` in place of the emotions of an
            input that can't be used, and goes on with the next one.
        kwargs: As in [`Pipeline`].
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, model, processor, **kwargs):
        super().__init__(model=model, processor=processor, **kwargs)
        self.model.eval()
        # `pipeline` replaced the names in there by classes, which can't be saved.
        self.model.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)

    def _sanitize_parameters(self, top_k=None, on_error=None):
        if top_k is not None and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k={top_k!r} is out of range; give an integer of at least 1, or None for all.")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error={on_error!r} is unknown; give 'raise' or 'return'.")
        preprocess_params = {} if on_error is None else {"on_error": on_error}
        return preprocess_params, {}, {} if top_k is None else {"top_k": top_k}

    def __call__(self, inputs, **kwargs):
        """
        Args:
            inputs: `{"audio": ..., "text": ...}` with at least one of the two, or a list, a generator or a dataset of
                such rows. `audio` is a path, a URL, encoded bytes, a row of a `datasets` Audio column, or samples of
                shape `(num_samples,)` with `"sampling_rate"` in Hz beside them; `text` is a `str`.
            kwargs: `top_k`, `batch_size` and `on_error`, where they differ from those of the pipeline.

        Returns:
            `list[dict]`: `{"label": str, "score": float}` of each emotion, the most probable first; for a list of rows,
            a list of these, and for a generator or a dataset, an iterator that reads it as it goes.

        Raises:
            ValueError: A row has neither audio nor text, or none that the fusion reads; its text has no words and is
                alone; its audio can't be read or downloaded, is empty or silent; or it isn't a row.
        """
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **kwargs) if len(inputs) else []
        is_row = isinstance(inputs, (Mapping, str, bytes, np.ndarray, torch.Tensor))
        if isinstance(inputs, Iterable) and not is_row:
            inputs = (row for row in _undecoded(inputs))
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs, on_error: str = "raise") -> Iterator[dict]:
        """The windows of one row; `is_last` marks where the next one's begin."""
        try:
            yield from self._windows(inputs)
        except ValueError as error:
            if on_error == "raise":
                raise
            yield {"waveform": None, "text": None, "error": str(error), "is_last": True}

    def _windows(self, inputs) -> Iterator[dict]:
        audio, sampling_rate, text = self._read_row(inputs)
        if audio is None:
            yield {"waveform": None, "text": text, "error": None, "is_last": True}
            return
        waveform, num_samples = None, 0
        with _opened(audio) as source:
            for window in self.processor.windows(source, sampling_rate):
                num_samples += len(window)
                if not len(window) or window.min() == window.max():
                    continue
                if waveform is not None:
                    yield {"waveform": waveform, "text": text, "error": None, "is_last": False}
                waveform = window
        if waveform is None:
            what = "is silent" if num_samples else "has no samples"
            raise ValueError(f"audio {what}; give a recording with speech, or the text alone.")
        yield {"waveform": waveform, "text": text, "error": None, "is_last": True}

    def _read_row(self, inputs):
        """Audio, sampling rate and text of a row, each `None` where the model doesn't read it."""
        if not isinstance(inputs, Mapping):
            raise ValueError(
                f"input is a {type(inputs).__name__}; give a dict with 'audio', 'text' or both, or a list of such."
            )
        audio, sampling_rate, text = (inputs.get(name) for name in ("audio", "sampling_rate", "text"))
        if isinstance(audio, Mapping):
            if all(audio.get(key) is None for key in AUDIO_KEYS):
                audio = None
            elif audio.get("array") is not None:
                audio, sampling_rate = audio["array"], audio.get("sampling_rate", sampling_rate)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"text is a {type(text).__name__}; give a str, or leave it out.")
        if audio is None and text is None:
            raise ValueError("neither audio nor text is given; give at least one of them.")
        audio = None if self.model.audio_model is None else audio
        text = None if self.model.text_model is None else text
        if audio is None and text is None:
            modality = "text" if self.model.audio_model is None else "audio"
            raise ValueError(
                f"the model (fusion={self.model.config.fusion!r}) reads nothing but {modality}; give {modality}."
            )
        if audio is None and not text.strip():
            raise ValueError("text is empty, and it is all the model has to go by; give words, or audio too.")
        if audio is not None and not _is_encoded(audio):
            if not (isinstance(sampling_rate, (int, np.integer)) and sampling_rate > 0):
                raise ValueError(
                    f"audio is samples with sampling_rate={sampling_rate!r}; give their rate in Hz beside them: "
                    "{'audio': samples, 'sampling_rate': 16000}."
                )
        return audio, sampling_rate, text

    def _forward(self, windows):
        is_batch = isinstance(windows["is_last"], list)
        waveforms, texts, errors = (
            windows[name] if is_batch else [windows[name]] for name in ("waveform", "text", "error")
        )
        probabilities = torch.zeros(len(errors), self.model.config.num_labels)
        usable = [row for row, error in enumerate(errors) if error is None]
        if usable:
            batch = self.processor(
                audio=[waveforms[row] for row in usable], text=[texts[row] for row in usable], return_tensors="pt"
            )
            logits = self.model(**batch.to(self.device)).logits
            probabilities[usable] = logits.float().softmax(dim=-1).cpu()
        return {"probabilities": probabilities, "error": windows["error"], "is_last": windows["is_last"]}

    def postprocess(self, windows, top_k: int | None = None) -> list[dict] | dict:
        for window in windows:
            if window["error"] is not None:
                return {"error": window["error"]}
        scores = torch.cat([window["probabilities"] for window in windows]).mean(dim=0)  # (C,)
        best = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        return [{"label": self.model.config.id2label[index], "score": scores[index].item()} for index in best]

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model, the processor and their code, as one checkpoint."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _is_encoded(audio) -> bool:
    """Whether it brings its own sampling rate: anything but bare samples."""
    is_named = isinstance(audio, (str, os.PathLike, bytes, Mapping))
    return is_named or hasattr(audio, "read") or hasattr(audio, "get_all_samples")


def _undecoded(rows):
    """A dataset whose audio is left to the processor: `datasets` would ask for torchcodec."""
    feature = (getattr(rows, "features", None) or {}).get("audio")
    if getattr(feature, "decode", False):
        return rows.cast_column("audio", replace(feature, decode=False))
    return rows


@contextmanager
def _opened(audio):
    """The audio itself, or the file that a URL was downloaded to, so that hours of it need no memory."""
    if not (isinstance(audio, str) and audio.startswith(("http://", "https://"))):
        yield audio
        return
    with tempfile.TemporaryFile() as file:
        try:
            with urllib.request.urlopen(audio, timeout=DOWNLOAD_TIMEOUT) as response:
                shutil.copyfileobj(response, file)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"audio {audio} can't be downloaded ({reason}); give a URL that answers.") from error
        file.seek(0)
        yield file


__all__ = ["RsaCfnPipeline"]
