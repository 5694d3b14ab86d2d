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
    gsm = io.BytesIO()
    soundfile.write(gsm, tone[:8000], 8000, format="WAV", subtype="GSM610")
    assert abs(len(decode_audio(gsm.getvalue(), None, 16000)) - 16000) < 700


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
        flac = io.BytesIO()
        soundfile.write(flac, np.resize(tone, 160_000), 16000, format="FLAC")
        content = flac.getvalue()[:20_000]
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
    reasons = {"pipe.wav": "audio unreadable", "folder.wav": "audio unreadable", "nowhere.wav": "audio missing"}
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match="audio can't be read .*; give a file that soundfile decodes") as error:
            decode_audio(str(tmp_path / name), None, 16000)
        assert error.value.reason == reason


def test_a_limit_holds_for_the_header_and_for_what_is_read(tone, monkeypatch):
    monkeypatch.setattr(audio_rsa_cfn, "SAMPLES_PER_BLOCK", 1000)
    with pytest.raises(AudioError, match="audio longer than 0.01 minutes"):
        Recording(wav_bytes(tone, 16000), max_seconds=0.6)
    flac = io.BytesIO()
    soundfile.write(flac, tone, 16000, format="FLAC")
    content = bytearray(flac.getvalue())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # the length is left open
    with Recording(bytes(content), max_seconds=0.6) as recording:
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
