"""The page of the app, in Korean and English. It asks nothing of other hosts: no analytics, no fonts from elsewhere."""

import logging
import os
from functools import partial
from html import escape


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np

from demo.examples import Example
from demo.recognizer import MAX_LETTERS, MAX_SECONDS, Answer, Recognizer, in_korean
from foundation.words import escape_markdown, writable


logger = logging.getLogger(__name__)

TITLE = "RSA-CFN · 말소리와 글의 감정 Emotion in speech and transcript"
ABOUT = f"""
말소리({MAX_SECONDS // 60}분까지)를 녹음하거나 올리고 받아쓴 글({MAX_LETTERS:,}자까지)을 적으세요.
둘 중 하나만 있어도 됩니다.<br>
Record or upload speech (up to {MAX_SECONDS // 60} minutes) and type what was said (up to {MAX_LETTERS:,} letters); one
of the two is enough.

모델 Model: {{model}} · 언어 Language: {{languages}}
"""
ABOUT_EXAMPLES = """
예시는 데모 말뭉치의 합성음입니다. 이 말뭉치로 학습한 모델은 실제 감정에 대해 아무것도 말해 주지 않습니다.<br>
The examples are synthetic speech of the demo corpus, and this model, which is trained on it, says nothing about real
emotion.
"""
LANGUAGES = {"ko": "한국어 Korean", "en": "영어 English"}
SHOWN = {
    "all": "결과 Result",
    "text": "글 없이 Without the transcript",
    "audio": "말소리 없이 Without the speech",
}
FONTS = ["system-ui", "Noto Sans CJK KR", "NanumGothic", "sans-serif"]
# Visitors' recordings, and pictures of them, are deleted after an hour.
KEPT_SECONDS = 3600
MAX_FILE_SIZE = "100mb"
# Who comes when so many wait is told so, and may come again.
MAX_WAITING = 200


def build_interface(recognizer: Recognizer, examples: list[Example], model: str, languages: str | list) -> gr.Blocks:
    """The page, which shows the inputs that the model reads; `languages` are codes, such as "ko"."""
    with gr.Blocks(title=TITLE, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as interface:
        gr.Markdown(_about(model, languages, bool(examples)))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                # A model of text alone still has a use for speech that can be transcribed.
                has_audio = "audio" in recognizer.modalities or recognizer.transcriber is not None
                audio = gr.Audio(label="말소리 Speech", type="filepath", editable=False, buttons=[], visible=has_audio)
                text = gr.Textbox(
                    label="받아쓴 글 Transcript",
                    lines=2,
                    max_length=MAX_LETTERS,
                    visible="text" in recognizer.modalities,
                )
                if recognizer.transcriber is not None:
                    transcribe = gr.Button("받아쓰기 Transcribe", size="sm")
                    transcribe.click(lambda audio: _transcribe(recognizer, audio), audio, text)
                button = gr.Button("감정 보기 Recognise", variant="primary", elem_id="recognise")
                shelf = gr.Column()
            with gr.Column(scale=5):
                note = gr.Markdown(visible=False, latex_delimiters=[], elem_id="note")
                shown = {"show_label": False, "format": "png", "interactive": False, "buttons": ["download"]}
                bars = {"num_top_classes": len(recognizer.labels)}
                with gr.Row():
                    labels = [gr.Label(label=SHOWN["all"], elem_id="without-all", **bars)]
                    picture = gr.Image(elem_id="explanation", scale=2, min_width=320, **shown)
                timeline = gr.Image(visible=False, elem_id="timeline", **shown)
                with gr.Row():
                    for name in ("text", "audio"):
                        labels.append(gr.Label(label=SHOWN[name], visible=False, elem_id=f"without-{name}", **bars))
        inputs, outputs = [audio, text], [*labels, picture, timeline, note]

        recognise = partial(_show, recognizer)
        button.click(recognise, inputs, outputs, api_name="recognise", scroll_to_output=True)
        if examples:
            with shelf:
                gr.Examples(
                    [[str(example.audio), example.text] for example in examples],
                    inputs,
                    outputs,
                    recognise,
                    cache_examples=False,
                    run_on_click=True,
                    label="예시 Examples",
                    example_labels=[f"{in_korean(example.label)}: {example.text}" for example in examples],
                )
    return interface


def _about(model: str, languages: str | list, has_examples: bool) -> str:
    languages = ", ".join(LANGUAGES.get(code, code) for code in np.atleast_1d(languages)) or "알 수 없음 unknown"
    named = ABOUT.format(model=escape_markdown(writable(model)), languages=languages)
    return f"# {TITLE}\n{named}{ABOUT_EXAMPLES * has_examples}"


def launch(interface: gr.Blocks) -> None:
    """Serve the page until the process ends; `GRADIO_SERVER_NAME` and `_PORT` say where."""
    interface.queue(max_size=MAX_WAITING, default_concurrency_limit=1).launch(
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
        ssr_mode=False,
        max_file_size=MAX_FILE_SIZE,
    )


def _show(recognizer: Recognizer, audio: str | None, text: str | None) -> list:
    """The outputs; for what can't be used they are empty, and the reason stands above them."""
    try:
        answer = recognizer(audio, text)
    except Exception as error:
        sentence = _refuse(error)
        labels = [gr.Label(None, visible=name == "all") for name in SHOWN]
        return [*labels, None, gr.Image(None, visible=False), gr.Markdown(sentence, visible=True)]
    labels = [gr.Label(answer.probabilities.get(name), visible=name in answer.probabilities) for name in SHOWN]
    timeline = gr.Image(answer.timeline, visible=answer.timeline is not None)
    return [*labels, answer.picture, timeline, _note(answer)]


def _note(answer: Answer) -> gr.Markdown:
    lines = [", ".join(f"{escape_markdown(name)} {value:.2f}" for name, value in answer.attributes.items())]
    if answer.explained is not None:
        start, end = answer.explained
        lines.append(
            f"확률은 녹음 전체의 평균이고, 그림은 {start:.1f}–{end:.1f}초를 설명합니다. "
            "The probabilities are the mean over the whole recording; the picture explains "
            f"seconds {start:.1f} to {end:.1f}."
        )
    return gr.Markdown("\n\n".join(filter(None, lines)), visible=any(lines))


def _transcribe(recognizer: Recognizer, audio: str | None) -> str:
    try:
        words = None if audio is None else recognizer.transcribe(audio)
        if not words:
            raise ValueError("the recogniser can make nothing of that; give a recording with speech.")
    except Exception as error:
        _refuse(error)
        return ""
    return words


def _refuse(error: Exception) -> str:
    """Show the reason beside the page, as a sentence; and give it as Markdown."""
    reason = writable(str(error))
    if not isinstance(error, ValueError):
        logger.error("An answer failed", exc_info=error)
        reason = f"this can't be answered ({type(error).__name__}: {reason}); give another recording or text."
    sentence = reason[:1].upper() + reason[1:]
    gr.Warning(escape(sentence))
    return escape_markdown(sentence)
