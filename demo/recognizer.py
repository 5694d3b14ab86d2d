"""What the app shows of a recording and its transcript: probabilities, the same with either withheld, and a picture."""

import io
import threading
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from audio_rsa_cfn import decode_audio
from explain import draw_explanation, explain
from explain.timeline import draw_timeline
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
NARROW = 4.6  # inches: a phone shows a timeline with writing of 9 pixels
# What a visitor may give: whoever waits behind waits no longer than for this. An utterance is of seconds.
MAX_SECONDS, MAX_LETTERS = 120, 5000


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
    timeline: Image.Image | None  # of a recording of several windows
    # Seconds that the picture explains, where that isn't the whole recording.
    explained: tuple[float, float] | None
    attributes: dict[str, float]  # what the model tells beside the emotions, if anything


class Recognizer:
    """A model and its processor for many visitors: threads may share it, and take turns."""

    def __init__(self, model, processor, transcriber: Transcriber | None = None):
        self.labels = [in_korean(label) for label in model.config.id2label.values()]
        model.config.id2label = dict(enumerate(self.labels))
        self.pipe = RsaCfnPipeline(model, processor, device=model.device)
        self.transcriber = transcriber
        # An explanation hooks into the model, where another thread's forward would find it.
        self._turn = threading.Lock()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the model reads, of `"audio"` and `"text"`."""
        return self.pipe.model.fusion.modalities

    def __call__(self, audio: str | None, text: str | None) -> Answer:
        """What the model makes of a recording and its transcript; one without words is none.

        Raises `ValueError` where nothing is given that the model reads, or more than the limits; the recording can't
        be read or is silent; or the model's outputs aren't finite.
        """
        given = {
            name: value
            for name, value in (("audio", audio), ("text", text))
            if value is not None and value.strip() and name in self.modalities
        }
        if not given:
            wanted = {"audio": "a recording", "text": "a transcript"}
            raise ValueError(f"nothing is given; give {' or '.join(wanted[name] for name in self.modalities)}.")
        if len(given.get("text", "")) > MAX_LETTERS:
            raise ValueError(f"the text has {len(text):,} letters; give at most {MAX_LETTERS:,}.")
        if "audio" in given:
            given["audio"] = self._read(audio)
        shown = {"all": given}
        if len(given) == 2:
            shown |= {"audio": {"text": given["text"]}, "text": {"audio": given["audio"]}}
        with self._turn:
            options = {"return_attributes": True, "return_windows": True}
            answers = {name: self.pipe(inputs, **options) for name, inputs in shown.items()}
            picture, explained = self._explain(given)
        windows = answers["all"]["windows"]
        timeline = None
        if len(windows) > 1:
            timeline = _image(draw_timeline(windows, self.labels, "시간에 따라 Over time", NARROW))
        probabilities = {
            name: {entry["label"]: entry["score"] for entry in answer["scores"]} for name, answer in answers.items()
        }
        return Answer(probabilities, picture, timeline, explained, answers["all"]["attributes"])

    def transcribe(self, audio: str) -> str | None:
        """The words of a recording; None where the recogniser can make nothing of it. Raises as a call does."""
        recording = self._read(audio)
        with self._turn:
            return self.transcriber(recording)[0]

    def _read(self, audio: str) -> dict:
        """The samples of a file, which is read no further than `MAX_SECONDS`, whatever its header says."""
        rate = self.pipe.processor.feature_extractor.sampling_rate
        return {"array": decode_audio(audio, None, rate, MAX_SECONDS), "sampling_rate": rate}

    def _explain(self, given: dict) -> tuple[Image.Image, tuple[float, float] | None]:
        processor = self.pipe.processor
        explanation = explain(self.pipe.model, processor, **given)
        explained = None
        seconds = len(explanation.waveform) / explanation.sampling_rate
        # Only a longer recording is cut, and then to this length.
        if seconds and seconds >= processor.max_audio_seconds:
            explained = (explanation.start, explanation.start + seconds)
        return _image(draw_explanation(explanation, with_probabilities=False)), explained


def _image(figure: Figure) -> Image.Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, facecolor="white")
    return Image.open(drawn)
