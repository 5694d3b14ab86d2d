"""Recordings and tables that chance has damaged: every door says the same of a recording, rows that are still whole
come back as they are, and nothing but a reason is raised."""

import csv
import io
import json
import os
import random
import shutil
import signal
import struct

import numpy as np
import pytest
import soundfile
from datasets import disable_progress_bars, load_from_disk

from audio_rsa_cfn import EMPTY, SILENT, TOO_LONG, AudioError, decode_audio
from corpora.demo import write_corpus
from corpora.recordings import read_recording
from corpora.rows import UnusableRow
from foundation.errors import InputError
from prepare_dataset import main
from processing_rsa_cfn import RsaCfnPipeline
from training.prediction import read_rows
from training.recordings import measure


pytestmark = pytest.mark.slow

NUMBER = int(os.environ.get("RSA_CFN_MUTATIONS", 500))
CODINGS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "GSM610"),
    ("RF64", "PCM_24"),
    ("W64", "PCM_16"),
    ("AU", "ULAW"),
]
CODINGS += [("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
SIZES = (0, 1, 2**16, 0x7FFFF000, 2**31 - 1, 2**32 - 1)


def mutate(chance: random.Random, content: bytes, pieces: list[bytes]) -> bytes:
    """One to three changes: bits turned, a part lost, other bytes or one of `pieces` in between, an extreme number."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = chance.randrange(len(content) + 1)
        kind = chance.choice(("turn", "cut", "lose", "insert", "piece", "number"))
        if kind == "turn" and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del content[place:]
        elif kind == "lose":
            del content[place : place + chance.choice((1, 2, 50, 4000))]
        elif kind == "insert":
            content[place:place] = chance.randbytes(chance.choice((1, 3, 100)))
        elif kind == "piece":
            content[place:place] = chance.choice(pieces)
        elif len(content) > 100:
            place = 4 * chance.randrange(20)
            content[place : place + 4] = struct.pack(chance.choice("<>") + "I", chance.choice(SIZES))
    return bytes(content)


def verdict(read, source) -> str | None:
    """The reason why a recording can't be used, or None; any other exception is none of a few reasons."""
    try:
        seconds = read(source)
    except AudioError as error:
        return error.reason
    except UnusableRow as error:
        return str(error)
    return seconds if isinstance(seconds, str) else None


def test_every_door_says_the_same_of_a_damaged_recording(make_model, processor, tmp_path):
    pipe = RsaCfnPipeline(make_model(fusion="audio"), processor, device="cpu")
    chance, tone = random.Random(0), 0.3 * np.sin(np.arange(8000) / 20)
    recordings = []
    for container, coding in CODINGS:
        buffer = io.BytesIO()
        soundfile.write(buffer, tone, 16000 if coding != "GSM610" else 8000, format=container, subtype=coding)
        recordings.append(buffer.getvalue())
    usable = 0
    for _ in range(NUMBER):
        path = tmp_path / f"clip.{chance.choice(('wav', 'flac', 'raw', 'mp3'))}"
        path.write_bytes(content := mutate(chance, chance.choice(recordings), [bytes(100), b"\xff" * 100]))
        said = {
            "converted": verdict(lambda path: read_recording(path, []), path),
            "before training": verdict(measure, str(path)),
            "path": verdict(lambda path: decode_audio(path, None, 16000), path),
            "bytes": verdict(lambda content: decode_audio(content, None, 16000), content),
            "file": verdict(lambda content: decode_audio(io.BytesIO(content), None, 16000), content),
            "processor": verdict(lambda path: processor(audio=path), str(path)),
        }
        answers = pipe([{"audio": form} for form in (str(path), content, io.BytesIO(content))], on_error="return")
        assert answers[0] == answers[1] == answers[2] or all("error" in answer for answer in answers)
        if isinstance(answers[0], list):
            # The pipeline alone takes recordings of hours.
            assert said["path"] in (None, TOO_LONG) and np.isclose(sum(entry["score"] for entry in answers[0]), 1)
        else:
            assert said["converted"] is not None and answers[0]["error"].isprintable()
        # A clip of no samples, or of silence, may go beside a transcript.
        if said["converted"] not in (EMPTY, SILENT):
            assert len(set(said.values())) == 1, (said, content[:80])
        usable += said["converted"] is None
    assert NUMBER / 10 < usable < NUMBER * 9 / 10


TEXTS = ("안녕하세요", '그가 "아니" 했다', "one, two; three", "", "9", "a|b\tc")
ROWS = [(f"clip{n}.wav", text, ("angry", "happy", "neutral")[n % 3]) for n, text in enumerate(TEXTS)]


def write_table(delimiter: str | None) -> bytes:
    if delimiter is None:
        objects = [dict(zip(("path", "text", "label"), row)) for row in ROWS]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects).encode()
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows([("path", "text", "label"), *ROWS])
    return buffer.getvalue().encode()


@pytest.fixture
def folder(tmp_path):
    for name, _, _ in ROWS:
        soundfile.write(tmp_path / name, 0.3 * np.sin(np.arange(800) / 20), 16000)
    return tmp_path


def whole_rows(table: bytes, mutated: bytes) -> list[tuple[str, str, str]]:
    """The rows whose line is still as it was, under the header as it was."""
    lines, written = mutated.splitlines(), table.splitlines()
    start = len(written) - len(ROWS)
    if lines[:start] != written[:start]:
        return []
    return [row for row, line in zip(ROWS, written[start:]) if line in lines[start:]]


def test_rows_that_are_whole_come_back_from_a_damaged_table(folder):
    disable_progress_bars()
    chance, refused = random.Random(1), 0
    tables = {".csv": [*map(write_table, ",;|")], ".tsv": [write_table("\t")], ".jsonl": [write_table(None)]}
    for number in range(NUMBER):
        suffix = chance.choice(list(tables))
        table = chance.choice(tables[suffix])
        mutated = mutate(chance, table, [b'"', b'"', b",", b";", b"\n", b"\n\n", b"\t", "\u200b\u2028".encode()])
        (folder / f"rows{suffix}").write_bytes(mutated)
        whole = whole_rows(table, mutated)
        try:
            texts = {row.columns.get("path"): row.text or "" for row in read_rows(folder / f"rows{suffix}")}
            expected = {(path, text.replace("\t", " ")) for path, text, _ in whole}
            assert {(path, texts.get(path)) for path, _, _ in whole} == expected, mutated
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        dataset = folder / str(number)
        arguments = ["--corpus", "csv", "--metadata", f"{folder}/rows{suffix}", "--num_proc", "1"]
        exit_code = main([*arguments, "--output_dir", str(dataset)])
        assert exit_code in (0, 1, 2)
        if exit_code == 0:
            parts = load_from_disk(dataset).values()
            written = {
                (row["segment_id"], row.get("text", ""), part.features["label"].names[row["label"]])
                for part in parts
                for row in part.remove_columns("audio")
            }
            skipped = (dataset / "skipped.csv").read_text()
            lost = [row for row in whole if (row[0], " ".join(row[1].split()), row[2]) not in written]
            assert all(f"{path}," in skipped for path, _, _ in lost), (lost, mutated)
            check_account(dataset)
            shutil.rmtree(dataset)
    assert 0 < refused < NUMBER * 5 // 6


def check_account(dataset) -> int:
    """The number of rows that a conversion has read, all of which are in the dataset or skipped."""
    report = json.loads((dataset / "conversion_report.json").read_text())
    with open(dataset / "skipped.csv", newline="", encoding="utf-8") as file:
        skipped = sum(1 for _ in csv.DictReader(file))
    written = sum(map(len, load_from_disk(dataset).values()))
    assert (report["rows_written"], report["rows_skipped"]) == (written, skipped)
    assert report["rows_read"] == written + skipped
    return report["rows_read"]


def damage(chance: random.Random, corpus) -> None:
    """Change one file or folder of a corpus as chance, a disk or another program would."""
    path = chance.choice([corpus, *sorted(corpus.rglob("*"))])
    kind = chance.choice(
        ("content", "content", "content", "remove", "rename", "pipe", "loop", "zeros", "folder", "bytes")
    )
    if kind == "content" and path.is_file():
        pieces = [b'"', b",", b"\n", b"\r\n", b"\0", b"\x1b[31m", "\u2028".encode(), b"=1+1", b"../", b"x" * 200_000]
        path.write_bytes(mutate(chance, path.read_bytes(), pieces))
    elif kind == "rename":
        path.rename(
            path.with_name(chance.choice(("new", ".hidden", "Session03", path.name.lower(), f"{path.name}\udcff")))
        )
    elif kind != "content" and path != corpus:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind in ("loop", "zeros"):
            path.symlink_to(path if kind == "loop" else "/dev/zero")
        elif kind == "bytes":
            path.write_bytes(chance.randbytes(chance.choice((0, 1, 5000))))


def test_a_damaged_corpus_is_converted_or_refused_in_a_line(tmp_path, capfd):
    disable_progress_bars()
    write_corpus(tmp_path / "whole", num_utterances=20, num_sessions=2)
    codes = {0: 0, 1: 0, 2: 0}
    for number in range(NUMBER):
        chance, folder = random.Random(number), tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder / "corpus")
        for _ in range(chance.choice((1, 1, 2, 5))):
            if (folder / "corpus").exists():
                damage(chance, folder / "corpus")
        signal.alarm(60)  # what waits for ever is a fault
        arguments = ["--corpus_dir", str(folder / "corpus"), "--output_dir", str(folder / "out"), "--num_proc", "1"]
        exit_code = main(arguments)
        signal.alarm(0)
        said = [line for line in capfd.readouterr().err.split("\n") if "rows/s]" not in line]
        codes[exit_code] += 1
        if exit_code == 0:
            num_rows = 0
            for file in (folder / "corpus" / "annotation").glob("Sess??_eval.csv"):
                text = file.read_text(encoding="utf-8-sig")
                num_rows += len(list(csv.reader(io.StringIO(text, newline="")))) - 2
            assert check_account(folder / "out") == num_rows, number
        else:
            assert len([line for line in said if line]) == 1, (number, said)
            assert (
                said[-2 if said[-1] == "" else -1].startswith("prepare_dataset.py: ") and not (folder / "out").exists()
            )
        shutil.rmtree(folder)
    assert codes[0] > NUMBER / 2 and codes[2] > 0, codes
