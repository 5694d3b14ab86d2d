"""Transcripts by a speech recogniser, for recordings that have none."""

import torch
from transformers import pipeline

from audio_rsa_cfn import decode_audio
from foundation.errors import InputError
from training.model import RECOGNISER, loading


# Longer recordings are recognised in overlapping stretches of this length.
CHUNK_SECONDS = 30
# Of a recogniser that generates: more than anyone says in a second, and of what Whisper's decoder takes the most.
TOKENS_PER_SECOND, MOST_TOKENS = 16, 440


class Transcriber:
    """Any speech recogniser that transformers loads, such as Whisper or a wav2vec2 with CTC; `language`, such as "ko",
    is for one that would guess it."""

    def __init__(self, name: str, device: torch.device, language: str | None = None):
        with loading("--asr_model", name, RECOGNISER):
            self.recognizer = pipeline("automatic-speech-recognition", model=name, device=device)
        model = self.recognizer.model
        config = model.generation_config if model.can_generate() else None
        self.generates, self.options = config is not None, {}
        if language is not None:
            known = getattr(config, "lang_to_id", None) or {}
            if f"<|{language}|>" not in known:
                legal = ", ".join(token.strip("<|>") for token in known) or "none: it knows one language; leave it out"
                raise InputError(f"--asr_language {language} is unknown to {name}; give one of {legal}")
            self.options = {"language": language, "task": "transcribe"}

    def __call__(self, audio) -> str:
        """The words of a recording of at most an hour, in any form that `decode_audio` takes; raises ValueError where
        it can't be read, or the recogniser can make nothing of it."""
        sampling_rate = self.recognizer.feature_extractor.sampling_rate
        waveform = decode_audio(audio, None, sampling_rate)
        seconds = len(waveform) / sampling_rate
        options = {"chunk_length_s": CHUNK_SECONDS} if seconds > CHUNK_SECONDS else {}
        if self.generates:
            limit = min(int(TOKENS_PER_SECOND * (seconds + 1)), MOST_TOKENS)
            options["generate_kwargs"] = {"max_new_tokens": limit, **self.options}
        try:
            answer = self.recognizer({"raw": waveform, "sampling_rate": sampling_rate}, **options)
        except Exception as error:  # whatever a recogniser makes of a sound that it isn't made for
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"the recogniser can make nothing of the audio ({reason}); give its text.") from error
        return " ".join(answer["text"].split())
