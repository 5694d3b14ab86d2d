"""The reader of recordings: every form of audio, blocks that give what the whole gives, and reasons for damage."""

import ast
import io
import os
import sys

import numpy as np
import pytest
import soundfile
import torch

import audio_rsa_cfn
from audio_rsa_cfn import AudioError, Recording, decode_audio, decode_blocks


@pytest.fixture
def tone():
    """One second of 440 Hz at 16 kHz."""
    return np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) * 0.5


def wav_bytes(samples, sampling_rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_every_form_of_audio_gives_the_same_waveform(tone, tmp_path):
    soundfile.write(tmp_path / "tone.wav", tone, 16000, subtype="FLOAT")
    stereo = wav_bytes(np.stack([tone, tone], axis=1), 16000)
    forms = [
        tone, tone.tolist(), torch.from_numpy(tone), tmp_path / "tone.wav", str(tmp_path / "tone.wav"), stereo,
        {"bytes": wav_bytes(tone, 16000), "path": "tone.wav"}, {"bytes": None, "path": str(tmp_path / "tone.wav")},
        {"array": tone, "sampling_rate": 16000}, io.BytesIO(stereo),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_allclose(decode_audio(form, None, 16000), tone, atol=1e-6)


def test_other_sampling_rates_are_resampled(tone):
    slow = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32) * 0.5
    for audio, sampling_rate in ((wav_bytes(slow, 8000), None), (slow, 8000)):
        resampled = decode_audio(audio, sampling_rate, 16000)
        assert resampled.shape == (16000,)
        np.testing.assert_allclose(resampled[1000:-1000], tone[1000:-1000], atol=1e-3)


@pytest.mark.parametrize("sampling_rate", [16000, 44100])
def test_a_recording_of_minutes_is_read_in_pieces_as_in_one(sampling_rate, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 130 * sampling_rate).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, sampling_rate, subtype="FLOAT")
    blocks = list(decode_blocks(tmp_path / "long.wav", None, 16000))
    assert len(blocks) > 2 and max(map(len, blocks)) <= 61 * 16000
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(noise, sampling_rate, 16000))


def test_a_name_does_not_say_what_is_in_a_file(tone, tmp_path):
    for name in ("tone.raw", "tone.mp3", "tone"):
        (tmp_path / name).write_bytes(wav_bytes(tone, 16000))
        np.testing.assert_allclose(decode_audio(tmp_path / name, None, 16000), tone, atol=1e-6)


def test_coding_without_random_access_is_read(tone):
    gsm = encoded(tone[:8000], 8000, format="WAV", subtype="GSM610")
    assert abs(len(decode_audio(gsm, None, 16000)) - 16000) < 700


def wav_of_size(samples, size, riff_size):
    """A plain wav with other sizes in its header than those that are true."""
    content = bytearray(encoded(samples, format="WAV", subtype="PCM_16"))
    content[4:8], content[40:44] = riff_size.to_bytes(4, "little"), size.to_bytes(4, "little")
    return bytes(content)


def encoded(samples, sampling_rate=16000, **how):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, **how)
    return buffer.getvalue()


def without_length(flac):
    content = bytearray(flac)
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    return bytes(content)


def without_first_frame(mp3):
    """An MP3 whose first frame doesn't say how many follow."""
    start = mp3.index(mp3[:2], 4)
    assert b"Xing" in mp3[:start] or b"Info" in mp3[:start]
    return mp3[start:]


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("riff_size", [8, 36, 0x7FFFF024, 0xFFFFFFFF], ids=hex)
def test_a_size_that_is_left_open_means_the_whole_file(size, riff_size, tone, tmp_path):
    content = wav_of_size(tone, size, riff_size)
    (tmp_path / "a.wav").write_bytes(content)
    for form in (content, tmp_path / "a.wav"):
        np.testing.assert_allclose(decode_audio(form, None, 16000), tone, atol=1e-4)


def test_other_containers_without_a_length_are_read_to_their_end(tone):
    rf64 = bytearray(encoded(tone, format="RF64", subtype="PCM_16"))
    at = rf64.index(b"ds64") + 16
    rf64[at : at + 8] = bytes(8)
    aiff = bytearray(encoded(tone, format="AIFF", subtype="PCM_16"))
    at = aiff.index(b"SSND") + 4
    aiff[at : at + 4] = b"\x7f\0\0\x08"
    for content in (rf64, aiff, without_length(encoded(tone, format="FLAC"))):
        np.testing.assert_allclose(decode_audio(bytes(content), None, 16000), tone, atol=1e-4)


def test_a_wav_of_no_samples_has_none_whatever_follows():
    empty = encoded(np.zeros(0), format="WAV", subtype="PCM_16") + b"LIST\x04\0\0\0INFO"
    assert len(decode_audio(empty, None, 16000)) == 0


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(mode, tmp_path):
    """By its first frame, which is quiet and small, the rest of the file would be of fewer seconds."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * 16000)
    noise[: 4 * 16000] *= 1e-4
    content = encoded(noise, format="MP3", bitrate_mode=mode, compression_level=0.2)
    (tmp_path / "a.mp3").write_bytes(without_first_frame(content))
    for form in (without_first_frame(content), tmp_path / "a.mp3"):
        assert len(decode_audio(form, None, 16000)) == pytest.approx(12 * 16000, abs=3000)
    assert len(decode_audio(content, None, 16000)) == 12 * 16000


class Stream:
    """A source that can only be read once, such as a socket or a pipe."""

    def __init__(self, content, error=None):
        self.file, self.error = io.BytesIO(content), error

    def read(self, size=-1):
        data = self.file.read(min(size, 1000))
        if not data and self.error:
            raise self.error
        return data


def test_a_source_that_cannot_seek_is_read(tone, monkeypatch):
    for how in ({"format": "WAV", "subtype": "GSM610"}, {"format": "FLAC"}):
        content = encoded(tone[:8000], 8000, **how)
        np.testing.assert_array_equal(decode_audio(Stream(content), None, 16000), decode_audio(content, None, 16000))
    with pytest.raises(AudioError, match="can't be read .connection lost.; give"):
        decode_audio(Stream(content, OSError("connection lost")), None, 16000)
    monkeypatch.setattr(audio_rsa_cfn, "STREAM_BYTES", 5000)
    with pytest.raises(AudioError, match="a stream of over"):
        decode_audio(Stream(bytes(6000)), None, 16000)


def test_a_file_that_fails_in_the_middle_is_cut_off(tone, capfd):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 20_000:
                raise OSError("connection lost")
            return super().read(size)

    for how in ({"format": "WAV"}, {"format": "FLAC"}):
        with pytest.raises(AudioError) as error:
            decode_audio(Failing(encoded(np.resize(tone, 160_000), **how)), None, 16000)
        assert error.value.reason == "audio truncated"
    # Callbacks of libsndfile would print what they can't raise.
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_object_is_read_from_its_beginning_whatever_its_name(tone, tmp_path):
    (tmp_path / "x.raw").write_bytes(wav_bytes(tone, 16000))
    for buffering in (0, -1):
        with open(tmp_path / "x.raw", "rb", buffering=buffering) as file:
            file.seek(0, os.SEEK_END)
            np.testing.assert_allclose(decode_audio(file, None, 16000), tone, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.float16, np.float64])
def test_samples_of_any_type_are_the_same_clip(dtype, tone):
    samples = tone
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        full = (limits.max - limits.min + 1) / 2
        samples = np.round(tone.astype(np.float64) * full - (limits.min + full) * -1)
    samples = samples.astype(dtype)
    forms = [samples, torch.from_numpy(samples), {"array": samples, "sampling_rate": 16000}]
    for form in [*forms, {"raw": samples, "sampling_rate": 16000}]:
        np.testing.assert_allclose(decode_audio(form, None, 16000), tone, atol=5e-3)


def test_tensors_that_numpy_does_not_know_are_samples_too(tone):
    for form in (torch.from_numpy(tone).to(torch.bfloat16), torch.from_numpy(tone).requires_grad_()):
        np.testing.assert_allclose(decode_audio(form, None, 16000), tone, atol=5e-3)


@pytest.mark.parametrize(
    "audio, sampling_rate, message",
    [
        ([0, 1000, -1000], None, "samples of int64, whose full scale isn't known; give floats"),
        (np.array(["a"]), None, "samples of <U1"),
        (5, None, "samples of int64"),
        ({"array": np.ones(9), "sampling_rate": None}, None, "sampling_rate=None; give their rate in Hz"),
        ({"raw": np.ones(9)}, None, "sampling_rate=None; give their rate in Hz"),
        (np.ones(9), 0, "sampling_rate=0; give"),
        (np.ones(9), np.nan, "sampling_rate=nan; give"),
        (np.ones(9), "16000", "sampling_rate='16000'; give"),
        ({"bytes": None, "path": None}, None, "no audio is given"),
        ({"file": "a.wav"}, None, "no audio is given"),
        (np.ones(9), 999, r"audio sampling rate below 1000 Hz \(999 Hz\); give a recording at 8000 Hz or more"),
        (wav_bytes(np.ones(9), 500), None, r"audio sampling rate below 1000 Hz \(500 Hz\)"),
        (np.ones(3_600_001), 1000, "audio longer than 60 minutes; give a part of it, or use the pipeline"),
        (np.array([0.1, 1e30]), 16000, "audio holds samples of up to 1e.30; give finite ones"),
    ],
)
def test_what_is_no_clip_is_one_line(audio, sampling_rate, message):
    with pytest.raises(AudioError, match=message) as error:
        decode_audio(audio, sampling_rate, 16000)
    assert "\n" not in str(error.value)


NFC, NFD = "\uac10\uc815", "\u1100\u1161\u11b7\u110c\u1165\u11bc"


@pytest.mark.parametrize(
    "on_disk, asked",
    [
        (f"{NFD}.wav", f"{NFC}.wav"),
        (f"{NFC}.wav", f"{NFD}.wav"),
        (os.fsdecode(f"{NFC}.wav".encode("cp949")), f"{NFC}.wav"),
        (os.fsdecode(f"{NFC}/{NFC} 1.wav".encode("cp949")), f"{NFD}/{NFC} 1.wav"),
        (f"{NFD}/a.wav", f"{NFC}/a.wav"),
    ],
)
def test_a_name_is_found_in_its_other_spelling(on_disk, asked, tone, tmp_path):
    (tmp_path / on_disk).parent.mkdir(exist_ok=True)
    (tmp_path / on_disk).write_bytes(wav_bytes(tone, 16000))
    assert len(decode_audio(tmp_path / asked, None, 16000)) == 16000
    with pytest.raises(AudioError, match="b.wav isn't there"):
        decode_audio(tmp_path / asked.replace(".wav", "b.wav"), None, 16000)


def test_a_reason_can_be_printed_whatever_the_name():
    for name in ("\udcb0\udca1.wav", "\ud83d.wav", "two\nlines.wav", "nul\0.wav", "\x1b[31m.wav", "long" * 2000):
        with pytest.raises(AudioError) as error:
            decode_audio(name, None, 16000)
        assert str(error.value).isprintable()


UNUSABLE = {
    "nothing": (b"", "audio empty"),
    "words": (b"no sound in here " * 100, "audio format not supported (convert with ffmpeg)"),
    "NaN": (wav_bytes(np.array([0.1, np.nan]), 16000), "audio not finite"),
    "infinity at another rate": (wav_bytes(np.array([0.1, -np.inf] * 50), 8000), "audio not finite"),
    "rotten flac": (None, "audio truncated"),
}


@pytest.fixture(params=UNUSABLE)
def unusable(request, tone):
    content, reason = UNUSABLE[request.param]
    if content is None:
        content = encoded(np.resize(tone, 160_000), format="FLAC")[:20_000]
    return content, reason


def test_every_damage_has_one_reason_whatever_the_form(unusable, tmp_path):
    content, reason = unusable
    (tmp_path / "a.wav").write_bytes(content)
    for form in (content, io.BytesIO(content), tmp_path / "a.wav", {"bytes": content, "path": None}):
        with pytest.raises(AudioError) as error:
            decode_audio(form, None, 16000)
        assert error.value.reason == reason and "; give" in str(error.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    reasons = {
        "pipe.wav": ("audio unreadable", "pipe.wav is no file"),
        "folder.wav": ("audio unreadable", "folder.wav is a folder"),
        "nowhere.wav": ("audio missing", f"{tmp_path}/nowhere.wav isn't there"),
    }
    for name, (reason, message) in reasons.items():
        with pytest.raises(AudioError, match=f"audio can't be read .*{message}.*; give") as error:
            decode_audio(str(tmp_path / name), None, 16000)
        assert error.value.reason == reason


def test_a_limit_holds_for_the_header_and_for_what_is_read(tone, monkeypatch):
    monkeypatch.setattr(audio_rsa_cfn, "SAMPLES_PER_BLOCK", 1000)
    with pytest.raises(AudioError, match="audio longer than 0.01 minutes"):
        Recording(wav_bytes(tone, 16000), max_seconds=0.6)
    with Recording(without_length(encoded(tone, format="FLAC")), max_seconds=0.6) as recording:
        with pytest.raises(AudioError, match="audio longer than 0.01 minutes"):
            list(recording.blocks())


def test_channels_are_mixed_and_the_peak_is_that_of_the_loudest(tone):
    with Recording(wav_bytes(np.stack([tone, 3 * tone], axis=1), 16000)) as recording:
        (block,) = [block for block in recording.waveform(16000) if len(block)]
    np.testing.assert_allclose(block, 2 * tone, atol=1e-6)
    assert recording.peak == pytest.approx(1.5, abs=1e-3) and recording.frames_read == 16000


def test_files_are_closed_except_those_that_were_given_open(tone, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(tone, 16000))
    (tmp_path / "b.wav").write_bytes(b"words")
    before = len(os.listdir("/proc/self/fd"))
    decode_audio(tmp_path / "a.wav", None, 16000)
    with pytest.raises(AudioError):
        decode_audio(tmp_path / "b.wav", None, 16000)
    next(decode_blocks(tmp_path / "a.wav", None, 16000))
    assert len(os.listdir("/proc/self/fd")) == before
    with open(tmp_path / "a.wav", "rb") as file:
        decode_audio(file, None, 16000)
        assert not file.closed


def test_it_needs_nothing_that_a_checkpoint_has_not():
    with open(audio_rsa_cfn.__file__, encoding="utf-8") as file:
        nodes = list(ast.walk(ast.parse(file.read())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"numpy", "soundfile", "soxr"}
