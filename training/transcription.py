"""Transcripts by a speech recogniser, for recordings that have none."""

import torch
from transformers import pipeline

from audio_rsa_cfn import decode_audio
from training.model import RECOGNISER, loading


# Longer recordings are recognised in overlapping stretches of this length.
CHUNK_SECONDS = 30


class Transcriber:
    """Any speech recogniser that transformers loads, such as Whisper or a wav2vec2 with CTC."""

    def __init__(self, name: str, device: torch.device):
        with loading("--asr_model", name, RECOGNISER):
            self.recognizer = pipeline("automatic-speech-recognition", model=name, device=device)

    def __call__(self, audio) -> str:
        """The words of a recording of at most an hour, in any form that `decode_audio` takes; raises ValueError where
        it can't be read, or the recogniser can make nothing of it."""
        sampling_rate = self.recognizer.feature_extractor.sampling_rate
        waveform = decode_audio(audio, None, sampling_rate)
        chunked = {"chunk_length_s": CHUNK_SECONDS} if len(waveform) > CHUNK_SECONDS * sampling_rate else {}
        try:
            answer = self.recognizer({"raw": waveform, "sampling_rate": sampling_rate}, **chunked)
        except Exception as error:  # whatever a recogniser makes of a sound that it isn't made for
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"the recogniser can make nothing of the audio ({reason}); give its text.") from error
        return " ".join(answer["text"].split())
