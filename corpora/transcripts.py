"""Transcripts of KEMDy: the bytes of a .txt → one line of text → the words without the transcribers' marks."""

import re


HANGUL = re.compile("[\uac00-\ud7a3]")
# Only letters that stand alone before the slash are tags: the lookbehind spares words such as "cc/".
TAG = re.compile(r"(?<![A-Za-z])[cnNulb]/")
MARKS = str.maketrans("", "", "*+/")


def decode_transcript(content: bytes, repairs: list[str], encoding: str = "cp949") -> str:
    """The transcript on one line, without blanks around it; what had to be mended is added to `repairs`.

    `encoding` is `"cp949"` (KEMDy20) or `"utf-8"` (KEMDy19); a file in the other one is understood and told.
    """
    text = _decode(content, repairs, encoding).strip().strip("\ufeff\0").strip()
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    if len(lines) > 1:
        repairs.append("lines of the transcript joined")
    return " ".join(lines)


def _decode(content: bytes, repairs: list[str], encoding: str) -> str:
    # Hangul in cp949 that happens to be valid utf-8 never reads as Hangul syllables, so finding some settles it.
    try:
        text = content.decode("utf-8")
        if encoding == "utf-8":
            return text
        if HANGUL.search(text):
            repairs.append("transcript read as utf-8")
            return text
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode("cp949")
        if encoding == "utf-8":
            repairs.append("transcript read as cp949")
        return text
    except UnicodeDecodeError:
        repairs.append("undecodable bytes replaced")
        return content.decode(encoding, errors="replace")


def remove_tags(raw_text: str) -> str:
    """The words of a transcript: without noise tags ("n/", "b/" ...) and marks of doubt, stutter and filler."""
    return " ".join(TAG.sub("", raw_text).translate(MARKS).split())
