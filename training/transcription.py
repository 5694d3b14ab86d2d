"""Transcripts by a speech recogniser, for recordings that have none, or beside those that a dataset has."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from transformers import pipeline

from audio_rsa_cfn import decode_audio, decode_blocks
from foundation.errors import InputError
from metrics.transcripts import error_rate
from training.model import RECOGNISER, loading


# Longer recordings are recognised in overlapping stretches of this length.
CHUNK_SECONDS = 30
BATCH_SIZE = 16
# Of a recogniser that generates: more than anyone says in a second, and of what Whisper's decoder takes the most.
TOKENS_PER_SECOND, MOST_TOKENS = 16, 440


class Transcriber:
    """Any speech recogniser that transformers loads, such as Whisper or a wav2vec2 with CTC; `language`, such as "ko",
    is for one that would guess it."""

    def __init__(self, name: str, device: torch.device | None, language: str | None = None):
        with loading("--asr_model", name, RECOGNISER):
            # Of a file in half precision too, which takes a CPU many times as long.
            self.recognizer = pipeline("automatic-speech-recognition", model=name, device=device, dtype=torch.float32)
            self.recognizer.tokenizer.pad_token = self.recognizer.tokenizer.pad_token or "<|endoftext|>"  # Whisper's
        self.sampling_rate = self.recognizer.feature_extractor.sampling_rate
        self.device_type = self.recognizer.device.type
        model = self.recognizer.model
        config = model.generation_config if model.can_generate() else None
        self.generates, self.options = config is not None, {}
        if language is not None:
            known = getattr(config, "lang_to_id", None) or {}
            if f"<|{language}|>" not in known:
                legal = ", ".join(token.strip("<|>") for token in known) or "none: it knows one language; leave it out"
                raise InputError(f"--asr_language {language} is unknown to {name}; give one of {legal}")
            self.options = {"language": language, "task": "transcribe"}

    def __call__(self, *recordings) -> list[str]:
        """The words of recordings of at most an hour, in any form that `decode_audio` takes; raises ValueError where
        one can't be read, or the recogniser can make nothing of it."""
        waveforms = [decode_audio(audio, None, self.sampling_rate) for audio in recordings]
        return [" ".join(answer["text"].split()) for answer in self._hear(waveforms)]

    def with_times(self, audio) -> Iterator[dict]:
        """What is said in a recording of up to 24 hours, which is read half a minute at a time: `{"text": str,
        "timestamp": (start, end)}`, in seconds, of each word by CTC or a Whisper that aligns words, each segment of
        another Whisper, or each half-minute of what tells no times."""
        is_aligned = self.generates and getattr(self.recognizer.model.generation_config, "alignment_heads", None)
        kinds = {"seq2seq": {}, "seq2seq_whisper": {"return_timestamps": "word" if is_aligned else True}}
        options = kinds.get(self.recognizer.type, {"return_timestamps": "word"})
        for start, stretch in _stretches(decode_blocks(audio, None, self.sampling_rate), self.sampling_rate):
            (answer,) = self._hear([stretch], **options)
            for chunk in answer.get("chunks", [answer | {"timestamp": (0, None)}]):
                begin, end = chunk["timestamp"]
                end = len(stretch) / self.sampling_rate if end is None else end
                times = (round(start + (begin or 0), 3), round(start + end, 3))
                yield {"text": " ".join(chunk["text"].split()), "timestamp": times}

    def _hear(self, waveforms: list[np.ndarray], **options) -> list[dict]:
        seconds = max(map(len, waveforms)) / self.sampling_rate
        if seconds > CHUNK_SECONDS:
            options["chunk_length_s"] = CHUNK_SECONDS
        if self.generates:
            limit = min(int(TOKENS_PER_SECOND * (seconds + 1)), MOST_TOKENS)
            options["generate_kwargs"] = {"max_new_tokens": limit, **self.options}
        inputs = [{"raw": waveform, "sampling_rate": self.sampling_rate} for waveform in waveforms]
        try:
            with torch.autocast(self.device_type, enabled=False):  # Whisper's spectrogram too
                # Beside longer clips, which it is padded to, one with CTC would hear something else.
                return self.recognizer(inputs, batch_size=len(inputs) if self.generates else 1, **options)
        except Exception as error:  # whatever a recogniser makes of a sound that it isn't made for
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"the recogniser can make nothing of the audio ({reason}); give its text.") from error


def _stretches(blocks: Iterable[np.ndarray], sampling_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """The second at which each stretch of at most `CHUNK_SECONDS` begins, and its samples: cut where the last third is
    quietest, without those of one value and the last tenth of a second."""
    start, ahead, third = 0, np.zeros(0, np.float32), CHUNK_SECONDS * sampling_rate // 3
    for block in chain(blocks, [None]):
        ahead = ahead if block is None else np.concatenate([ahead, block])
        while len(ahead) > (sampling_rate // 10 if block is None else 3 * third):
            end = len(ahead)
            if end > 3 * third:
                loudness = [part.mean() for part in np.array_split(np.abs(ahead[2 * third : 3 * third]), 100)]
                end = 2 * third + round((np.argmin(loudness) + 0.5) * third / 100)
            if ahead[:end].min() < ahead[:end].max():
                yield start / sampling_rate, ahead[:end]
            start, ahead = start + end, ahead[end:]


def write_asr_text(transcriber: Transcriber, folder: Path, into: Path) -> dict[str, float]:
    """A copy of a dataset with a column `asr_text`, and how far it is from `text`."""

    def heard(clips: list[dict]) -> list[str]:
        try:
            return transcriber(*clips)
        except ValueError:
            return [""] if len(clips) == 1 else [text for clip in clips for text in heard([clip])]

    dataset, pairs = load_from_disk(folder), []
    for split, rows in dataset.items():
        texts = [text for batch in rows.iter(BATCH_SIZE) for text in heard(batch["audio"])]
        pairs += [pair for pair in zip(rows["text"][:], texts) if pair[0]]
        dataset[split] = rows.add_column("asr_text", texts)
    dataset.save_to_disk(into)
    rates = {"word error rate": error_rate(pairs), "character error rate": error_rate(pairs, of_characters=True)}
    return {"rows with both texts": len(pairs), **rates}
