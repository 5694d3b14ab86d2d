"""Opens a recording to see how long it is, or why it can't be used."""

import audio_rsa_cfn as reading


def measure(audio) -> float | str:
    """Seconds of a clip, or in words why it can't be used. What is compressed is decoded for it: its header would say
    nothing of a damage."""
    try:
        sound, sampling_rate = reading.find_sound(audio)
        if not reading.is_encoded(sound):
            samples = reading.read_samples(sound)
            reading.find_peak(samples)
            return len(samples) / reading.check_rate(sampling_rate) or reading.EMPTY
        with reading.Recording(sound, reading.MAX_SECONDS) as recording:
            frames = recording.promised if recording.is_plain else sum(map(len, recording.blocks()))
            return frames / recording.sound.samplerate or reading.EMPTY
    except reading.AudioError as error:
        return error.reason
