"""Reads a recording of any rate, channel count and coding into the bytes of a 16 kHz mono 16-bit wav.
A file that is such a wav already is passed on byte for byte; a damaged one is told by its kind of damage."""

import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr

from corpora.rows import UnusableRow


SAMPLING_RATE = 16000
# An utterance lasts seconds. What is longer than this is no utterance, and would have to be held in memory as a whole.
MAX_SECONDS = 3600
MAX_BYTES = 2 * SAMPLING_RATE * MAX_SECONDS

AUDIO_EMPTY = "audio empty"
AUDIO_MISSING = "audio missing"
AUDIO_NOT_FINITE = "audio not finite"
AUDIO_SILENT = "audio silent"
AUDIO_TOO_LONG = f"audio longer than {MAX_SECONDS // 60} minutes"
AUDIO_TRUNCATED = "audio truncated"
AUDIO_UNREADABLE = "audio unreadable"

# Recorders that write to a pipe leave the size of the data open.
OPEN_SIZE = 0xFFFFFFFF
# What libsndfile says of a compressed stream without a length.
UNKNOWN_FRAMES = 2**63 - 1
# The `fmt ` chunk of PCM: coding, channels, rate, bytes per second, bytes per frame, bits per sample.
PLAIN_FORMAT = struct.pack("<HHIIHH", 1, 1, SAMPLING_RATE, 2 * SAMPLING_RATE, 2, 16)
FORMATS_BY_SUFFIX = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3",), ".ogg": ("OGG",)}

# Bounds on what is decoded at once: 4 MiB of float32, and few enough seconds for a rate of a few Hz to stay small too.
SAMPLES_PER_BLOCK = 2**20
SECONDS_PER_BLOCK = 60


class UnusableRecording(UnusableRow):
    """The recording can't be used; the message is one of the reasons above."""


def read_recording(path: str | Path, repairs: list[str]) -> tuple[bytes, float]:
    """Reads one recording; no file makes it hold more in memory than `MAX_SECONDS` of wav take.

    Args:
        path: any file that libsndfile reads, or a link to one.
        repairs: what had to be converted is appended here.

    Returns:
        The bytes of a wav (16 kHz, mono, 16-bit PCM) and its length in seconds.

    Raises:
        UnusableRecording: missing, empty, unreadable, truncated, silent, too long, or with samples that are not finite.
    """
    try:
        # A pipe would be waited for, for ever: opened this way it is not, and then refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UnusableRecording(AUDIO_MISSING) from None
    except (OSError, ValueError):
        raise UnusableRecording(AUDIO_UNREADABLE) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableRecording(AUDIO_UNREADABLE)
        if not status.st_size:
            raise UnusableRecording(AUDIO_EMPTY)
        plain = _read_plain(descriptor, status.st_size)
        return plain or _decode(descriptor, status.st_size, Path(path).suffix.lower(), repairs)
    except (OSError, ValueError):
        # ValueError: the file has become shorter since its size was asked for.
        raise UnusableRecording(AUDIO_UNREADABLE) from None
    finally:
        os.close(descriptor)


def _read_plain(descriptor: int, size: int) -> tuple[bytes, float] | None:
    """A 16 kHz mono 16-bit wav as it is, or None for every other file."""
    data = _find_plain_data(partial(os.pread, descriptor), size) if size <= MAX_BYTES else None
    if data is None:
        return None
    content = os.pread(descriptor, size, 0)
    samples = np.frombuffer(content, "<i2", *data)
    # The first few mostly settle it.
    if not (samples[:1000].any() or samples.any()):
        raise UnusableRecording(AUDIO_SILENT)
    return content, len(samples) / SAMPLING_RATE


def _find_plain_data(read: Callable[[int, int], bytes], file_size: int) -> tuple[int, int] | None:
    """Number and position of the samples of a 16 kHz mono 16-bit wav, told without libsndfile, which takes several
    times as long. None for everything else, and where libsndfile might think otherwise: it is asked then."""
    header = read(12, 0)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    has_format, data, end = False, None, 12
    for name, start, size in _chunks(read, 12, file_size):
        if name == b"data" and size == OPEN_SIZE:
            size = file_size - start
        end = start + size
        if end > file_size:
            return None
        if name == b"data" and has_format and data is None:
            # libsndfile takes such data for a compressed file in the clothes of a wav.
            if read(4, start) in (b"wvpk", b"OggS"):
                return None
            data = size // 2, start
        elif name == b"fmt " and not has_format and size in (16, 18) and read(16, start) == PLAIN_FORMAT:
            has_format = True
        elif not _is_harmless(name, start, size, read):
            return None
        end += size % 2
    return data if data is not None and data[0] and end >= file_size else None


def _is_harmless(name: bytes, start: int, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Whether libsndfile can only skip this chunk, whatever its content."""
    if name != b"LIST":
        return name in (b"JUNK", b"junk", b"PAD ") or (name == b"fact" and size == 4)
    if read(4, start) != b"INFO":
        return False
    end = start + 4
    for entry, entry_start, entry_size in _chunks(read, end, start + size):
        if entry[:1] != b"I" or entry == b"INFO":
            return False
        end = entry_start + entry_size + entry_size % 2
    return end == start + size


def _chunks(
    read: Callable[[int, int], bytes], position: int, end: int, byteorder: str = "little"
) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a RIFF file: name, position of the content, size as written. Ends where no name follows, so that
    a huge file of zeros is not walked through.

    Args:
        read: gives so many bytes from such a position, as `os.pread` does.
    """
    while position + 8 <= end:
        header = read(8, position)
        name, size = header[:4], int.from_bytes(header[4:], byteorder)
        if not (name.isascii() and min(name) >= 32):
            return
        yield name, position + 8, size
        position += 8 + size + size % 2


def _lacks_promised_data(read: Callable[[int, int], bytes], file_size: int) -> bool:
    """Whether a wav ends before the data its header announces; libsndfile silently reads what is left."""
    header = read(12, 0)
    byteorder = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big"}.get(header[:4])
    if byteorder is None or header[8:] != b"WAVE":
        return False
    long_size = 0
    for name, start, size in _chunks(read, 12, file_size, byteorder):
        if name == b"ds64":
            long_size = int.from_bytes(read(8, start + 8), byteorder)
        elif name == b"data":
            return start + (long_size if size == OPEN_SIZE else size) > file_size
    return False


def _decode(descriptor: int, size: int, suffix: str, repairs: list[str]) -> tuple[bytes, float]:
    """What `read_recording` returns, by way of libsndfile, which goes by the content and not by the name."""
    if _lacks_promised_data(partial(os.pread, descriptor), size):
        raise UnusableRecording(AUDIO_TRUNCATED)
    try:
        with soundfile.SoundFile(descriptor, closefd=False) as sound:
            if MAX_SECONDS * sound.samplerate < sound.frames < UNKNOWN_FRAMES:
                raise UnusableRecording(AUDIO_TOO_LONG)
            wav, seconds, peak = _convert(sound)
            rate, channels, coding = sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}"
            has_other_name = sound.format not in FORMATS_BY_SUFFIX.get(suffix, (sound.format,))
            is_big_endian = sound.endian == "BIG"
    except (soundfile.LibsndfileError, RuntimeError, ValueError):
        raise UnusableRecording(AUDIO_UNREADABLE) from None
    if (rate, channels, coding) == (SAMPLING_RATE, 1, "WAV PCM_16") and not is_big_endian and size <= MAX_BYTES:
        return os.pread(descriptor, size, 0), seconds
    if coding != "WAV PCM_16" or is_big_endian:
        order = "big-endian " if is_big_endian else ""
        repairs.append(f"re-encoded from {order}{coding}" + (f", though named {suffix}" if has_other_name else ""))
    if channels > 1:
        repairs.append(f"mixed down from {channels} channels")
    if peak > 1:
        repairs.append("samples beyond full scale clipped")
    if rate != SAMPLING_RATE:
        repairs.append(f"resampled from {rate} Hz")
    return wav, seconds


def _convert(sound: soundfile.SoundFile) -> tuple[bytes, float, float]:
    """Decodes block by block: the bytes of the wav, its length in seconds, and the peak before mixing and clipping.

    The number of frames in the header is only compared with what was found; nothing is allocated for it.
    """
    rate, frames = sound.samplerate, 0
    block_frames = min(SAMPLES_PER_BLOCK // sound.channels, SECONDS_PER_BLOCK * rate)
    resampler = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, dtype="float32")
    buffer, peak, is_silent, is_last = io.BytesIO(), 0.0, True, False
    with soundfile.SoundFile(buffer, "w", SAMPLING_RATE, 1, "PCM_16", format="WAV") as wav:
        while not is_last:
            block = sound.read(block_frames, dtype="float32", always_2d=True)
            frames, is_last = frames + len(block), not len(block)
            if frames > MAX_SECONDS * rate:
                raise UnusableRecording(AUDIO_TOO_LONG)
            loudest = np.abs(block).max(initial=0.0)
            if not np.isfinite(loudest):
                raise UnusableRecording(AUDIO_NOT_FINITE)
            peak = max(peak, loudest)
            samples = block.mean(axis=1)
            if resampler is not None:
                samples = resampler.resample_chunk(samples, last=is_last)
            samples = np.round(32768 * np.clip(samples, -1, 32767 / 32768)).astype(np.int16)
            is_silent &= not samples.any()
            wav.write(samples)
        length = wav.frames
    if frames < sound.frames:
        raise UnusableRecording(AUDIO_TRUNCATED)
    if not length:
        raise UnusableRecording(AUDIO_EMPTY)
    if is_silent:
        raise UnusableRecording(AUDIO_SILENT)
    return buffer.getvalue(), length / SAMPLING_RATE, peak
