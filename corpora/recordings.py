"""Reads a recording of any rate, channel count and coding into the bytes of a 16 kHz mono 16-bit wav.
A file that is such a wav already is passed on byte for byte; a damaged one is told by its kind of damage."""

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr


SAMPLING_RATE = 16000

AUDIO_EMPTY = "audio empty"
AUDIO_NOT_FINITE = "audio not finite"
AUDIO_SILENT = "audio silent"
AUDIO_TRUNCATED = "audio truncated"
AUDIO_UNREADABLE = "audio unreadable"


class UnusableRecording(Exception):
    """The recording can't be used; the message is one of the reasons above."""


def read_recording(path: str | Path, repairs: list[str]) -> tuple[bytes, float]:
    """Reads one recording.

    Args:
        path: any file that libsndfile reads.
        repairs: what had to be converted is appended here.

    Returns:
        The bytes of a wav (16 kHz, mono, 16-bit PCM) and its length in seconds.

    Raises:
        UnusableRecording: empty, unreadable, truncated, silent, or with samples that are not finite.
    """
    try:
        content = Path(path).read_bytes()
    except OSError:
        raise UnusableRecording(AUDIO_UNREADABLE) from None
    if not content:
        raise UnusableRecording(AUDIO_EMPTY)
    if _lacks_promised_data(content):
        raise UnusableRecording(AUDIO_TRUNCATED)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            rate, channels, coding = sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}"
            verbatim = (rate, channels, coding) == (SAMPLING_RATE, 1, "WAV PCM_16")
            promised = sound.frames
            samples = sound.read(dtype="int16" if verbatim else "float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, ValueError):
        raise UnusableRecording(AUDIO_UNREADABLE) from None
    if len(samples) < promised:
        raise UnusableRecording(AUDIO_TRUNCATED)
    if not len(samples):
        raise UnusableRecording(AUDIO_EMPTY)
    if not verbatim:
        samples = _convert(samples, rate, coding, repairs)
    if not samples.any():
        raise UnusableRecording(AUDIO_SILENT)
    return content if verbatim else _encode(samples), len(samples) / SAMPLING_RATE


def _lacks_promised_data(content: bytes) -> bool:
    """Whether a RIFF wav ends before the data its header announces; libsndfile silently reads what is left."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return False
    position = 12
    while position + 8 <= len(content):
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if content[position : position + 4] == b"data":
            # Recorders that write to a pipe leave the size open: all ones.
            return size != 0xFFFFFFFF and position + 8 + size > len(content)
        position += 8 + size + size % 2
    return False


def _convert(samples: np.ndarray, rate: int, coding: str, repairs: list[str]) -> np.ndarray:
    """`samples` of shape `(frames, channels)`, float32 -> int16 of shape `(frames at 16 kHz,)`."""
    if not np.isfinite(samples).all():
        raise UnusableRecording(AUDIO_NOT_FINITE)
    if coding != "WAV PCM_16":
        repairs.append(f"re-encoded from {coding}")
    if samples.shape[1] > 1:
        repairs.append(f"mixed down from {samples.shape[1]} channels")
    if np.abs(samples).max() > 1:
        repairs.append("samples beyond full scale clipped")
    samples = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        repairs.append(f"resampled from {rate} Hz")
        samples = soxr.resample(samples, rate, SAMPLING_RATE)
        if not len(samples):
            raise UnusableRecording(AUDIO_EMPTY)
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)


def _encode(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
