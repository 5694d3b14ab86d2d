"""Opens a recording to see how long it is, or why it can't be used."""

import io

import numpy as np
import soundfile


def measure(audio, read_all: bool = False) -> float | str:
    """
    Seconds of a clip, or in a few words why it can't be used.

    Args:
        audio: A row of a `datasets` Audio column that isn't decoded, a path, or encoded bytes.
        read_all (`bool`): Decode it too; otherwise the header will do, but for samples that can be NaN.
    """
    if isinstance(audio, dict) and audio.get("array") is not None:
        samples = np.asarray(audio["array"], dtype=np.float32)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            return "audio not finite, empty, or of several channels"
        return len(samples) / audio["sampling_rate"]
    if isinstance(audio, dict):
        audio = audio["path"] if audio.get("bytes") is None else audio["bytes"]
    if audio is None:
        return "no audio"
    if not isinstance(audio, (str, bytes)):
        return "audio neither a file nor samples with a sampling rate"
    try:
        with soundfile.SoundFile(io.BytesIO(audio) if isinstance(audio, bytes) else audio) as recording:
            if not recording.frames:
                return "audio empty"
            if read_all or recording.subtype in ("FLOAT", "DOUBLE"):
                if not np.isfinite(recording.read(dtype="float32")).all():
                    return "audio not finite"
            return recording.frames / recording.samplerate
    except (soundfile.LibsndfileError, OSError):
        return "audio unreadable"
