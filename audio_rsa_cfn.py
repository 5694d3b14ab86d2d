"""Reads recordings of any form, rate, channel count and coding as blocks of a mono waveform, or says in one of a few
reasons why one can't be used. It travels with every checkpoint, and needs nothing else of this repository."""

import io
import math
import numbers
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import soundfile
import soxr


SAMPLING_RATE = 16000
# The longest clip that is held as a whole, and the longest that is read window by window.
MAX_SECONDS = 3600
MAX_SECONDS_IN_WINDOWS = 24 * 3600
# No speech is left at a lower rate, in Hz.
MIN_RATE = 1000
# Integers of 32 bits that were never scaled reach it; the squares of larger samples would soon be infinite.
MAX_PEAK = 2.0**31

# Bounds on what is decoded at once: 4 MiB of float32, and few enough seconds for a low rate to stay small too.
SAMPLES_PER_BLOCK = 2**20
SECONDS_PER_BLOCK = 60
SHORTEST_BLOCK = 2**12
# The most that is kept of what can be read only once, a download or a pipe: a wav can't be larger.
STREAM_BYTES = 2**32

EMPTY = "audio empty"
MISSING = "audio missing"
NOT_FINITE = "audio not finite"
SILENT = "audio silent"
TRUNCATED = "audio truncated"
UNREADABLE = "audio unreadable"
UNSUPPORTED = "audio format not supported (convert with ffmpeg)"
NO_AUDIO = "no audio"
TOO_LONG = f"audio longer than {MAX_SECONDS / 60:g} minutes"
NO_RATE = "audio without a sampling rate"
LOW_RATE = f"audio sampling rate below {MIN_RATE} Hz"

ENCODED_KEYS, SAMPLES_KEYS = ("bytes", "path"), ("array", "raw")
# No header tells of more frames: 36 bits are those of FLAC. libsndfile says so of a compressed stream without a length.
UNKNOWN_FRAMES = 2**36
# libsndfile's codes for "Format not recognised" and "an unimplemented format".
UNSUPPORTED_CODES = (1, 18)
# Of these the size of the file is the length of the sound; of others it shows only when they are decoded.
PLAIN_CODINGS = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW")
COMPRESSED = ("FLAC", "MP3", "OGG")


class AudioError(ValueError):
    """A recording can't be used, for one of the reasons above; the message is one line that says what to do, and can
    be printed whatever the name of the file."""

    def __init__(self, reason: str, message: str | None = None):
        message = " ".join((message or reason).split())
        super().__init__("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message))
        self.reason = reason


def decode_audio(
    audio, sampling_rate: int | None, target_sampling_rate: int, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Decode one clip of at most `max_seconds` to a mono waveform of this rate in Hz, float32 `(num_samples,)`; an
    [`AudioError`] says why one can't be used.

    `audio` is a file path; encoded bytes; a binary file object, which need not be able to seek; a dict, such as a row
    of a `datasets` Audio column (`{"bytes", "path"}`, `{"array", "sampling_rate"}`) or `{"raw", "sampling_rate"}`; a
    torchcodec decoder; or samples, an array, tensor or list of shape `(num_samples,)`, or of one channel, floats or
    integers of 8, 16 or 32 bits, whose full scale becomes 1. `sampling_rate` is of bare samples, in Hz;
    `target_sampling_rate` when left out.
    """
    blocks = list(decode_blocks(audio, sampling_rate, target_sampling_rate, max_seconds))
    return blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])


def decode_blocks(
    audio, sampling_rate: int | None, target_sampling_rate: int, max_seconds: float = MAX_SECONDS_IN_WINDOWS
) -> Iterator[np.ndarray]:
    """What [`decode_audio`] gives, piece by piece: of a file that lasts hours only a minute is in memory at a time."""
    sound, rate = find_sound(audio, sampling_rate)
    if is_encoded(sound):
        with Recording(sound, max_seconds) as recording:
            yield from _finite(recording.waveform(target_sampling_rate))
        return
    samples, rate = read_samples(sound), target_sampling_rate if rate is None else rate
    _check_length(len(samples), rate, max_seconds)
    size = min(SAMPLES_PER_BLOCK, math.ceil(SECONDS_PER_BLOCK * rate))
    pieces = (samples[start : start + size] for start in range(0, len(samples), size))
    yield from _finite(_resample(pieces, rate, target_sampling_rate))


def find_sound(audio, sampling_rate: int | None = None) -> tuple:
    """Of a clip in any form that [`decode_audio`] takes, what holds its sound, and the rate of samples."""
    if isinstance(audio, Mapping):
        for key in SAMPLES_KEYS:
            if audio.get(key) is not None:
                given = audio.get("sampling_rate")
                return audio[key], check_rate(sampling_rate if given is None else given)
        audio = next((audio[key] for key in ENCODED_KEYS if audio.get(key) is not None), None)
    if audio is None:
        raise AudioError(NO_AUDIO, "no audio is given; give bytes, a path, or samples as an array.")
    if hasattr(audio, "get_all_samples"):
        with _in_a_few_reasons():
            decoded = audio.get_all_samples()
            return decoded.data.mean(dim=0), decoded.sample_rate
    return audio, None if sampling_rate is None else check_rate(sampling_rate)


def is_encoded(sound) -> bool:
    """Whether it brings its own sampling rate: a path, bytes or a file object, and no samples."""
    return isinstance(sound, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(sound, "read")


def check_rate(sampling_rate) -> float:
    """The rate of a clip, in Hz; raises [`AudioError`] where it is none, or below `MIN_RATE`."""
    if isinstance(sampling_rate, numbers.Real) and 0 < sampling_rate < math.inf:
        if sampling_rate < MIN_RATE:
            raise AudioError(LOW_RATE, f"{LOW_RATE} ({sampling_rate:g} Hz); give a recording at 8000 Hz or more.")
        return sampling_rate
    raise AudioError(
        NO_RATE,
        f"audio is samples with sampling_rate={sampling_rate!r}; give their rate in Hz beside them: "
        "{'audio': samples, 'sampling_rate': 16000}.",
    )


def read_samples(sound) -> np.ndarray:
    """Bare samples as float32 of shape `(num_samples,)`; integers are scaled by what their type can hold."""
    with _in_a_few_reasons():
        if hasattr(sound, "detach"):  # numpy has no bfloat16
            sound = sound.detach().cpu()
            sound = sound.float() if sound.is_floating_point() else sound
        samples = np.asarray(sound)
        kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
        if samples.dtype == np.uint8:
            samples = (samples - np.float32(128)) / 128
        elif kind == "i" and bits <= 32:
            samples = samples / np.float32(2 ** (bits - 1))
        elif kind != "f" and samples.size:
            raise AudioError(
                UNREADABLE,
                f"audio is samples of {samples.dtype}, whose full scale isn't known; give floats between -1 and 1, or "
                "an array of int16.",
            )
        if samples.ndim == 2 and 1 in samples.shape:  # as torchaudio and soundfile have one channel
            samples = samples.reshape(-1)
        if samples.ndim != 1:
            shape = f"audio has shape {samples.shape}"
            raise AudioError(UNREADABLE, f"{shape}; give one channel, of shape (num_samples,).")
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)


def find_peak(samples: np.ndarray) -> float:
    """The largest magnitude; raises [`AudioError`] where a sample is NaN, infinite or beyond `MAX_PEAK`."""
    peak = np.abs(samples).max(initial=0.0)
    if not peak <= MAX_PEAK:
        what = f"samples of up to {peak:.2g}" if np.isfinite(peak) else "NaN or infinite samples"
        raise AudioError(NOT_FINITE, f"audio holds {what}; give finite ones, between -1 and 1.")
    return float(peak)


def _finite(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        find_peak(block)
        if len(block):
            yield block


def _resample(blocks: Iterable[np.ndarray], rate: float, target: float) -> Iterator[np.ndarray]:
    """Blocks of shape `(num_samples,)` at another rate; some may be empty."""
    if rate == target:
        yield from blocks
        return
    with _in_a_few_reasons():
        resampler = soxr.ResampleStream(rate, target, 1, dtype="float32")
        for block in blocks:
            yield resampler.resample_chunk(np.ascontiguousarray(block))
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _check_length(frames: int, rate: float, max_seconds: float) -> None:
    if frames > max_seconds * rate:
        advice = ", or use the pipeline, which reads it in windows" if max_seconds == MAX_SECONDS else ""
        raise AudioError(TOO_LONG, f"audio longer than {max_seconds / 60:g} minutes; give a part of it{advice}.")


class Recording:
    """An encoded recording, open until the block ends. Nothing is allocated for a length that its header claims, and
    one that holds less than its header promises is an [`AudioError`], here or when it is read.

    `source` is a path, encoded bytes, or a binary file object; what is longer than `max_seconds` is refused, by its
    header or else when it is read. `sound` is what libsndfile says of it, going by the content and not by the name;
    `frames_read` and `peak` (before channels are mixed) are of the samples that have been decoded so far, and
    `is_mended` says that its header left the length at 0.
    """

    def __init__(self, source, max_seconds: float = MAX_SECONDS_IN_WINDOWS):
        self.max_seconds = max_seconds
        self.frames_read, self.peak = 0, 0.0
        with ExitStack() as stack, _in_a_few_reasons():
            file, size = _open_seekable(source, stack)
            if not size:
                raise AudioError(EMPTY, "audio can't be read (it is empty, of 0 bytes); give a recording.")
            position, patch = find_open_size(file, size)
            self.is_mended = bool(patch)
            self._file = _File(file, size, size, position, patch)
            # libsndfile reads a file of its own faster; on Windows the two C libraries share no descriptors.
            is_direct = isinstance(file, io.FileIO) and os.name == "posix" and not patch
            file.seek(0)
            self.sound = _Sound(file.fileno() if is_direct else self._file, closefd=False)
            if self.sound.format == "MP3" and not _tells_its_length(file):
                # mpg123 would take the size of the file by the first frame for its length, and stop there.
                self.sound.close()
                self._file = _File(file, size, OPEN_LENGTH)
                self.sound = _Sound(self._file)
            self._check_error()
            stack.callback(self.sound.close)
            check_rate(self.sound.samplerate)
            self.promised = self.sound.frames if self.sound.frames < UNKNOWN_FRAMES else 0
            _check_length(self.promised, self.sound.samplerate, max_seconds)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def _check_error(self) -> None:
        if self._file.error is not None:
            raise self._file.error

    @property
    def is_plain(self) -> bool:
        """Whether its length is certain before it is decoded, and its samples are finite."""
        return self.sound.format not in COMPRESSED and self.sound.subtype in PLAIN_CODINGS

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples of shape `(num_frames, num_channels)`, float32, up to where no more come."""
        num_frames = min(SAMPLES_PER_BLOCK // self.sound.channels, SECONDS_PER_BLOCK * self.sound.samplerate)
        if self.promised:
            # libsndfile fills with zeros what it has no samples for, which takes longer than to read a short clip.
            num_frames = min(num_frames, max(self.promised, SHORTEST_BLOCK))
        while True:
            with _in_a_few_reasons(TRUNCATED):
                block = self.sound.read(num_frames, dtype="float32", always_2d=True)
                self._check_error()
            self.frames_read += len(block)
            _check_length(self.frames_read, self.sound.samplerate, self.max_seconds)
            self.peak = max(self.peak, find_peak(block))
            if not len(block):
                break
            yield block
        if self.frames_read < self.promised:
            raise _truncated(f"after {self.frames_read} of {self.promised} frames")

    def waveform(self, target_sampling_rate: int) -> Iterator[np.ndarray]:
        """The mean of the channels at another rate, in blocks of shape `(num_samples,)`; some may be empty."""
        means = (block.mean(axis=1) for block in self.blocks())
        return _resample(means, self.sound.samplerate, target_sampling_rate)


class _Sound(soundfile.SoundFile):
    """Is read to its end: soundfile would stop at the length in the header, and seek after each block."""

    def seekable(self) -> bool:
        return False


class _File(io.RawIOBase):
    """A file of `size` bytes as libsndfile shall see it: without a name, with `patch` at `position`, and of another
    `length`. No exception passes through libsndfile; the first one is kept in `error`."""

    def __init__(self, file: BinaryIO, size: int, length: int, position: int = 0, patch: bytes = b""):
        self.file, self.size, self.length, self.position, self.patch = file, size, length, position, patch
        self.place, self.error = 0, None

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(offset + (0, self.place, self.length)[whence], 0)
        return self.place

    def readinto(self, buffer) -> int:
        try:
            data = bytearray(read_at(self.file, self.place, len(buffer)) if self.place < self.size else b"")
        except Exception as error:
            self.error = self.error or error
            return 0
        if not data and self.place + ID3_BYTES >= self.length:
            # mpg123 looks for a tag at the end, and gives up where nothing can be read there.
            data = bytes(max(min(len(buffer), self.length - self.place), 0))
        for offset, byte in enumerate(self.patch, self.position - self.place):
            if 0 <= offset < len(data):
                data[offset] = byte
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)


# A length that no MP3 has, and the size of a tag at its end.
OPEN_LENGTH = 2**40
ID3_BYTES = 128


def _tells_its_length(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 says how many there are; libsndfile reads on from where it was."""
    place, start = file.tell(), 0
    header = read_at(file, 0, 10)
    if header[:3] == b"ID3":
        start = 10 + sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0)))
    first = read_at(file, start, 2048)
    file.seek(place)
    return b"Xing" in first or b"Info" in first


def _open_seekable(source, stack: ExitStack) -> tuple[BinaryIO, int]:
    """A source as a file that can seek, and its size; what can only be read once is kept in a temporary file."""
    if isinstance(source, (str, os.PathLike)):
        file, size = open_file(source)
        return stack.enter_context(file), size
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source
    try:
        file.seek(0, os.SEEK_END)
    except (AttributeError, OSError, ValueError):
        file = stack.enter_context(keep_stream(file))
        file.seek(0, os.SEEK_END)
    return file, file.tell()


def keep_stream(stream) -> BinaryIO:
    """What is left of a stream, in a temporary file; raises [`AudioError`] where it is more than `STREAM_BYTES`."""
    kept = tempfile.SpooledTemporaryFile(max_size=16 * SAMPLES_PER_BLOCK)
    while block := stream.read(SAMPLES_PER_BLOCK):
        if kept.tell() + len(block) > STREAM_BYTES:
            kept.close()
            raise AudioError(UNREADABLE, "audio can't be read (it is a stream of over 4 GiB); give a part of it.")
        kept.write(block)
    kept.seek(0)
    return kept


def open_file(path: str | os.PathLike) -> tuple[io.FileIO, int]:
    """A file, opened for reading and without a buffer, and its size; raises [`AudioError`] where there is none."""
    # A pipe would be waited for, for ever: opened this way it is not, and then refused. Windows has no such pipes.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with _in_a_few_reasons():
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            other = _find_other_spelling(os.path.abspath(path))
            if other is None:
                raise
            descriptor = os.open(other, flags)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise OSError(f"{os.path.abspath(path)} is {what}")
        return io.FileIO(descriptor), status.st_size


def _find_other_spelling(path: str) -> str | None:
    """A path whose names are on the disk in the other Unicode form, or in cp949, as old archives unpack."""
    folder, name = os.path.split(path)
    if not name or path.isascii():
        return None
    if not os.path.isdir(folder):
        folder = _find_other_spelling(folder)
        if folder is None:
            return None
    if not name.isascii():
        name = _names_by_spelling(folder, os.stat(folder).st_mtime_ns).get(_spell(name))
    return name and os.path.join(folder, name)


@lru_cache(maxsize=64)
def _names_by_spelling(folder: str, changed: int) -> dict[str, str]:
    """Names in a folder that more than one spelling is possible for; `changed` is when the folder last was."""
    return {_spell(name): name for name in os.listdir(folder) if not name.isascii()}


def _spell(name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("cp949", "replace")
    return unicodedata.normalize("NFC", name)


@contextmanager
def _in_a_few_reasons(otherwise: str = UNREADABLE) -> Iterator[None]:
    """Whatever the system and libsndfile make of a file that can't be read is an [`AudioError`]."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        if otherwise == TRUNCATED:
            raise _truncated("in the middle") from error
        reason, why = UNREADABLE, getattr(error, "error_string", str(error) or type(error).__name__).rstrip(".")
        advice = "a file that soundfile decodes, such as wav or flac; ffmpeg converts others to it"
        if isinstance(error, FileNotFoundError):
            where = os.path.abspath(error.filename) if error.filename else "a file without a name"
            reason, why, advice = MISSING, f"{where} isn't there", "the path of a recording"
        elif isinstance(error, soundfile.LibsndfileError) and error.code in UNSUPPORTED_CODES:
            reason, why = UNSUPPORTED, "its format is not supported"
        raise AudioError(reason, f"audio can't be read ({why}); give {advice}.") from error


def _truncated(where: str) -> AudioError:
    return AudioError(TRUNCATED, f"audio can't be read (it is cut off or damaged: {where}); give the whole recording.")


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


def is_open(size: int) -> bool:
    """Whether a header leaves the size of the data open, as recorders do that write to a pipe: it is 0, or what a
    number holds at most, with a sign less some bytes (0x7F000000, 0x7FFFF000)."""
    return size in (0, 2**32 - 1, 2**63 - 1, 2**64 - 1) or 0x7F000000 <= size <= 2**31


def find_open_size(file: BinaryIO, file_size: int) -> tuple[int, bytes]:
    """Refuses a file that ends before the data its header announces, of which libsndfile silently reads what is left.
    For a wav whose size was left at 0, which libsndfile takes for none: where it stands, and what to read there."""
    header = read_at(file, 0, 12)
    if header[:4] == b".snd":
        _check_end(int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:12], "big"), file_size)
    elif header[:4] == b"riff":  # a W64, in which the size is that of the whole file
        _check_end(0, int.from_bytes(read_at(file, 16, 8), "little"), file_size)
    elif header[:5] == b"OggS\0":
        _check_last_page(file, file_size)
    byteorder = {b"RIFF": "little", b"RF64": "little", b"RIFX": "big", b"FORM": "big"}.get(header[:4])
    if byteorder is None or header[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        return 0, b""
    chunks, long_at = riff_chunks(file, 12, file_size, byteorder), None
    for name, start, size in chunks:
        if name == b"ds64":
            long_at = start + 8
        elif name in (b"data", b"SSND"):
            at, width = start - 4, 4
            if long_at is not None and size == 0xFFFFFFFF:
                at, width = long_at, 8
                size = int.from_bytes(read_at(file, at, width), byteorder)
            _check_end(start, size, file_size)
            # What follows may be chunks up to the end: the data is of size 0 then.
            ends = [later + length + length % 2 for _, later, length in chunks]
            if size == 0 and name == b"data" and max(ends, default=start) != file_size:
                return at, min(file_size, 2 ** (8 * width) - 1).to_bytes(width, byteorder)
            break
    return 0, b""


def _check_end(start: int, size: int, file_size: int) -> None:
    if start + size > file_size and not is_open(size):
        raise _truncated(f"it has {max(file_size - start, 0)} of {size} bytes of sound")


def _check_last_page(file: BinaryIO, file_size: int) -> None:
    """Refuses an ogg that ends within a page; they are of at most 65,307 bytes."""
    tail = read_at(file, max(file_size - 65307, 0), 65307)
    page = tail[max(tail.rfind(b"OggS\0"), 0) :]
    if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        raise _truncated("it ends within a page")
