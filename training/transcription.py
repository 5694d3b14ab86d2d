"""Transcripts by a speech recogniser, for recordings that have none."""

import torch
from transformers import pipeline

from audio_rsa_cfn import TOO_LONG, AudioError, decode_audio
from foundation.errors import InputError


# Longer recordings are recognised in overlapping stretches of this length.
CHUNK_SECONDS = 30


class Transcriber:
    """Any speech recogniser that transformers loads, such as Whisper or a wav2vec2 with CTC."""

    def __init__(self, name: str, device: torch.device):
        try:
            self.recognizer = pipeline("automatic-speech-recognition", model=name, device=device)
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"--asr_model {name} can't be loaded; give a folder or Hub id of a speech recogniser, such as "
                f"openai/whisper-small ({type(error).__name__}: {reason})"
            ) from error
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
