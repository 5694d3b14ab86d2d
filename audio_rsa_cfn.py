"""Reads recordings of any form, rate, channel count and coding as blocks of a mono waveform, or says in one of a few
reasons why one can't be used. It travels with every checkpoint, and needs nothing else of this repository."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import numpy as np
import soundfile
import soxr


SAMPLING_RATE = 16000

# Bounds on what is decoded at once: 4 MiB of float32, and few enough seconds for a rate of a few Hz to stay small too.
SAMPLES_PER_BLOCK = 2**20
SECONDS_PER_BLOCK = 60

EMPTY = "audio empty"
MISSING = "audio missing"
NOT_FINITE = "audio not finite"
SILENT = "audio silent"
TRUNCATED = "audio truncated"
UNREADABLE = "audio unreadable"

# What a RIFF header says where the size of the data is open, as recorders do that write to a pipe.
OPEN_SIZE = 0xFFFFFFFF
# What libsndfile says of a compressed stream without a length.
UNKNOWN_FRAMES = 2**63 - 1


class AudioError(ValueError):
    """A recording can't be used, for one of the reasons above, or as it is longer than so many minutes; the message
    says what to do."""

    def __init__(self, reason: str, message: str | None = None):
        super().__init__(message or reason)
        self.reason = reason


def decode_audio(audio, sampling_rate: int | None, target_sampling_rate: int) -> np.ndarray:
    """Decode one clip to a mono waveform, float32 of shape `(num_samples,)`.

    Args:
        audio: A file path; encoded bytes; a binary file object; a row of a `datasets` Audio column (`{"bytes",
            "path"}`, `{"array", "sampling_rate"}` or a torchcodec decoder); or samples, an array, tensor or list of
            shape `(num_samples,)`.
        sampling_rate (`int`, *optional*): Of bare samples, in Hz; `target_sampling_rate` when left out.
        target_sampling_rate (`int`): Hz of the result; a clip at another rate is resampled.

    Raises:
        AudioError: A `ValueError`: the clip can't be read, has several channels of bare samples, or isn't finite.
    """
    blocks = list(decode_blocks(audio, sampling_rate, target_sampling_rate))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])


def decode_blocks(audio, sampling_rate: int | None, target_sampling_rate: int) -> Iterator[np.ndarray]:
    """What [`decode_audio`] gives, piece by piece: of a file that lasts hours only a minute is in memory at a time."""
    audio, sampling_rate = find_sound(audio, sampling_rate)
    if isinstance(audio, (str, os.PathLike, bytes)) or hasattr(audio, "read"):
        with Recording(audio) as recording:
            for block in recording.waveform(target_sampling_rate):
                find_peak(block)
                if len(block):
                    yield block
        return
    waveform = np.asarray(audio, dtype=np.float32)
    if waveform.ndim != 1:
        raise AudioError(UNREADABLE, f"audio has shape {waveform.shape}; give one channel, of shape (num_samples,).")
    if sampling_rate not in (None, target_sampling_rate):
        waveform = soxr.resample(waveform, sampling_rate, target_sampling_rate)
    find_peak(waveform)
    yield waveform


def find_sound(audio, sampling_rate: int | None = None) -> tuple:
    """Of a clip in any form that [`decode_audio`] takes, what holds its sound, and the rate of bare samples."""
    if isinstance(audio, dict) and audio.get("array") is not None:
        return audio["array"], audio["sampling_rate"]
    if isinstance(audio, dict):
        return audio["path"] if audio.get("bytes") is None else audio["bytes"], None
    if hasattr(audio, "get_all_samples"):
        decoded = audio.get_all_samples()
        return decoded.data.mean(dim=0), decoded.sample_rate
    return audio, sampling_rate


def find_peak(samples: np.ndarray) -> float:
    """The largest magnitude; raises [`AudioError`] where a sample is NaN or infinite."""
    peak = np.abs(samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise AudioError(NOT_FINITE, "audio holds NaN or infinite samples; give finite ones.")
    return float(peak)


class Recording:
    """An encoded recording, open until the block ends. Nothing is allocated for a length that its header claims.

    `source` is a path, encoded bytes, or a binary file object that can seek; what is longer than `max_seconds` is
    refused, by its header or else when it is read. `sound` is what libsndfile says of it, going by the content and not
    by the name; `frames_read` and `peak` (before channels are mixed) are of the samples that have been decoded so far.
    """

    def __init__(self, source, max_seconds: float | None = None):
        self.max_seconds = max_seconds
        self.frames_read, self.peak = 0, 0.0
        with ExitStack() as stack, _in_a_few_reasons():
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            if isinstance(source, (str, os.PathLike)):
                file = stack.enter_context(open_file(source)[0])
            if isinstance(file, io.FileIO):
                file.seek(0)
            # libsndfile reads a file of its own faster; on Windows the two C libraries share no descriptors.
            handle = file.fileno() if isinstance(file, io.FileIO) and os.name == "posix" else file
            self.sound = stack.enter_context(soundfile.SoundFile(handle, closefd=False))
            self._check_length(self.sound.frames if self.sound.frames < UNKNOWN_FRAMES else 0)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def _check_length(self, frames: int) -> None:
        if self.max_seconds is not None and frames > self.max_seconds * self.sound.samplerate:
            raise AudioError(f"audio longer than {self.max_seconds / 60:g} minutes")

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples of shape `(num_frames, num_channels)`, float32, up to where no more can be decoded."""
        num_frames = min(SAMPLES_PER_BLOCK // self.sound.channels, SECONDS_PER_BLOCK * self.sound.samplerate)
        while True:
            with _in_a_few_reasons():
                block = self.sound.read(num_frames, dtype="float32", always_2d=True)
            self.frames_read += len(block)
            self._check_length(self.frames_read)
            self.peak = max(self.peak, find_peak(block))
            if not len(block):
                return
            yield block

    def waveform(self, target_sampling_rate: int) -> Iterator[np.ndarray]:
        """The mean of the channels at another rate, in blocks of shape `(num_samples,)`; some may be empty."""
        if self.sound.samplerate == target_sampling_rate:
            for block in self.blocks():
                yield block.mean(axis=1)
            return
        with _in_a_few_reasons():
            resampler = soxr.ResampleStream(self.sound.samplerate, target_sampling_rate, 1, dtype="float32")
        for block in self.blocks():
            yield resampler.resample_chunk(block.mean(axis=1))
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def open_file(path: str | os.PathLike) -> tuple[io.FileIO, int]:
    """A file, opened for reading and without a buffer, and its size; raises [`AudioError`] where there is none."""
    with _in_a_few_reasons():
        # A pipe would be waited for, for ever: opened this way it is not, and then refused. Windows has no such pipes.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(f"{os.fspath(path)} is no file")
        return io.FileIO(descriptor), status.st_size


@contextmanager
def _in_a_few_reasons() -> Iterator[None]:
    """Whatever the system and libsndfile make of a file that can't be read is an [`AudioError`]."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        reason, why = UNREADABLE, error
        if isinstance(error, FileNotFoundError):
            reason, why = MISSING, f"{error.filename} isn't there"
        elif isinstance(error, soundfile.LibsndfileError):
            why = error.error_string.rstrip(".")
        message = f"audio can't be read ({why}); give a file that soundfile decodes, such as wav or flac."
        raise AudioError(reason, message) from error


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def riff_chunks(file: BinaryIO, position: int, end: int, byteorder: str = "little") -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a RIFF file: name, position of the content, size as written. Ends where no name follows, so that
    a huge file of zeros is not walked through."""
    while position + 8 <= end:
        header = read_at(file, position, 8)
        name, size = header[:4], int.from_bytes(header[4:], byteorder)
        if not (name.isascii() and min(name) >= 32):
            return
        yield name, position + 8, size
        position += 8 + size + size % 2


def lacks_promised_data(file: BinaryIO, file_size: int) -> bool:
    """Whether a wav ends before the data its header announces; libsndfile silently reads what is left."""
    header = read_at(file, 0, 12)
    byteorder = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big"}.get(header[:4])
    if byteorder is None or header[8:] != b"WAVE":
        return False
    long_size = 0
    for name, start, size in riff_chunks(file, 12, file_size, byteorder):
        if name == b"ds64":
            long_size = int.from_bytes(read_at(file, start + 8, 8), byteorder)
        elif name == b"data":
            return start + (long_size if size == OPEN_SIZE else size) > file_size
    return False
