"""The look at recordings before training: whatever would end it later is told, and nothing that is whole."""

import io

import numpy as np
import pytest
import soundfile

from training.recordings import measure


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)


def encoded(samples=NOISE, rate=16000, **how):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("how", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "OGG"}, {"format": "MP3"}], ids=str)
def test_what_breaks_off_is_told_before_it_trains(how, tmp_path):
    content = encoded(**how)
    assert measure({"bytes": content, "path": None}) == 2
    path = tmp_path / "a.raw"
    path.write_bytes(content[: len(content) // 2])
    assert measure({"bytes": None, "path": str(path)}) == measure(path.read_bytes()) == "audio truncated"


def test_a_flac_that_is_rotten_in_the_middle_is_told():
    content = bytearray(encoded(format="FLAC"))
    content[len(content) // 2] ^= 0xFF
    assert measure(bytes(content)) == "audio truncated"


@pytest.mark.parametrize(
    "audio, outcome",
    [
        ({"array": NOISE.tolist(), "sampling_rate": 16000}, 2.0),
        ({"array": NOISE.tolist(), "sampling_rate": None}, "audio without a sampling rate"),
        (NOISE, "audio without a sampling rate"),
        ({"array": [np.nan], "sampling_rate": 16000}, "audio not finite"),
        ({"array": [[0.1, 0.2], [0.3, 0.4]], "sampling_rate": 16000}, "audio unreadable"),
        ({"array": [], "sampling_rate": 16000}, "audio empty"),
        (encoded(NOISE[:0], format="WAV"), "audio empty"),
        ({"bytes": None, "path": "nowhere.wav"}, "audio missing"),
        ({"bytes": None, "path": None}, "no audio"),
        (None, "no audio"),
        (encoded(np.array([0.1, np.inf]), format="WAV", subtype="FLOAT"), "audio not finite"),
        (b"words " * 100, "audio format not supported (convert with ffmpeg)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,  # a wav holds the second it was made
)
def test_each_recording_has_a_length_or_one_reason(audio, outcome):
    assert measure(audio) == outcome
