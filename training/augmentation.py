"""Changes of a clip that leave its emotion as it is: drawn in training, or fixed where a model's robustness is scored.

What is drawn is drawn by torch's random state, which in training depends on seed, epoch and rows alone."""

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr
import torch
import xxhash
from torch.nn.functional import one_hot

from audio_rsa_cfn import SAMPLING_RATE


BAND = (300, 3400)  # of a telephone, in Hz
MU = 255  # of its 8 bits (ITU-T G.711)


def change_speed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faster and higher, or slower and lower, by up to a tenth (Ko et al. 2015)."""
    return soxr.resample(waveform, rng.uniform(0.9, 1.1) * SAMPLING_RATE, SAMPLING_RATE)


def change_gain(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Louder or softer, by up to 10 dB."""
    return waveform * 10 ** (rng.uniform(-10, 10) / 20)


def add_noise(waveform: np.ndarray, rng: np.random.Generator, decibels: float | None = None) -> np.ndarray:
    """White or pink noise, which has the same power in each octave, at a signal-to-noise ratio of 5 to 30 dB or one
    given."""
    decibels = rng.uniform(5, 30) if decibels is None else decibels
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    if rng.random() < 0.5:
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum, len(waveform))
    power = np.mean(waveform**2) / max(np.mean(noise**2), 1e-12)
    return waveform + noise * np.sqrt(power * 10 ** (-decibels / 10))


def add_reverberation(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room whose echo, noise that falls by 60 dB in .1 to .6 seconds, is up to 10 dB softer than the voice."""
    time = np.arange(int(rng.uniform(0.1, 0.6) * SAMPLING_RATE))
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / len(time))
    echo *= 10 ** (rng.uniform(-10, 0) / 20) / np.linalg.norm(echo)
    echo[0] = 1
    size = 1 << (len(waveform) + len(echo) - 2).bit_length()
    return np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(echo, size), size)[: len(waveform)]


def pass_telephone(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The band of a telephone and its 8 bits."""
    spectrum = np.fft.rfft(waveform)
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLING_RATE)
    spectrum[(hertz < BAND[0]) | (hertz > BAND[1])] = 0
    narrow = np.fft.irfft(spectrum, len(waveform))
    peak = max(np.abs(narrow).max(), 1e-12)
    compressed = np.sign(narrow) * np.log1p(MU * np.abs(narrow) / peak) / np.log1p(MU)
    compressed = np.rint(compressed * 127) / 127
    return np.sign(compressed) * np.expm1(np.abs(compressed) * np.log1p(MU)) / MU * peak


CHANGES: dict[str, Callable] = {
    "speed": change_speed,
    "gain": change_gain,
    "noise": add_noise,
    "reverberation": add_reverberation,
    "telephone": pass_telephone,
}


def under(condition: str, waveform: np.ndarray) -> np.ndarray:
    """A clip `(T,)` on the telephone or, such as `"noise20"`, in noise, which depends on the clip alone."""
    rng = np.random.default_rng(xxhash.xxh3_64_intdigest(waveform.tobytes()))
    name, decibels = condition.rstrip("0123456789"), condition.lstrip(string.ascii_letters)
    options = {"decibels": int(decibels)} if decibels else {}
    return CHANGES[name](waveform, rng, **options).astype(np.float32)


@dataclass
class Augmentation:
    """Changes the rows of a training batch and their labels, each way by itself with `probability`."""

    names: list[str]  # as --augment has them
    probability: float
    num_labels: int

    def __call__(self, rows: list[dict], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Change the waveforms of rows in place; their labels `(B,)` or shares `(B, C)` → those they have now, and for
        mixup `mixing` of their features."""
        rng = np.random.default_rng(torch.randint(2**62, ()).item())
        for row in [row for row in rows if "audio" in row]:
            for name in [name for name in CHANGES if name in self.names]:
                if rng.random() < self.probability:
                    row["audio"] = CHANGES[name](row["audio"], rng).astype(np.float32)
        if "raters" in self.names and labels.ndim == 2:
            for place, row in enumerate(rows):
                votes = np.array(row.get("votes") or [0])
                left = rng.binomial(votes, 0.5)  # half of the raters, drawn anew
                if rng.random() < self.probability and left.sum():
                    labels[place] = torch.from_numpy(left / left.sum())
        if labels.ndim == 1 and {"mix", "mixup"} & {*self.names}:
            labels = one_hot(labels, self.num_labels).float()
        if "mix" in self.names and "audio" in rows[0]:
            labels = self._mix(rows, rng) @ labels
        if "mixup" not in self.names:
            return {"labels": labels}
        mixing = self._draw_mixing(len(rows), rng)
        return {"labels": mixing @ labels, "mixing": mixing}

    def _draw_mixing(self, number: int, rng: np.random.Generator) -> torch.Tensor:
        """`(B, B)`: of what a row becomes, the shares of each row: its own, and at the most half of another."""
        mixing, order = torch.eye(number), rng.permutation(number)
        for place, other in zip(order, np.roll(order, 1)):
            if place != other and rng.random() < self.probability:
                mixing[place, place] = share = rng.uniform(0.5, 1)
                mixing[place, other] = 1 - share
        return mixing

    def _mix(self, rows: list[dict], rng: np.random.Generator) -> torch.Tensor:
        """Add to a clip another of the batch, made as loud; the shares of both, as drawn."""
        waveforms, mixing = [row["audio"] for row in rows], self._draw_mixing(len(rows), rng)
        for place, other in (mixing - mixing.diag().diag()).nonzero().tolist():
            share, own = mixing[place, place].item(), waveforms[place]
            added = np.resize(waveforms[other], len(own))
            added = added * np.sqrt(np.mean(own**2) / max(np.mean(added**2), 1e-12))
            rows[place]["audio"] = (share * own + (1 - share) * added).astype(np.float32)
        return mixing
