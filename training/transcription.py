"""Transcripts by a speech recogniser, for recordings that have none."""

import torch
from transformers import pipeline

from audio_rsa_cfn import TOO_LONG, AudioError, decode_audio
from training.model import RECOGNISER, loading


# Longer recordings are recognised in overlapping stretches of this length.
CHUNK_SECONDS = 30


class Transcriber:
    """Any speech recogniser that transformers loads, such as Whisper or a wav2vec2 with CTC."""

    def __init__(self, name: str, device: torch.device):
        with loading("--asr_model", name, RECOGNISER):
            self.recognizer = pipeline("automatic-speech-recognition", model=name, device=device)
        self.failed = 0

    def __call__(self, audio: str) -> str | None:
        """The words of a recording, a path; None where it can't be read, or is too short for the recogniser."""
        sampling_rate = self.recognizer.feature_extractor.sampling_rate
        try:
            waveform = decode_audio(audio, None, sampling_rate)
        except AudioError as error:
            # What can't be read at all has no prediction either, and an error that says so.
            self.failed += error.reason == TOO_LONG
            return None
        chunked = {"chunk_length_s": CHUNK_SECONDS} if len(waveform) > CHUNK_SECONDS * sampling_rate else {}
        try:
            answer = self.recognizer({"raw": waveform, "sampling_rate": sampling_rate}, **chunked)
        except (ValueError, RuntimeError):
            self.failed += 1
            return None
        return " ".join(answer["text"].split())
