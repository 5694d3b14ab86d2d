"""What the app shows of a recording and its transcript: probabilities, the same with either withheld, and a picture."""

import io
import threading
from contextlib import suppress
from dataclasses import dataclass, replace

from PIL import Image

from explain import draw_explanation, explain
from processing_rsa_cfn import RsaCfnPipeline
from training.transcription import Transcriber


KOREAN = {
    "neutral": "중립",
    "happy": "기쁨",
    "angry": "분노",
    "surprise": "놀람",
    "sad": "슬픔",
    "fear": "공포",
    "disgust": "혐오",
}
DPI = 130


def in_korean(label: str) -> str:
    """`"happy"` → `"기쁨 happy"`; a label that isn't one of KEMDy20's stays as it is."""
    return f"{KOREAN[label]} {label}" if label in KOREAN else label


@dataclass
class Answer:
    """What a model makes of an utterance."""

    # Of each emotion, the most probable first: under "all" with everything that was given, and where both were given
    # under "audio" and "text" without that one.
    probabilities: dict[str, dict[str, float]]
    picture: Image.Image
    # Seconds that the picture explains, where that isn't the whole recording.
    explained: tuple[float, float] | None


class Recognizer:
    """A model and its processor for many visitors: threads may share it, and take turns."""

    def __init__(self, model, processor, transcriber: Transcriber | None = None):
        self.pipe = RsaCfnPipeline(model, processor, device=model.device)
        self.transcriber = transcriber
        # An explanation hooks into the model, where another thread's forward would find it.
        self._turn = threading.Lock()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model reads, of `"audio"` and `"text"`."""
        return self.pipe.model.fusion.modalities

    def __call__(self, audio: str | None, text: str | None) -> Answer:
        """What the model makes of a recording of any length and its transcript; one without words is none.

        Raises `ValueError` where nothing is given that the model reads, or the recording can't be read or is silent.
        """
        given = {
            name: value
            for name, value in (("audio", audio), ("text", text))
            if value is not None and value.strip() and name in self.modalities
        }
        if not given:
            wanted = {"audio": "a recording", "text": "a transcript"}
            raise ValueError(f"nothing is given; give {' or '.join(wanted[name] for name in self.modalities)}.")
        shown = {"all": given}
        if len(given) == 2:
            shown |= {"audio": {"text": text}, "text": {"audio": audio}}
        with self._turn:
            probabilities = {
                name: {in_korean(entry["label"]): entry["score"] for entry in self.pipe(inputs)}
                for name, inputs in shown.items()
            }
            picture, explained = self._explain(given)
        return Answer(probabilities, picture, explained)

    def transcribe(self, audio: str) -> str | None:
        """The words of a recording; None where the recogniser can make nothing of it."""
        with self._turn, suppress(ValueError):
            return self.transcriber(audio)

    def _explain(self, given: dict[str, str]) -> tuple[Image.Image, tuple[float, float] | None]:
        processor = self.pipe.processor
        explanation = explain(self.pipe.model, processor, **given)
        explained = None
        seconds = len(explanation.waveform) / explanation.sampling_rate
        # Only a longer recording is cut, and then to this length.
        if seconds and seconds >= processor.max_audio_seconds:
            explained = (explanation.start, explanation.start + seconds)
        labels = [in_korean(label) for label in explanation.labels]
        figure = draw_explanation(replace(explanation, labels=labels, target=in_korean(explanation.target)))
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
        return Image.open(drawn), explained
