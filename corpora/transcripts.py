"""Transcripts beside recordings: the bytes of a .txt → one line of text → the words without KEMDy's marks."""

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

from corpora.values import one_line
from foundation.files import MIB, read_regular


MAX_TRANSCRIPT_BYTES = MIB
TRANSCRIPT_TOO_LARGE = "transcript larger than 1 MiB"
# Only letters that stand alone before the slash are tags: the lookbehind spares words such as "cc/".
TAG = re.compile(r"(?<![A-Za-z])[cnNulb]/")
MARKS = str.maketrans("", "", "*+/")


def read_transcripts(recordings: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """The transcripts of recordings with a .txt of the same name beside them, and why others can't be read."""
    contents, problems = {}, {}
    for path in recordings:
        try:
            contents[path] = read_regular(path.with_suffix(".txt"), MAX_TRANSCRIPT_BYTES)
        except FileNotFoundError:
            pass
        except OSError as error:
            problems[path] = f"transcript can't be read ({error.strerror})"
    # Each file is told by itself; but a few short words of cp949 are valid utf-8, so that others have to tell.
    others = [content for content in contents.values() if not content.isascii()]
    in_utf8 = [content.decode("utf-8", "ignore").encode() == content for content in others]
    encoding = "utf-8" if sum(in_utf8) > len(in_utf8) / 2 else "cp949"
    return {path: decode_transcript(content, [], encoding) for path, content in contents.items()}, problems


def decode_transcript(content: bytes, repairs: list[str], encoding: str = "cp949") -> str:
    """The transcript on one line, without blanks around it; what had to be mended is added to `repairs`. `encoding` is
    `"cp949"` (KEMDy20) or `"utf-8"` (KEMDy19); a file in the other one is understood and told."""
    text = _decode(content, repairs, encoding).strip().strip("\ufeff\0").strip()
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    if len(lines) > 1:
        repairs.append("lines of the transcript joined")
    return one_line(" ".join(lines))


def _decode(content: bytes, repairs: list[str], encoding: str) -> str:
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        repairs.append("transcript read as utf-16")
        return content.decode("utf-16", errors="replace")
    # Hangul in cp949 that happens to be valid utf-8 reads as letters of two bytes, never as one of East Asia.
    try:
        text = content.decode("utf-8")
        if encoding == "utf-8":
            return text
        if max(text, default="") >= "\u0800":
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
