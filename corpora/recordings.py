"""Reads a recording of any rate, channel count and coding into the bytes of a 16 kHz mono 16-bit wav.
A file that is such a wav already is passed on byte for byte; a damaged one is told by its kind of damage."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from audio_rsa_cfn import (
    EMPTY,
    MAX_SECONDS,
    SAMPLING_RATE,
    SILENT,
    UNREADABLE,
    AudioError,
    Recording,
    is_open,
    open_file,
    read_at,
    riff_chunks,
)
from corpora.rows import UnusableRow


MAX_BYTES = 2 * SAMPLING_RATE * MAX_SECONDS
# What is no longer is read at once: a system call for each part of a header would take longer than all else.
SHORT_BYTES = 1 << 20

# The `fmt ` chunk of PCM: coding, channels, rate, bytes per second, bytes per frame, bits per sample.
PLAIN_FORMAT = struct.pack("<HHIIHH", 1, 1, SAMPLING_RATE, 2 * SAMPLING_RATE, 2, 16)
FORMATS_BY_SUFFIX = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3",), ".ogg": ("OGG",)}


def read_recording(path: str | Path, repairs: list[str]) -> tuple[bytes, float]:
    """The bytes of a wav (16 kHz, mono, 16-bit PCM) and its length in seconds, of any file that libsndfile reads.

    What had to be converted is added to `repairs`. No file makes it hold more in memory than `MAX_SECONDS` of wav take.

    Raises:
        UnusableRow: missing, empty, unreadable, truncated, silent, too long, or with samples that are not finite.
    """
    try:
        file, size = open_file(path)
        with file:
            if not size:
                raise AudioError(EMPTY)
            return _read_plain(file, size) or _decode(file, size, Path(path).suffix.lower(), repairs)
    except AudioError as error:
        raise UnusableRow(error.reason) from None
    except (OSError, ValueError):
        # ValueError: the file has become shorter since its size was asked for.
        raise UnusableRow(UNREADABLE) from None


def _read_plain(file: io.FileIO, size: int) -> tuple[bytes, float] | None:
    """A 16 kHz mono 16-bit wav as it is, or None for every other file."""
    source = io.BytesIO(file.read(size)) if size <= SHORT_BYTES else file
    data = _find_plain_data(source, size) if size <= MAX_BYTES else None
    if data is None:
        return None
    content = read_at(source, 0, size)
    samples = np.frombuffer(content, "<i2", *data)
    # The first few mostly settle it.
    if not (samples[:1000].any() or samples.any()):
        raise AudioError(SILENT)
    return content, len(samples) / SAMPLING_RATE


def _find_plain_data(file: BinaryIO, file_size: int) -> tuple[int, int] | None:
    """Number and position of the samples of a 16 kHz mono 16-bit wav, told without libsndfile, which takes several
    times as long. None for everything else, and where libsndfile might think otherwise: it is asked then."""
    header = read_at(file, 0, 12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    has_format, data, end = False, None, 12
    for name, start, size in riff_chunks(file, 12, file_size):
        if name == b"data" and size and is_open(size):
            size = file_size - start
        end = start + size
        if end > file_size:
            return None
        if name == b"data" and has_format and data is None:
            # libsndfile takes such data for a compressed file in the clothes of a wav.
            if read_at(file, start, 4) in (b"wvpk", b"OggS"):
                return None
            data = size // 2, start
        elif name == b"fmt " and not has_format and size in (16, 18) and read_at(file, start, 16) == PLAIN_FORMAT:
            has_format = True
        elif not _is_harmless(file, name, start, size):
            return None
        end += size % 2
    return data if data is not None and data[0] and end >= file_size else None


def _is_harmless(file: BinaryIO, name: bytes, start: int, size: int) -> bool:
    """Whether libsndfile can only skip this chunk, whatever its content."""
    if name != b"LIST":
        return name in (b"JUNK", b"junk", b"PAD ") or (name == b"fact" and size == 4)
    if read_at(file, start, 4) != b"INFO":
        return False
    end = start + 4
    for entry, entry_start, entry_size in riff_chunks(file, end, start + size):
        if entry[:1] != b"I" or entry == b"INFO":
            return False
        end = entry_start + entry_size + entry_size % 2
    return end == start + size


def _decode(file: io.FileIO, size: int, suffix: str, repairs: list[str]) -> tuple[bytes, float]:
    """What `read_recording` returns, by way of libsndfile."""
    with Recording(file, MAX_SECONDS) as recording:
        wav, seconds = _convert(recording)
    sound = recording.sound
    rate, channels, coding = sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}"
    is_big_endian = sound.endian == "BIG"
    is_plain = (rate, channels, coding) == (SAMPLING_RATE, 1, "WAV PCM_16") and not is_big_endian
    if is_plain and not recording.is_mended and size <= MAX_BYTES:
        return read_at(file, 0, size), seconds
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
    if rate != SAMPLING_RATE:
        repairs.append(f"resampled from {rate} Hz")
    return wav, seconds


def _convert(recording: Recording) -> tuple[bytes, float]:
    """Decodes block by block: the bytes of the wav, and its length in seconds."""
    buffer, is_silent = io.BytesIO(), True
    with soundfile.SoundFile(buffer, "w", SAMPLING_RATE, 1, "PCM_16", format="WAV") as wav:
        for waveform in recording.waveform(SAMPLING_RATE):
            samples = np.round(32768 * np.clip(waveform, -1, 32767 / 32768)).astype(np.int16)
            is_silent &= not samples.any()
            wav.write(samples)
        length = wav.frames
    if not length:
        raise AudioError(EMPTY)
    if is_silent:
        raise AudioError(SILENT)
    return buffer.getvalue(), length / SAMPLING_RATE
