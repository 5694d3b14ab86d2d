"""Opens a recording to see how long it is, or why it can't be used."""

from audio_rsa_cfn import (
    EMPTY,
    MAX_SECONDS,
    AudioError,
    Recording,
    check_rate,
    find_peak,
    find_sound,
    is_encoded,
    read_samples,
)


def measure(audio) -> float | str:
    """Seconds of a clip, or in words why it can't be used. What is compressed is decoded for it: its header would say
    nothing of a damage."""
    try:
        sound, sampling_rate = find_sound(audio)
        if not is_encoded(sound):
            samples = read_samples(sound)
            find_peak(samples)
            return len(samples) / check_rate(sampling_rate) or EMPTY
        with Recording(sound, MAX_SECONDS) as recording:
            frames = recording.promised if recording.is_plain else sum(map(len, recording.blocks()))
            return frames / recording.sound.samplerate or EMPTY
    except AudioError as error:
        return error.reason
