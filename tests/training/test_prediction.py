"""Prediction from the shell: every row of a csv, folder or recording comes back in its order, or says why not."""

import csv
import functools
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configuration_rsa_cfn import EMOTIONS
from foundation.errors import InputError
from foundation.files import LOCK, holds_files
from foundation.words import active
from processing_rsa_cfn import RsaCfnPipeline
from run_classification import main, run
from tests.killing import start
from tests.recognizers import make_recognizers
from tests.slow import mostly_slow
from tests.test_mutated_inputs import mutate
from training import prediction
from training.parsing import parse_arguments
from training.prediction import read_rows


REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(make_model, half_stem):
    return make_model(fusion="early_fusion", audio_config=half_stem)


@pytest.fixture(scope="module")
def saved(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "early_fusion"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(clips, texts, tmp_path_factory):
    """A folder like KEMDy20's wav/, with all that can be wrong in one."""
    folder = tmp_path_factory.mktemp("recordings")
    for session, suffix in (("Session02", ".wav"), ("Session01", ".WAV"), ("Session01", ".flac")):
        (folder / session).mkdir(exist_ok=True)
        for number, (clip, text) in enumerate(zip(clips, texts)):
            path = folder / session / f"{suffix[1:]}_{number}{suffix}"
            soundfile.write(path, clip / 10, 16000, format=suffix[1:].upper())
            path.with_suffix(".txt").write_bytes(f"n/ {text}\n".encode("cp949"))
    (folder / "Session01" / "flac_2.txt").unlink()
    (folder / "Session01" / "lone.txt").write_text("정말")
    (folder / "Session02" / ".DS_Store").write_bytes(b"\0")
    (folder / "Session02" / "words.wav").write_text("These are words, not samples.")
    (folder / "Session02" / "words.txt").write_text("정말", encoding="cp949")
    (folder / "Session02" / "empty.wav").touch()
    soundfile.write(folder / "Session02" / "silent.wav", np.zeros(16000), 16000)
    (folder / "Session02" / "gone.wav").symlink_to("nowhere.wav")
    (folder / "Session02" / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    return folder


def command(saved, source, output_dir):
    given = ["--do_predict", "--model_name_or_path", str(saved), "--predict_file", str(source)]
    return [*given, "--output_dir", str(output_dir), "--disable_tqdm", "true"]


def predict_in_process(saved, source, output_dir, *arguments):
    return main(*parse_arguments([*command(saved, source, output_dir), *arguments]))


def predict(saved, source, output_dir, *arguments):
    """The counts, and the rows of both files, which say the same."""
    return predict_in_process(saved, source, output_dir, *arguments), read_output(output_dir)


def read_output(folder):
    names = {path.name for path in folder.iterdir()} - {LOCK}
    assert names == {"predictions.csv", "predictions.jsonl", "prediction.json"}
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_bytes().split(b"\n")[:-1]]
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, record in zip(rows, records, strict=True):
        assert {k: active(v) for k, v in row.items()} == {k: "" if v is None else str(v) for k, v in record.items()}
    return records


PROBABILITIES = [f"probability_{emotion}" for emotion in EMOTIONS]


def scores(record):
    return [record[name] for name in PROBABILITIES]


@pytest.fixture(scope="module")
def expected(model, processor):
    """A function that gives the probabilities of one row, in the order of the labels."""
    pipe = RsaCfnPipeline(model, processor, device="cpu")

    def expected(audio=None, text=None):
        answer = {entry["label"]: entry["score"] for entry in pipe({"audio": audio, "text": text})}
        return [answer[emotion] for emotion in EMOTIONS]

    return expected


def test_every_recording_of_a_folder_has_its_row(saved, recordings, texts, expected, tmp_path, caplog):
    counts, records = predict(saved, recordings, tmp_path / "out")
    bad = ["empty.wav", "gone.wav", "phone.m4a", "silent.wav", "words.wav"]
    names = [f"Session01/{name}_{number}.{name}" for name in ("WAV", "flac") for number in range(3)]
    names += [f"Session02/{name}" for name in sorted([*bad, *(f"wav_{number}.wav" for number in range(3))])]
    assert [record["audio"] for record in records] == names
    assert counts == {"predict_rows": 14, "predict_errors": len(bad)}
    reasons = {Path(record["audio"]).name: record["error"] for record in records if record["error"] is not None}
    assert list(reasons) == bad
    assert reasons["silent.wav"].startswith("audio is silent")
    assert all(reasons[name].startswith("audio can't be read") for name in bad if name != "silent.wav")
    for record in records:
        name = Path(record["audio"])
        if record["error"] is not None:
            assert record["prediction"] is None and scores(record) == [None] * 7
            continue
        text = None if name.name == "flac_2.flac" else texts[int(name.stem[-1])]
        assert record["text"] == (text or "")
        np.testing.assert_allclose(scores(record), expected(str(recordings / name), text), atol=1e-5)
        assert record["prediction"] == EMOTIONS[np.argmax(scores(record))]
    assert "2 files are no recording or transcript of one: Session01/lone.txt, Session02/.DS_Store" in caplog.text


def test_every_row_of_a_csv_comes_back_with_its_columns(saved, recordings, texts, expected, tmp_path):
    shutil.copytree(recordings / "Session02", tmp_path / "wav", symlinks=True)
    rows = [
        ["a", "wav/wav_2.wav", texts[0], "calm"],
        ["b", "wav/wav_1.wav", "", ""],
        ["c", "", texts[1], ""],
        ["d", "", "", ""],
        ["e", "wav\\wav_0.wav", texts[2], ""],
        ["f", "wav/nowhere.wav", texts[2], ""],
        ["g", "wav/words.wav", texts[2], ""],
        ["h", str(tmp_path / "wav" / "wav_0.wav"), texts[2], ""],
        ["i", "wav/wav_0.wav"],
    ]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([["ID", "Audio", "text", "note"], *rows])
    counts, records = predict(saved, tmp_path / "rows.csv", tmp_path / "out")
    assert counts == {"predict_rows": 9, "predict_errors": 4}
    assert [list(record.values())[:4] for record in records] == [[*row, *[""] * (4 - len(row))] for row in rows]
    assert list(records[0])[:5] == ["ID", "Audio", "text", "note", "prediction"]
    for record, row in zip(records, rows):
        if record["error"] is None:
            audio = None if not row[1] else str(tmp_path / row[1].replace("\\", "/"))
            np.testing.assert_allclose(scores(record), expected(audio, row[2] or None), atol=1e-5)
    reasons = {record["ID"]: record["error"] for record in records if record["error"] is not None}
    assert reasons["d"] == "neither audio nor text is given; give at least one of them."
    assert "nowhere.wav isn't there" in reasons["f"]
    assert "audio can't be read" in reasons["g"]
    assert reasons["i"] == "row is not as wide as the header"


def test_one_recording_is_predicted_with_its_transcript(saved, recordings, texts, expected, tmp_path, capsys):
    _, (record,) = predict(saved, recordings / "Session02" / "wav_1.wav", tmp_path / "out")
    answer = capsys.readouterr().out.splitlines()[0].split(", ")
    assert len(answer) == 7 and answer[0] == f"{record['prediction']} {max(scores(record)):.3f}"
    assert (record["audio"], record["text"], record["error"]) == ("wav_1.wav", texts[1], None)
    np.testing.assert_allclose(
        scores(record), expected(str(recordings / "Session02" / "wav_1.wav"), texts[1]), atol=1e-5
    )


def test_each_transcript_is_read_in_its_own_encoding(tmp_path):
    """ "징" in cp949 is valid utf-8 too, so that the others have to tell."""
    kinds = {
        "japanese": {"ありがとう": "utf-8", "참": "cp949", "반가워요": "utf-16"},
        "french": {"Ça": "utf-8", "ありがとう": "utf-8", "참": "cp949"},
        "old": {"징": "cp949", "반가워요": "cp949", "hello": "utf-8"},
    }
    for name, encodings in kinds.items():
        (tmp_path / name).mkdir()
        for number, (text, encoding) in enumerate(encodings.items()):
            (tmp_path / name / f"{number}.wav").touch()
            (tmp_path / name / f"{number}.txt").write_bytes(text.encode(encoding))
        assert [row.text for row in read_rows(tmp_path / name)] == list(encodings)


def test_a_jsonl_keeps_its_cells_and_blank_lines_are_no_rows(saved, recordings, texts, expected, tmp_path):
    cells = [{"id": 1, "text": texts[0]}, {"id": None, "text": ["a"]}, {"id": [2.5], "text": 3}]
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, cells)))
    _, records = predict(saved, tmp_path / "rows.jsonl", tmp_path / "out")
    assert [{name: record[name] for name in given} for given, record in zip(cells, records, strict=True)] == cells
    assert [record["error"] for record in records] == [None, "cell is a list or an object, not text", None]
    for record, text in ((records[0], texts[0]), (records[2], "3")):
        np.testing.assert_allclose(scores(record), expected(text=text), atol=1e-5)


ODD = ["a\u2028b\x85c\x1cd\0e\r\nf", "\ud800", "\udcb0\udca1", '"', "=1+2", "'@a", [{"x": "\u2029"}], 1e300, -0.5]


def test_cells_of_any_kind_come_back_exactly_and_none_is_a_formula(saved, tmp_path):
    lines = [json.dumps({"text": "정말", "cell": cell}) for cell in ODD]
    lines += ['{"text": "정말", "cell": NaN}', '{"text": "정말", "cell": [1, {"x": -Infinity, "y": 1e999}]}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    predict_in_process(saved, tmp_path / "rows.jsonl", tmp_path / "out")
    content = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    records = [json.loads(line, parse_constant=pytest.fail) for line in content.split(b"\n")[:-1]]
    assert [record["cell"] for record in records] == [*ODD, None, [1, {"x": None, "y": None}]]
    assert {record["error"] for record in records} == {None}
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        cells = [row["cell"] for row in csv.DictReader(stream)]
    assert cells[:2] == [ODD[0], "\\ud800"] and cells[4:6] == ["'=1+2", "''@a"] and len(cells) == len(records)


def break_off(saved, source, folder, after, monkeypatch):
    """Predict, and be interrupted after so many rows."""
    written = []

    def count(*arguments, **options):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(arguments)
        return record(*arguments, **options)

    record = prediction.record
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prediction, "record", count)
        predict(saved, source, folder)


def assert_equal(records, others):
    assert [{**record, **dict.fromkeys(PROBABILITIES)} for record in records] == [
        {**record, **dict.fromkeys(PROBABILITIES)} for record in others
    ]
    for record, other in zip(records, others):
        if record["error"] is None:
            np.testing.assert_allclose(scores(record), scores(other), atol=2e-6)


def test_a_prediction_goes_on_where_it_was(saved, recordings, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "out"
    _, whole = predict(saved, recordings, tmp_path / "whole")
    break_off(saved, recordings, folder, 9, monkeypatch)
    part = folder / "predictions.0.jsonl"
    lines = part.read_bytes().split(b"\n")
    # Of the nine rows, two lie in the part of another process, one is damaged, and one was cut in half.
    (folder / "predictions.5.jsonl").write_bytes(b"\n".join(lines[3:5]) + b"\n" + bytes(20))
    lines[2] = lines[2].replace(b"Session", b"session", 1)
    part.write_bytes(b"\n".join(lines[:3] + lines[5:])[:-30])
    caplog.clear()
    _, records = predict(saved, recordings, folder)
    assert "Going on after 7 of 14 rows." in caplog.text
    assert_equal(records, whole)
    # What is finished is predicted again, and replaced as a whole.
    (folder / "predictions.csv").write_text("")
    caplog.clear()
    _, records = predict(saved, recordings, folder)
    assert "Going on" not in caplog.text
    assert_equal(records, whole)


def of_another_input(folder, source, model):
    other = folder.parent / "other.csv"
    shutil.copy2(source, other)
    return other, f"predictions for 1 rows of {source} by {model}; give another folder, or remove this one"


def of_another_model(folder, source, model):
    os.utime(model / "model.safetensors")
    return (
        source,
        f"predictions for 1 rows of {source} by {model}, of which a file or an option has changed since; give",
    )


def of_a_training_run(folder, source, model):
    (folder / "prediction.json").unlink()
    return source, "files, and no prediction.json that tells of what (prediction"


def of_damaged_origin(folder, source, model):
    (folder / "prediction.json").write_bytes(b"\xff[")
    return source, "files, and no prediction.json that tells of what (prediction"


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("change", [of_another_input, of_another_model, of_a_training_run, of_damaged_origin])
def test_predictions_of_something_else_are_left_alone(change, is_finished, saved, tmp_path, monkeypatch):
    source, folder, model = tmp_path / "rows.csv", tmp_path / "out", shutil.copytree(saved, tmp_path / "model")
    source.write_text("text\n정말\n")
    if is_finished:
        predict(model, source, folder)
    else:
        break_off(model, source, folder, 0, monkeypatch)
    source, message = change(folder, source, model)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(prediction, "load_saved", pytest.fail)
    with pytest.raises(InputError, match=re.escape(f"--output_dir {folder} holds {message}")):
        predict(model, source, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("number, exit_code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_a_line(number, exit_code, tmp_path, capfd):
    child = os.fork()
    if not child:
        with prediction._stopped_by_signals(tmp_path, {"rows": 9, "digest": ""}, is_told=True):
            os.kill(os.getpid(), number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == exit_code
    told = f"stopped by {number.name} after 0 of 9 rows; the same command goes on from there"
    assert capfd.readouterr().err == f"run_classification.py: {told}\n"


@pytest.fixture
def rows(recordings, texts, tmp_path):
    """A table of 40 rows of all kinds."""
    sounds = [*sorted(recordings.rglob("*.wav")), ""]
    lines = [f"{sounds[number % len(sounds)]},{(*texts, '')[number % 4]},{number}" for number in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["audio,text,id", *lines]))
    return tmp_path / "rows.csv"


@pytest.mark.slow
def test_killed_at_any_file_event_it_goes_on_to_the_same_end(saved, rows, processes, tmp_path):
    _, whole = predict(saved, rows, tmp_path / "whole")
    number = 0
    while not number or number <= int((tmp_path / "counted").read_text()):
        folder = tmp_path / f"killed{number}"
        given = command(saved, rows, folder)
        run = start(processes, number, tmp_path / "counted", [folder], "run_classification.py", *given)
        assert run.wait() == (-signal.SIGKILL if number else 0), run.stderr
        assert_equal(predict(saved, rows, folder)[1], whole)
        number += 1
    assert number > 10


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_at_any_row_it_goes_on_with_any_number_of_processes(
    number, num_processes, saved, rows, processes, tmp_path
):
    _, whole = predict(saved, rows, tmp_path / "whole")
    chance = random.Random(num_processes)
    for trial in range(int(os.environ.get("RSA_CFN_MUTATIONS", 20)) // 5):
        folder, most = tmp_path / f"ended{trial}", chance.randrange(38)
        script = ["run_classification.py", *command(saved, rows, folder)]
        run = processes.start(*script, "--per_device_eval_batch_size", 1, num_processes=num_processes)
        while run.is_alive and sum(part.read_bytes().count(b"\n") for part in folder.glob("*[0-9].jsonl")) <= most:
            time.sleep(0.001)
        for pid in run.pids if run.is_alive else []:
            os.kill(pid, number)
        code = run.wait()
        assert code in (0, -number if number == signal.SIGKILL else 128 + number), run.stderr
        if code == 143:
            assert len(re.findall("run_classification.py: stopped by SIGTERM after .* of 40 rows", run.stderr)) == 1
        again = processes.run(*script, num_processes=chance.choice((1, 2)))
        assert again.returncode == 0, again.stderr
        assert_equal(read_output(folder), whole)


@pytest.mark.slow
def test_a_damaged_folder_is_gone_on_with_or_refused_in_a_line(saved, rows, tmp_path, monkeypatch):
    _, whole = predict(saved, rows, tmp_path / "whole")
    monkeypatch.setattr(prediction, "load_saved", functools.cache(prediction.load_saved))
    states, folder = [tmp_path / "whole", tmp_path / "part"], tmp_path / "damaged"
    break_off(saved, rows, states[1], 30, monkeypatch)
    lines = (states[1] / "predictions.0.jsonl").read_bytes().split(b"\n")
    (states[1] / "predictions.1.jsonl").write_bytes(b"\n".join(lines[10:20]) + b"\n")
    refused, chance = 0, random.Random(0)
    for _ in range(int(os.environ.get("RSA_CFN_MUTATIONS", 40))):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(chance.choice(states), folder)
        for file in chance.choices(sorted(folder.iterdir()), k=chance.choice((1, 1, 2))):
            content = file.read_bytes() if file.exists() else b""
            kind = chance.choice(("mutated", "mutated", "mutated", "emptied", "zeros", "gone"))
            damaged = {"mutated": mutate(chance, content, [b"\n", b"\0" * 50, lines[5]]), "zeros": bytes(len(content))}
            file.write_bytes(damaged.get(kind, b""))
            if kind == "gone":
                file.unlink()
        try:
            counts = predict_in_process(saved, rows, folder)
            assert counts["predict_rows"] == len(whole)
            assert_equal(read_output(folder), whole)
        except InputError as error:
            refused += 1
            assert "give another folder" in str(error) and "\n" not in str(error)
    assert refused


def test_where_no_row_can_be_read_the_command_fails(saved, tmp_path, monkeypatch, caplog):
    (tmp_path / "rows.csv").write_text("audio\nnowhere.wav\n,\n")
    monkeypatch.chdir(tmp_path)
    assert run(["--do_predict", "--model_name_or_path", str(saved), "--predict_file", "rows.csv"]) == 1
    assert len(read_output(tmp_path / "predictions")) == 2
    assert "No row of rows.csv has a prediction: audio can't be read" in caplog.text


def test_names_that_are_no_utf8_are_read_and_written(saved, recordings, tmp_path):
    (tmp_path / "wav").mkdir()
    name = os.fsdecode("가.wav".encode("cp949"))
    shutil.copy(recordings / "Session02" / "wav_0.wav", tmp_path / "wav" / name)
    _, (record,) = predict(saved, tmp_path / "wav", tmp_path / "out")
    assert (record["audio"], record["error"]) == ("가.wav", None)


def test_int8_multiplies_in_int8(saved, recordings, tmp_path):
    source = recordings / "Session02" / "wav_0.wav"
    _, (whole,) = predict(saved, source, tmp_path / "whole")
    _, (rounded,) = predict(saved, source, tmp_path / "rounded", "--int8")
    assert 0 < np.abs(np.subtract(scores(whole), scores(rounded))).max() < 0.02


def test_half_precision_is_half_precision(saved, recordings, tmp_path):
    source = recordings / "Session02" / "wav_0.wav"
    _, (whole,) = predict(saved, source, tmp_path / "whole")
    _, (half,) = predict(saved, source, tmp_path / "half", "--bf16")
    assert 0 < np.abs(np.subtract(scores(whole), scores(half))).max() < 0.02


@pytest.fixture(scope="module")
def recognizers(model, tmp_path_factory):
    return make_recognizers(tmp_path_factory.mktemp("recognizers"), model.config.audio_config)


@pytest.mark.parametrize("recognizer", ["ctc", "whisper"])
def test_a_recogniser_writes_the_transcripts_that_are_missing(
    recognizer, saved, recognizers, recordings, texts, expected, tmp_path
):
    speech, words = recordings / "Session02" / "wav_2.wav", recordings / "Session02" / "words.wav"
    lines = ["audio,id", f"{speech},0", f"{words},1"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    _, records = predict(saved, tmp_path / "rows.csv", tmp_path / "out", "--asr_model", str(recognizers / recognizer))
    assert list(records[0])[:3] == ["audio", "id", "text"]
    assert records[0]["text"] and records[1]["text"] == ""
    np.testing.assert_allclose(scores(records[0]), expected(str(speech), records[0]["text"]), atol=1e-5)
    assert "audio can't be read" in records[1]["error"]
    (tmp_path / "more.csv").write_text(f"audio,Text\n{speech},{texts[0]}\n{speech},")
    _, more = predict(saved, tmp_path / "more.csv", tmp_path / "more", "--asr_model", str(recognizers / recognizer))
    assert [record["Text"] for record in more] == [texts[0], records[0]["text"]]


def test_what_the_recogniser_cant_read_has_its_reason(saved, recognizers, tmp_path):
    soundfile.write(tmp_path / "click.wav", np.array([0.1, -0.1] * 10), 16000)
    _, (record,) = predict(saved, tmp_path / "click.wav", tmp_path / "out", "--asr_model", str(recognizers / "ctc"))
    assert (record["text"], record["prediction"]) == ("", None)
    assert record["error"].startswith("the recogniser can make nothing of the audio (RuntimeError: ")


@pytest.mark.parametrize(
    "content, error, message",
    [
        ("id,words\n1,hello\n", InputError, "has no column named audio and none named text, only id, words"),
        ("", InputError, "has no column named audio and none named text, only none"),
        ("text\n", InputError, "has no rows below its header"),
        ("text,prediction,error\nhello,sad,\n", InputError, "columns that the output needs: prediction, error; rename"),
        ("text\nhel\0lo\n", InputError, "is a spreadsheet or another file that is no text: save it as csv"),
        ("PK\3\4", InputError, "is a spreadsheet or another file that is no text: save it as csv"),
        ("text,Text\nhello,hello\n", InputError, "--predict_file .* has several columns named text"),
    ],
)
def test_a_csv_that_cant_be_used_is_refused(content, error, message, saved, tmp_path):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(error, match=message):
        predict(saved, tmp_path / "rows.csv", tmp_path / "out")
    assert not holds_files(tmp_path / "out")


def test_a_folder_without_recordings_is_refused(saved, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").touch()
    with pytest.raises(InputError, match="notes holds no recording"):
        predict(saved, tmp_path / "notes", tmp_path / "out")


def test_what_is_no_recogniser_is_refused(saved, recordings, tmp_path):
    with pytest.raises(InputError, match=r"--asr_model .*early_fusion can't be loaded; give .* a speech recogniser"):
        predict(saved, recordings, tmp_path / "out", "--asr_model", str(saved))


@pytest.mark.parametrize("num_processes", mostly_slow([1, 2], 2))
def test_processes_share_the_rows_and_need_no_dataset(num_processes, saved, recordings, processes, tmp_path):
    """As a user starts it, elsewhere; the rows are those of one process."""
    arguments = ["--do_predict", "--model_name_or_path", saved, "--predict_file", recordings]
    script = REPOSITORY / "run_classification.py"
    finished = processes.run(script, *arguments, cwd=tmp_path, num_processes=num_processes)
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]
    records = read_output(tmp_path / "predictions")
    _, alone = predict(saved, recordings, tmp_path / "alone")
    assert [record["audio"] for record in records] == [record["audio"] for record in alone]
    for record, other in zip(records, alone):
        assert (record["prediction"], record["error"]) == (other["prediction"], other["error"])
        if record["error"] is None:
            np.testing.assert_allclose(scores(record), scores(other), atol=1e-5)
    assert "predicting: 100%" in finished.stderr
    assert finished.stdout.splitlines()[-1].endswith(": everything is in predictions.")
    assert "14 rows, 5 of them without a prediction" in finished.stderr
