"""Recordings of every kind and damage, each a real file. Sounds are sines, so that pitch and length can be told after a
conversion."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpora.recordings import MAX_BYTES, read_recording
from corpora.rows import UnusableRow


REPOSITORY = Path(__file__).parents[2]
MEBIBYTE = 2**20


def sine(seconds=1.0, rate=16000, pitch=440.0, channels=1):
    samples = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    return samples if channels == 1 else np.stack([samples] * channels, axis=1)


def chunk(name, body, size=None):
    """`size` is what the header says, where that is not the truth."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def format_chunk(rate=16000, channels=1, bits=16, extra=b""):
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, bits) + extra)


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


PCM = (sine() * 20000).astype("<i2").tobytes()
INFO = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf60.16.100") + chunk(b"ICMT", b"take 2"))


def outcome(path):
    """All there is to know about a recording: the wav, its seconds and the repairs, or the reason against it."""
    repairs = []
    try:
        return *read_recording(path, repairs), repairs
    except UnusableRow as reason:
        return str(reason)


@pytest.mark.parametrize(
    "content",
    [
        riff(format_chunk(), chunk(b"data", PCM)),
        riff(format_chunk(extra=b"\0\0"), chunk(b"data", PCM)),
        riff(format_chunk(), INFO, chunk(b"data", PCM)),
        riff(chunk(b"JUNK", bytes(27)), format_chunk(), chunk(b"fact", bytes(4)), chunk(b"data", PCM), INFO),
        riff(format_chunk(), chunk(b"junk", b"x" * 300_001), chunk(b"data", PCM), chunk(b"PAD ", b"y" * 300_001)),
        riff(format_chunk(), chunk(b"data", PCM + b"z")),
        riff(format_chunk(), chunk(b"data", PCM + b"z"))[:-1],
        riff(format_chunk(), chunk(b"data", PCM), size=20),
        riff(format_chunk(), INFO, chunk(b"data", PCM, 0xFFFFFFFF), size=0xFFFFFFFF),
        riff(format_chunk(), chunk(b"data", PCM, 0x7FFFF000), size=0x7FFFF024),
        riff(format_chunk(), chunk(b"data", PCM, 0x7FFFFFFF), size=0x7FFFFFFF),
    ],
    ids="plain cbsize info many large odd unpadded riff_size pipe sox arecord".split(),
)
def test_plain_wav_is_passed_on_as_it_is(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert outcome(tmp_path / "a.wav") == (content, 1.0, [])
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate == 16000 and samples.tobytes() == PCM


@pytest.mark.parametrize(
    "content",
    [
        riff(format_chunk(), chunk(b"LIST", b"adtl" + chunk(b"labl", bytes(8))), chunk(b"data", PCM)),
        riff(format_chunk(), chunk(b"data", PCM), chunk(b"id3 ", b"ID3\3" + bytes(7)), chunk(b"bext", bytes(602))),
        riff(format_chunk(), chunk(b"data", PCM)) + b"JUN",
        riff(format_chunk(), chunk(b"data", PCM)) + b"\0" * 100,
        riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16000, 0, 0, 16)), chunk(b"data", PCM)),
    ],
    ids="adtl other_chunks cut_after zeros_after format".split(),
)
def test_wav_with_more_than_sound_is_passed_on_too(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert outcome(tmp_path / "a.wav") == (content, 1.0, [])


bodies = st.binary(max_size=40)
infos = st.lists(st.builds(chunk, st.sampled_from([b"ISFT", b"ICMT", b"IXYZ"]), bodies), max_size=2)
harmless_chunks = st.one_of(
    st.builds(chunk, st.sampled_from([b"JUNK", b"junk", b"PAD "]), bodies),
    st.builds(chunk, st.just(b"fact"), st.binary(min_size=4, max_size=4)),
    st.builds(lambda entries: chunk(b"LIST", b"INFO" + b"".join(entries)), infos),
)
# Those that libsndfile looks into, those that are out of place, and lists that are no lists.
entries = st.builds(chunk, st.sampled_from([b"ISFT", b"INFO", b"labl", b"exif", b"data"]), bodies)
strange_chunks = st.one_of(
    st.builds(chunk, st.sampled_from([b"fact", b"PEAK", b"bext", b"cue ", b"smpl", b"id3 ", b"RIFF", b"WAVE"]), bodies),
    st.builds(lambda kind, entry: chunk(b"LIST", kind + entry), st.sampled_from([b"INFO", b"adtl"]), entries),
    st.builds(lambda rest: chunk(b"LIST", b"INFO" + rest), bodies),
    st.builds(chunk, st.binary(min_size=4, max_size=4), bodies),
    st.builds(chunk, st.sampled_from([b"JUNK", b"LIST", b"data"]), bodies, st.integers(0, 60)),
    st.just(format_chunk()),
)
strange_formats = st.builds(
    format_chunk, st.sampled_from([16000, 8000, 0]), st.integers(0, 2), st.sampled_from([8, 16, 24]), bodies
)
sizes = st.sampled_from([0, 2, 799, 801, 10_000, 0xFFFFFFF0, 0x7FFFF000, 0xFFFFFFFF])
tails = st.sampled_from([b"\0", b"RIFF", bytes(20), b"data" + bytes(40), b"LIST\4\0\0\0adtl"])


@st.composite
def wavs(draw):
    """Plain ones with harmless chunks anywhere, and up to two faults."""
    faults = draw(st.lists(st.sampled_from(["chunk", "format", "size", "start", "cut", "tail"]), max_size=2))
    start = draw(st.sampled_from([bytes(400), b"wvpk", b"OggS"])) if "start" in faults else b""
    data = start + PCM[: draw(st.integers(0, 801)) if faults else 800]
    chunks = [
        draw(strange_formats) if "format" in faults else format_chunk(),
        chunk(b"data", data, draw(sizes) if "size" in faults else None),
    ]
    for one in draw(st.lists(harmless_chunks, max_size=3)):
        chunks.insert(draw(st.integers(0, len(chunks))), one)
    if "chunk" in faults:
        chunks.insert(draw(st.integers(0, len(chunks))), draw(strange_chunks))
    content = riff(*chunks, size=draw(st.sampled_from([None, 8])))
    content += draw(tails) if "tail" in faults else b""
    return content[: draw(st.integers(0, len(content)))] if "cut" in faults else content


# Each was found to be more than libsndfile bears.
@example(content=riff(format_chunk(), chunk(b"PEAK", bytes(3)), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), chunk(b"fact", b""), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), chunk(b"LIST", b"INFO" + chunk(b"labl", b"")), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), chunk(b"LIST", b"INFO" + chunk(b"INFO", b"ab")), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), chunk(b"LIST", b"INFO" + b"\xff" * 27), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), chunk(b"data", PCM), chunk(b"data", PCM)))
@example(content=riff(format_chunk(), format_chunk(), chunk(b"data", PCM)))
@example(content=riff(chunk(b"data", PCM), format_chunk()))
@given(content=wavs())
@settings(max_examples=500, deadline=None)
def test_what_is_passed_on_is_sound(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "drawn.wav"
    path.write_bytes(content)
    found = outcome(path)
    if not isinstance(found, str):
        samples, rate = soundfile.read(io.BytesIO(found[0]), always_2d=True)
        assert (rate, samples.shape) == (16000, (round(found[1] * 16000), 1)) and samples.any()


CONVERSIONS = [
    ({"subtype": "PCM_U8"}, 16000, 1, ["re-encoded from WAV PCM_U8"]),
    ({"subtype": "PCM_24"}, 16000, 1, ["re-encoded from WAV PCM_24"]),
    ({"subtype": "FLOAT"}, 16000, 1, ["re-encoded from WAV FLOAT"]),
    ({"subtype": "DOUBLE"}, 16000, 1, ["re-encoded from WAV DOUBLE"]),
    ({"subtype": "ULAW"}, 16000, 1, ["re-encoded from WAV ULAW"]),
    ({"format": "WAVEX"}, 16000, 1, ["re-encoded from WAVEX PCM_16"]),
    ({"format": "RF64"}, 16000, 1, ["re-encoded from RF64 PCM_16"]),
    ({"format": "WAV", "endian": "BIG"}, 16000, 1, ["re-encoded from big-endian WAV PCM_16"]),
    ({}, 16000, 2, ["mixed down from 2 channels"]),
    ({}, 16000, 6, ["mixed down from 6 channels"]),
    ({}, 8000, 1, ["resampled from 8000 Hz"]),
    ({}, 22050, 1, ["resampled from 22050 Hz"]),
    ({}, 44100, 2, ["mixed down from 2 channels", "resampled from 44100 Hz"]),
    ({}, 48000, 1, ["resampled from 48000 Hz"]),
    ({"format": "FLAC"}, 16000, 1, ["re-encoded from FLAC PCM_16"]),
    ({"format": "OGG"}, 16000, 2, ["re-encoded from OGG VORBIS", "mixed down from 2 channels"]),
    ({"format": "OGG", "subtype": "OPUS"}, 48000, 1, ["re-encoded from OGG OPUS", "resampled from 48000 Hz"]),
    ({"format": "MP3"}, 44100, 1, ["re-encoded from MP3 MPEG_LAYER_III", "resampled from 44100 Hz"]),
]


@pytest.mark.parametrize(("how", "rate", "channels", "told"), CONVERSIONS)
def test_conversions(tmp_path, how, rate, channels, told):
    how = {"format": "WAV"} | how
    path = tmp_path / f"a.{how['format'].lower() if how['format'] in ('FLAC', 'OGG', 'MP3') else 'wav'}"
    soundfile.write(path, sine(2, rate, channels=channels), rate, **how)
    wav, seconds, repairs = outcome(path)
    assert repairs == told
    with soundfile.SoundFile(io.BytesIO(wav)) as sound:
        assert (sound.format, sound.samplerate, sound.channels, sound.subtype) == ("WAV", 16000, 1, "PCM_16")
        samples = sound.read()
    assert len(samples) / 16000 == seconds == pytest.approx(2.0, abs=1e-3)
    assert np.argmax(np.abs(np.fft.rfft(samples))) / seconds == pytest.approx(440, abs=1)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "coding"), [("MP3", "MP3 MPEG_LAYER_III"), ("FLAC", "FLAC PCM_16"), ("OGG", "OGG VORBIS")]
)
def test_content_counts_not_the_name(tmp_path, kind, coding):
    soundfile.write(tmp_path / "a.WAV", sine(), 16000, format=kind)
    assert outcome(tmp_path / "a.WAV")[2] == [f"re-encoded from {coding}, though named .wav"]
    (tmp_path / "b.mp3").write_bytes(riff(format_chunk(), chunk(b"data", PCM)))
    assert outcome(tmp_path / "b.mp3")[1:] == (1.0, [])


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.0, 1.5, -1.5, 2e9, -2e9]), 16000, subtype="FLOAT")
    wav, _, repairs = outcome(tmp_path / "a.wav")
    assert repairs == ["re-encoded from WAV FLOAT", "samples beyond full scale clipped"]
    samples, _ = soundfile.read(io.BytesIO(wav), dtype="int16")
    assert samples.tolist() == [16384, 32767, 32767, -32768, 32767, -32768]


def test_long_recording_is_resampled_as_a_short_one_is(tmp_path):
    # Three blocks and a bit, with a click at each seam, against the whole at once.
    rate, samples = 48000, sine(70, 48000)
    samples[2**20 - 1 :: 2**20] = 0.9
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with patch("audio_rsa_cfn.SAMPLES_PER_BLOCK", 2**30), patch("audio_rsa_cfn.SECONDS_PER_BLOCK", 100):
        whole = outcome(tmp_path / "a.wav")
    assert outcome(tmp_path / "a.wav") == whole
    assert whole[1] == 70.0


def encoded(samples, rate=16000, **how):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **{"format": "WAV"} | how)
    return buffer.getvalue()


def flac_that_promises(frames):
    content = bytearray(encoded(sine(), format="FLAC"))
    content[21:26] = bytes([content[21] & 0xF0 | frames >> 32]) + (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


NOT_SUPPORTED = "audio format not supported (convert with ffmpeg)"
PLAIN = riff(format_chunk(), chunk(b"data", PCM))
UNUSABLE = {
    "zero bytes": (b"", "audio empty"),
    "no samples": (riff(format_chunk(), chunk(b"data", b"")), "audio empty"),
    "half a sample": (riff(format_chunk(), chunk(b"data", b"x")), "audio empty"),
    "too short to resample": (encoded(sine()[:1], 48000), "audio empty"),
    "zeros for a file": (bytes(32044), NOT_SUPPORTED),
    "silence": (riff(format_chunk(), chunk(b"data", bytes(32000))), "audio silent"),
    "silence of 24 bits": (encoded(0 * sine(), subtype="PCM_24"), "audio silent"),
    "channels that cancel": (encoded(np.stack([sine(), -sine()], axis=1)), "audio silent"),
    "text": (b"No sound in here, only words.\n" * 100, NOT_SUPPORTED),
    "cut in RIFF": (PLAIN[:10], NOT_SUPPORTED),
    "cut in fmt": (PLAIN[:30], "audio unreadable"),
    "cut before data": (PLAIN[:36], "audio unreadable"),
    "cut in data": (PLAIN[:-2], "audio truncated"),
    "cut after data's header": (PLAIN[:44], "audio truncated"),
    "cut 8 kHz": (riff(format_chunk(8000), chunk(b"data", PCM))[:-2], "audio truncated"),
    "cut RIFX": (encoded(sine(), endian="BIG")[:-2], "audio truncated"),
    "cut RF64": (encoded(sine(), format="RF64")[:-2], "audio truncated"),
    "cut mp3": (encoded(sine(), format="MP3")[:-400], "audio truncated"),
    "cut flac": (encoded(sine(), format="FLAC")[:-400], "audio truncated"),
    "4 GiB claimed": (riff(format_chunk(), chunk(b"data", PCM, 0xFFFFFFF0), size=0xFFFFFFFF), "audio truncated"),
    "4 GiB of 48 kHz claimed": (riff(format_chunk(48000, 2), chunk(b"data", PCM, 0xFFFFFFF0)), "audio truncated"),
    "4 GiB of junk claimed": (riff(format_chunk(), b"JUNK\xf0\xff\xff\xff", chunk(b"data", PCM)), "audio unreadable"),
    "flac of 50 days claimed": (flac_that_promises(2**36 - 1), "audio longer than 60 minutes"),
    "cut flac of unknown length": (flac_that_promises(0)[:-400], "audio truncated"),
    "cut ogg": (encoded(sine(), format="OGG")[:-400], "audio truncated"),
    "cut aiff": (encoded(sine(), format="AIFF")[:-2], "audio truncated"),
    "cut au": (encoded(sine(), format="AU")[:-2], "audio truncated"),
    "cut w64": (encoded(sine(), format="W64")[:-2], "audio truncated"),
    "flac of a minute claimed": (flac_that_promises(60 * 16000), "audio truncated"),
    "no channels": (riff(format_chunk(channels=0), chunk(b"data", PCM)), "audio unreadable"),
    "no rate": (riff(format_chunk(rate=0), chunk(b"data", PCM)), "audio unreadable"),
    "1 Hz": (riff(format_chunk(rate=1), chunk(b"data", PCM)), "audio sampling rate below 1000 Hz"),
    "an hour of flac": (encoded(np.zeros(3601 * 1000), 1000, format="FLAC"), "audio longer than 60 minutes"),
    "two wavs in one": (PLAIN + PLAIN, "audio unreadable"),
    "not a number": (encoded(np.append(sine(), np.nan), subtype="FLOAT"), "audio not finite"),
    "infinity": (encoded(np.append(sine(), np.inf), 44100, subtype="FLOAT"), "audio not finite"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_damage_has_one_reason_and_little_memory(tmp_path, kind):
    content, reason = UNUSABLE[kind]
    (tmp_path / "a.wav").write_bytes(content)
    tracemalloc.start()
    try:
        assert outcome(tmp_path / "a.wav") == reason
        assert tracemalloc.get_traced_memory()[1] < 64 * MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"", NOT_SUPPORTED),
        (b"words, words\n", NOT_SUPPORTED),
        (b"RIFF\xff\xff\xff\xffWAVE", "audio unreadable"),
        (PLAIN, "audio longer than 60 minutes"),
        (riff(format_chunk(), b"data\xf0\xff\xff\xff"), "audio longer than 60 minutes"),
        (riff(format_chunk(), b"data\xff\xff\xff\xff"), "audio longer than 60 minutes"),
        (riff(format_chunk(48000, 2, 24), b"data\xff\xff\xff\xff"), "audio longer than 60 minutes"),
    ],
    ids="zeros text no_chunks short_data data open_data 48_kHz".split(),
)
def test_file_of_many_gibibytes_is_not_read(tmp_path, head, reason):
    (tmp_path / "a.wav").write_bytes(head)
    os.truncate(tmp_path / "a.wav", 6 * 2**30)
    tracemalloc.start()
    try:
        found = outcome(tmp_path / "a.wav")
        assert tracemalloc.get_traced_memory()[1] < 16 * MEBIBYTE
    finally:
        tracemalloc.stop()
    if head == PLAIN:
        # Its data is one second; what follows is no audio.
        assert found[1:] == (1.0, [])
    else:
        assert found == reason


def test_stream_without_a_length_is_left_when_it_is_too_long(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac_that_promises(0))
    with patch("audio_rsa_cfn.MAX_SECONDS", 0.5), patch("audio_rsa_cfn.SAMPLES_PER_BLOCK", 1000):
        assert outcome(tmp_path / "a.flac").startswith("audio longer")


def test_memory_of_a_conversion_is_that_of_its_result(tmp_path):
    # 200 s of 44.1 kHz with six channels: 101 MiB on disk and twice that in float32, 6 MiB when converted.
    seconds, size = 200, 200 * 44100 * 12
    header = riff(format_chunk(44100, 6), b"data" + struct.pack("<I", size))
    (tmp_path / "a.wav").write_bytes(header + PCM)
    os.truncate(tmp_path / "a.wav", len(header) + size)
    assert size < MAX_BYTES
    tracemalloc.start()
    try:
        assert outcome(tmp_path / "a.wav")[1] == seconds
        assert tracemalloc.get_traced_memory()[1] < 40 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_links_are_followed(tmp_path):
    (tmp_path / "real.wav").write_bytes(PLAIN)
    (tmp_path / "link.wav").symlink_to("real.wav")
    (tmp_path / "second.wav").symlink_to("link.wav")
    assert outcome(tmp_path / "second.wav") == (PLAIN, 1.0, [])
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name in ("dangling.wav", "missing.wav"):
        assert outcome(tmp_path / name) == "audio missing"
    for name in ("loop.wav", "nul\0.wav"):
        assert outcome(tmp_path / name) == "audio unreadable"


def test_folder_and_pipe_named_wav(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("pipe.wav")
    # In a process of its own, which can be ended if it waits for a writer after all.
    code = (
        "import sys\n"
        "from corpora.recordings import read_recording\n"
        "from corpora.rows import UnusableRow\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        read_recording(path, [])\n"
        "    except UnusableRow as reason:\n        print(reason)\n"
    )
    paths = [tmp_path / f"{name}.wav" for name in ("folder", "pipe", "link")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["audio unreadable"] * 3, done.stderr


def test_no_file_is_left_open(tmp_path):
    (tmp_path / "a.wav").write_bytes(PLAIN)
    (tmp_path / "b.wav").write_bytes(UNUSABLE["cut in data"][0])
    soundfile.write(tmp_path / "c.wav", sine(), 44100)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.wav", "b.wav", "c.wav", "missing.wav"):
        outcome(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before
