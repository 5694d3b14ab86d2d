"""Opens a recording to see how long it is, or why it can't be used."""

import numpy as np

from audio_rsa_cfn import EMPTY, AudioError, Recording, find_sound


def measure(audio, read_all: bool = False) -> float | str:
    """Seconds of a clip, or in words why it can't be used; by its header, unless `read_all` or samples can be NaN."""
    sound, sampling_rate = find_sound(audio)
    if sampling_rate is not None:
        samples = np.asarray(sound, dtype=np.float32)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            return "audio not finite, empty, or of several channels"
        return len(samples) / sampling_rate
    if sound is None:
        return "no audio"
    if not isinstance(sound, (str, bytes)):
        return "audio neither a file nor samples with a sampling rate"
    try:
        with Recording(sound) as recording:
            if not recording.sound.frames:
                return EMPTY
            if read_all or recording.sound.subtype in ("FLOAT", "DOUBLE"):
                for _ in recording.blocks():
                    pass
            return recording.sound.frames / recording.sound.samplerate
    except AudioError as error:
        return error.reason
