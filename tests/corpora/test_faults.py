"""Corpora with random faults: whatever is broken, every row is accounted for, and what is written is true.
The truth is known from the generator of the demo corpus, not read back from its files."""

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpora import EMOTIONS
from corpora.demo import plan_utterances, write_corpus
from corpora.transcripts import remove_tags
from prepare_dataset import NothingToWriteError, prepare


NUM_UTTERANCES, NUM_SESSIONS = 24, 3


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "corpus"
    write_corpus(folder, NUM_UTTERANCES, NUM_SESSIONS)
    return folder


def utterance_files(corpus, utterance):
    path = corpus / "wav" / f"Session{utterance.session:02d}" / utterance.segment_id
    return path.with_suffix(".wav"), path.with_suffix(".txt")


def edit_csv(corpus, session, edit):
    file = corpus / "annotation" / f"Sess{session:02d}_eval.csv"
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    file.write_text("\n".join([*lines[:2], *edit(lines[2:])]) + "\n", encoding="utf-8")


def edit_row(corpus, utterance, edit):
    def edit_lines(lines):
        rows = [line.split(",") for line in lines]
        return [",".join(edit(row)) if utterance.segment_id in row[3:4] else ",".join(row) for row in rows]

    edit_csv(corpus, utterance.session, edit_lines)


def replace_cell(position, value):
    return lambda corpus, utterance: edit_row(
        corpus, utterance, lambda row: [*row[:position], value, *row[position + 1 :]]
    )


def cut_wav(corpus, utterance):
    wav, _ = utterance_files(corpus, utterance)
    if wav.exists():
        wav.write_bytes(wav.read_bytes()[: wav.stat().st_size // 2])


def claim_4_gib(corpus, utterance):
    wav, _ = utterance_files(corpus, utterance)
    if wav.exists() and wav.stat().st_size > 44:
        content = bytearray(wav.read_bytes())
        content[4:8] = content[40:44] = (0xFFFFFFF0).to_bytes(4, "little")
        wav.write_bytes(content)


def write_wav(samples, rate, **options):
    def write(corpus, utterance):
        wav, _ = utterance_files(corpus, utterance)
        soundfile.write(wav, samples, rate, **{"format": "WAV", **options})

    return write


def write_text(content):
    return lambda corpus, utterance: utterance_files(corpus, utterance)[1].write_bytes(content)


def repeat_row(corpus, utterance):
    edit_csv(
        corpus,
        utterance.session,
        lambda lines: [copy for line in lines for copy in [line] * (1 + (utterance.segment_id in line))],
    )


def claim_in_another_session(corpus, utterance):
    own = corpus / "annotation" / f"Sess{utterance.session:02d}_eval.csv"
    row = next(
        (line for line in own.read_text(encoding="utf-8-sig").splitlines() if utterance.segment_id in line), None
    )
    if row is not None:
        edit_csv(corpus, utterance.session % NUM_SESSIONS + 1, lambda lines: [*lines, row])


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (16000, 1))
# What may happen to one utterance. The second half leaves it usable, with the text and the label it had.
LOSING = {
    "no wav": lambda corpus, utterance: utterance_files(corpus, utterance)[0].unlink(missing_ok=True),
    "no txt": lambda corpus, utterance: utterance_files(corpus, utterance)[1].unlink(missing_ok=True),
    "empty wav": lambda corpus, utterance: utterance_files(corpus, utterance)[0].write_bytes(b""),
    "empty txt": write_text(b""),
    "cut wav": cut_wav,
    "4 GiB header": claim_4_gib,
    "text named wav": lambda corpus, utterance: utterance_files(corpus, utterance)[0].write_bytes(b"not a sound" * 99),
    "silence": write_wav(np.zeros(16000), 16000),
    "climbing id": replace_cell(3, "../../../etc/passwd"),
    "no id": replace_cell(3, " "),
    "no emotion": replace_cell(4, " "),
    "unknown emotion": replace_cell(4, "bored"),
    "short row": lambda corpus, utterance: edit_row(corpus, utterance, lambda row: row[:5]),
    "repeated row": repeat_row,
    "claimed twice": claim_in_another_session,
}
KEEPING = {
    "8 bit": write_wav(NOISE, 16000, subtype="PCM_U8"),
    "float": write_wav(NOISE * 3, 16000, subtype="FLOAT"),
    "stereo": write_wav(np.repeat(NOISE, 2, axis=1), 44100),
    "flac named wav": write_wav(NOISE, 8000, format="FLAC"),
    "mp3 named wav": write_wav(NOISE, 22050, format="MP3"),
    "blanks": lambda corpus, utterance: edit_row(corpus, utterance, lambda row: [f"  {cell} " for cell in row]),
    "no numbers": lambda corpus, utterance: edit_row(corpus, utterance, lambda row: [*row[:1], "", "x", *row[3:]]),
    "no raters": lambda corpus, utterance: edit_row(corpus, utterance, lambda row: row[:7]),
    "unknown rater label": replace_cell(7, "bored"),
    "blank row": lambda corpus, utterance: edit_csv(corpus, utterance.session, lambda lines: [*lines, "," * 36]),
    "stray file": lambda corpus, utterance: (utterance_files(corpus, utterance)[0].parent / "._x.wav").write_bytes(
        b"x"
    ),
}
FAULTS = LOSING | KEEPING


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.tuples(st.integers(0, NUM_UTTERANCES - 1), st.sampled_from(sorted(FAULTS))), max_size=14),
    num_proc=st.sampled_from([1, 2]),
)
def test_random_faults(pristine, faults, num_proc):
    truth = {utterance.segment_id: utterance for utterance in plan_utterances(NUM_UTTERANCES, NUM_SESSIONS)}
    utterances = list(truth.values())
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(shutil.copytree(pristine, Path(folder) / "corpus"))
        for index, fault in faults:
            FAULTS[fault](corpus, utterances[index])
        num_rows = 0
        for file in (corpus / "annotation").iterdir():
            with open(file, newline="", encoding="utf-8-sig") as stream:
                num_rows += len(list(csv.reader(stream))) - 2
        try:
            report = prepare("kemdy20", corpus, Path(folder) / "out", num_proc)
        except NothingToWriteError:
            pytest.fail("fourteen faults can't break all rows")
        rows = load_from_disk(Path(folder) / "out")["train"].remove_columns("audio").to_list()
        with open(Path(folder) / "out" / "skipped.csv", newline="", encoding="utf-8") as stream:
            skipped = list(csv.DictReader(stream))
    assert report["rows_read"] == num_rows == report["rows_written"] + report["rows_skipped"]
    assert (len(rows), len(skipped)) == (report["rows_written"], report["rows_skipped"])
    written = [row["segment_id"] for row in rows]
    assert len(set(written)) == len(written) and set(written) <= set(truth)
    for row in rows:
        utterance = truth[row["segment_id"]]
        winners = [EMOTIONS.index(emotion) for emotion in utterance.label.split(";")]
        assert row["text"] == remove_tags(utterance.transcript) and row["raw_text"] == utterance.transcript
        assert row["label"] == (winners[0] if len(winners) == 1 else None)
        assert row["emotions"] == winners
        assert (row["session"], row["speaker"][:7]) == (utterance.session, f"User{utterance.speaker.user:03d}")
    # No row is lost that had nothing wrong with it.
    broken = {utterances[index].segment_id for index, fault in faults if fault in LOSING}
    assert set(truth) - broken <= set(written)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_each_fault_is_told(pristine, fault, tmp_path):
    """The faults above are faults: each leaves its row out, or a repair or a note that says so."""
    corpus = Path(shutil.copytree(pristine, tmp_path / "corpus"))
    utterance = plan_utterances(NUM_UTTERANCES, NUM_SESSIONS)[5]
    before = prepare("kemdy20", corpus, tmp_path / "before")
    FAULTS[fault](corpus, utterance)
    after = prepare("kemdy20", corpus, tmp_path / "after")
    if fault in LOSING:
        assert after["rows_skipped"] == before["rows_skipped"] + 1
    else:
        assert after["rows_written"] == before["rows_written"]
        told = [{**report["skipped"], **report["repairs"], **report["notes"]} for report in (before, after)]
        assert told[0] != told[1]
