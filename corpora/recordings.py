"""Reads a recording of any rate, channel count and coding into the bytes of a 16 kHz mono 16-bit wav.
A file that is such a wav already is passed on byte for byte; a damaged one is told by its kind of damage."""

import io
from pathlib import Path

import numpy as np
import soundfile

import audio_rsa_cfn as reading
from corpora.rows import UnusableRow


MAX_BYTES = 2 * reading.SAMPLING_RATE * reading.MAX_SECONDS
FORMATS_BY_SUFFIX = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3",), ".ogg": ("OGG",)}


def read_recording(path: str | Path, repairs: list[str]) -> tuple[bytes, float]:
    """The bytes of a wav (16 kHz, mono, 16-bit PCM) and its length in seconds, of any file that libsndfile reads; else
    an UnusableRow. What had to be converted is added to `repairs`. No file makes it hold more in memory than
    `MAX_SECONDS` of wav take."""
    try:
        file, size = reading.open_file(path)
        with file:
            return _decode(file, size, Path(path).suffix.lower(), repairs)
    except reading.AudioError as error:
        raise UnusableRow(error.reason) from None
    except (OSError, ValueError):
        # ValueError: the file has become shorter since its size was asked for.
        raise UnusableRow(reading.UNREADABLE) from None


def _decode(file: io.FileIO, size: int, suffix: str, repairs: list[str]) -> tuple[bytes, float]:
    """What `read_recording` returns, of an open file of `size` bytes."""
    with reading.Recording(file, reading.MAX_SECONDS) as recording:
        sound = recording.sound
        rate, channels, coding = sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}"
        is_big_endian = sound.endian == "BIG"
        is_plain = (rate, channels, coding) == (reading.SAMPLING_RATE, 1, "WAV PCM_16") and not is_big_endian
        if is_plain and not recording.is_mended and size <= MAX_BYTES:
            seconds = _measure(recording)  # first, since libsndfile reads on from where the file is
            return reading.read_at(file, 0, size), seconds
        wav, seconds = _convert(recording)
    if recording.is_mended:
        repairs.append("length left open in the header filled in")
    if coding != "WAV PCM_16" or is_big_endian:
        has_other_name = sound.format not in FORMATS_BY_SUFFIX.get(suffix, (sound.format,))
        order = "big-endian " if is_big_endian else ""
        repairs.append(f"re-encoded from {order}{coding}" + (f", though named {suffix}" if has_other_name else ""))
    if channels > 1:
        repairs.append(f"mixed down from {channels} channels")
    if recording.peak > 1:
        repairs.append("samples beyond full scale clipped")
    if rate != reading.SAMPLING_RATE:
        repairs.append(f"resampled from {rate} Hz")
    return wav, seconds


def _measure(recording: reading.Recording) -> float:
    """Its length in seconds, once all of it was found to be sound."""
    for _ in recording.blocks():
        pass
    if not recording.frames_read:
        raise reading.AudioError(reading.EMPTY)
    if not recording.peak:
        raise reading.AudioError(reading.SILENT)
    return recording.frames_read / reading.SAMPLING_RATE


def _convert(recording: reading.Recording) -> tuple[bytes, float]:
    """Decodes block by block: the bytes of the wav, and its length in seconds."""
    buffer, is_silent = io.BytesIO(), True
    with soundfile.SoundFile(buffer, "w", reading.SAMPLING_RATE, 1, "PCM_16", format="WAV") as wav:
        for waveform in recording.waveform(reading.SAMPLING_RATE):
            samples = np.round(32768 * np.clip(waveform, -1, 32767 / 32768)).astype(np.int16)
            is_silent &= not samples.any()
            wav.write(samples)
        length = wav.frames
    if not length:
        raise reading.AudioError(reading.EMPTY)
    if is_silent:
        raise reading.AudioError(reading.SILENT)
    return buffer.getvalue(), length / reading.SAMPLING_RATE
