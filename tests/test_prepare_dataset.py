"""The way from a corpus folder to a dataset on disk: its content, its report, what killed runs and users do to it.
The corpus is a small demo corpus, damaged where a test needs it; some tests start the real command."""

import csv
import errno
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest
import soundfile
from datasets import Audio, ClassLabel, DatasetDict, List, Value, load_from_disk

import prepare_dataset
from configuration_rsa_cfn import EMOTIONS
from corpora import kemdy
from corpora.demo import write_corpus
from corpora.loading import load_parts
from corpora.shards import BYTES_PER_BATCH
from foundation.errors import InputError
from prepare_dataset import NothingToWriteError, main, prepare
from tests import killing


SCRIPT = Path(prepare_dataset.__file__)


@pytest.fixture(scope="module")
def pristine_corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "corpus"
    write_corpus(folder, num_utterances=60, num_sessions=3)
    return folder


@pytest.fixture
def corpus(pristine_corpus, tmp_path):
    return Path(shutil.copytree(pristine_corpus, tmp_path / "corpus"))


@pytest.fixture
def damaged_corpus(corpus):
    """Session 1 lacks a recording, session 2 has wrong prefixes and a duplicate, nothing of session 3 can be used."""
    next(iter(sorted((corpus / "wav" / "Session01").glob("*.wav")))).unlink()
    second = corpus / "annotation" / "Sess02_eval.csv"
    lines = second.read_text().replace("Sess02_", "Sess42_").splitlines()
    second.write_text("\n".join([*lines, lines[2], ""]))
    for wav in (corpus / "wav" / "Session03").glob("*.wav"):
        wav.write_bytes(b"")
    return corpus


def annotation_cells(corpus):
    for file in sorted((corpus / "annotation").iterdir()):
        yield from (line.split(",") for line in file.read_text().splitlines()[2:])


def incomplete_folders(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_dataset_holds_the_corpus(corpus, tmp_path):
    report = prepare("kemdy20", corpus, tmp_path / "out")
    dataset = DatasetDict.load_from_disk(tmp_path / "out")
    assert list(dataset) == ["train"]
    rows = dataset["train"]
    assert dict(rows.features) == {
        "audio": Audio(sampling_rate=16000, decode=False),
        "text": Value("string"),
        "raw_text": Value("string"),
        "label": ClassLabel(names=list(EMOTIONS)),
        "emotions": List(ClassLabel(names=list(EMOTIONS))),
        "votes": List(Value("int32"), length=7),
        "valence": Value("float64"),
        "arousal": Value("float64"),
        "segment_id": Value("string"),
        "session": Value("int32"),
        "speaker": Value("string"),
        "gender": Value("string"),
        "dialogue": Value("string"),
        "start": Value("float64"),
        "end": Value("float64"),
        "duration": Value("float32"),
    }
    assert rows.column_names == list(rows.features)
    cells = list(annotation_cells(corpus))
    assert rows["segment_id"][:] == [row[3] for row in cells]
    names = [[EMOTIONS[index] for index in emotions] for emotions in rows["emotions"]]
    assert names == [row[4].replace("disqust", "disgust").split(";") for row in cells]
    for row, emotions in zip(rows, names, strict=True):
        assert row["label"] == (EMOTIONS.index(emotions[0]) if len(emotions) == 1 else None)
        assert sum(row["votes"]) == 10
        assert all(row["votes"][EMOTIONS.index(emotion)] == max(row["votes"]) for emotion in emotions)
        wav = corpus / "wav" / f"Session{row['session']:02d}" / row["audio"]["path"]
        assert row["audio"] == {"bytes": wav.read_bytes(), "path": f"{row['segment_id']}.wav"}
        assert row["duration"] == pytest.approx(soundfile.info(wav).duration)
        assert row["raw_text"] == wav.with_suffix(".txt").read_bytes().decode("cp949").strip()
    assert rows["label"][:].count(None) == report["labels"]["tie"] > 0
    assert report["hours"] == pytest.approx(sum(rows["duration"]) / 3600)


def test_recordings_are_inside_the_dataset(corpus, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "out")
    shutil.rmtree(corpus)
    (tmp_path / "out").rename(tmp_path / "moved")
    row = load_from_disk(tmp_path / "moved")["train"][-1]
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    assert rate == 16000 and len(samples) / rate == pytest.approx(row["duration"])


def test_dataset_can_be_worked_with(corpus, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "out")
    rows = load_from_disk(tmp_path / "out")["train"]
    untied = rows.filter(lambda label: label is not None, input_columns="label")
    assert len(untied) == len(rows) - rows["label"][:].count(None)
    assert untied.train_test_split(0.5, seed=0)["test"].features == rows.features
    longest = rows.map(lambda row: {"size": len(row["audio"]["bytes"])}).sort("size", reverse=True)[0]
    assert longest["duration"] == max(rows["duration"])


def test_report_accounts_for_every_row(damaged_corpus, tmp_path, capsys):
    assert main(["--corpus_dir", str(damaged_corpus), "--output_dir", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text(encoding="utf-8"))
    rows = load_from_disk(tmp_path / "out")["train"]
    skipped = {kind: len(names) for kind, names in report["skipped"].items()}
    in_third = sum(cells[3].startswith("Sess03") for cells in annotation_cells(damaged_corpus))
    assert skipped == {"audio missing": 1, "duplicate Segment ID": 1, "audio empty": in_third}
    assert report["rows_read"] == len(list(annotation_cells(damaged_corpus)))
    assert report["rows_written"] == len(rows) == report["rows_read"] - sum(skipped.values())
    assert sum(report["labels"].values()) == len(rows)
    corrected = report["repairs"]["Segment ID prefix corrected"]
    assert corrected == [name for name in rows["segment_id"] if name.startswith("Sess02_")]
    assert set(rows["session"]) == {1, 2}
    for kind, names in (report["skipped"] | report["repairs"]).items():
        line = next(line for line in table.splitlines() if line.strip().startswith(kind))
        assert f" {len(names)}  {', '.join(names[:5])}" in line
    assert f" and {len(corrected) - 5} more" in table
    assert str(tmp_path / "out") in table


def test_number_of_processes_does_not_show(damaged_corpus, tmp_path):
    one = prepare("kemdy20", damaged_corpus, tmp_path / "one", num_proc=1)
    two = prepare("kemdy20", damaged_corpus, tmp_path / "two", num_proc=2)
    assert one == two
    rows = [load_from_disk(tmp_path / name)["train"] for name in ("one", "two")]
    assert rows[0].to_list() == rows[1].to_list()
    assert incomplete_folders(tmp_path) == []


def test_few_rows_are_held_in_memory(corpus, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "out")
    for file in (tmp_path / "out" / "train").glob("*.arrow"):
        batches = [batch.column("audio").field("bytes").to_pylist() for batch in pyarrow.ipc.open_stream(str(file))]
        sizes = [[len(recording) for recording in recordings] for recordings in batches]
        assert sum(map(sum, sizes)) > BYTES_PER_BATCH / 3
        # A batch ends with the recording that fills it.
        assert all(sum(size[:-1]) < BYTES_PER_BATCH for size in sizes)


def test_changed_source_is_noticed(corpus, tmp_path):
    before = prepare("kemdy20", corpus, tmp_path / "before")
    txt = sorted((corpus / "wav" / "Session01").glob("*.txt"))[0]
    txt.write_bytes("바뀐 말.\n".encode("cp949"))
    after = prepare("kemdy20", corpus, tmp_path / "after")
    rows = load_from_disk(tmp_path / "after")["train"]
    assert rows["text"][rows["segment_id"][:].index(txt.stem)] == "바뀐 말."
    # Results that `datasets` has cached for the old content are looked up by this.
    assert before["fingerprint"] != after["fingerprint"]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_run_leaves_nothing_that_loads_and_can_be_repeated(corpus, tmp_path, num_proc):
    held, output = sorted((corpus / "wav" / "Session03").glob("*.txt"))[-1], tmp_path / "out"

    def prepare_and_wait():
        read = kemdy.read_regular
        kemdy.read_regular = lambda path, most: read(path, most) if path != str(held) else time.sleep(600)
        prepare("kemdy20", corpus, output, num_proc)

    process = multiprocessing.get_context("fork").Process(target=prepare_and_wait)
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.incomplete/*/shards/session03.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(InputError, match=f"--output_dir {output} is being written by another process"):
        prepare("kemdy20", corpus, output)
    process.kill()
    process.join()
    assert not output.exists()
    (remains,) = incomplete_folders(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_from_disk(tmp_path / remains)
    prepare("kemdy20", corpus, output)
    assert len(load_from_disk(output)["train"]) == 60
    assert incomplete_folders(tmp_path) == []


DISK_IS_FULL = """
import resource, signal, sys
from prepare_dataset import main
# A limit on the size of files fails as a full disk does: in the middle of a write, in whichever process writes.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("num_proc", ["1", "2"])
def test_full_disk_half_way_leaves_what_was_there(corpus, tmp_path, num_proc):
    prepare("kemdy20", corpus, tmp_path / "out")
    (corpus / "annotation" / "Sess03_eval.csv").touch()
    for output in ("out", "new"):
        arguments = ["--corpus_dir", corpus, "--output_dir", tmp_path / output, "--num_proc", num_proc]
        command = [sys.executable, "-c", DISK_IS_FULL, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=SCRIPT.parent)
        told = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert told.startswith("prepare_dataset.py: ") and "can't be written (File too large)" in told
    assert len(load_from_disk(tmp_path / "out")["train"]) == 60
    assert not (tmp_path / "new").exists() and incomplete_folders(tmp_path) == []


def test_nothing_is_done_where_nothing_changed(corpus, tmp_path, capsys):
    first = prepare("kemdy20", corpus, tmp_path / "out")
    made = (tmp_path / "out").stat()
    assert prepare("kemdy20", corpus, tmp_path / "out") == first
    assert "Nothing has changed" in capsys.readouterr().err
    assert (tmp_path / "out").stat().st_ino == made.st_ino


def touch_wav(corpus, out):
    os.utime(next((corpus / "wav" / "Session02").glob("*.wav")))


def change_transcript(corpus, out):
    next((corpus / "wav" / "Session01").glob("*.txt")).write_bytes("바뀐 말.\n".encode("cp949"))


def change_label(corpus, out):
    file = corpus / "annotation" / "Sess01_eval.csv"
    file.write_text(file.read_text().replace(",neutral,", ",happy,", 1))


def remove_wav(corpus, out):
    next((corpus / "wav" / "Session02").glob("*.wav")).unlink()


def lose_a_shard(corpus, out):
    next((out / "train").glob("*.arrow")).unlink()


def cut_a_shard(corpus, out):
    shard = next((out / "train").glob("*.arrow"))
    os.truncate(shard, shard.stat().st_size // 2)


def empty_the_report(corpus, out):
    os.truncate(out / "conversion_report.json", 0)


def empty_the_state(corpus, out):
    os.truncate(out / "train" / "state.json", 0)


DAMAGES = {cut_a_shard: "train/data-", empty_the_report: "conversion_report.json", empty_the_state: "train/state.json"}
CHANGES = [touch_wav, change_transcript, change_label, remove_wav, lose_a_shard, *DAMAGES]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_and_the_dataset_replaced(change, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    prepare("kemdy20", corpus, out)
    made = out.stat()
    change(corpus, out)
    report = prepare("kemdy20", corpus, out)
    assert "Nothing has changed" not in capsys.readouterr().err
    assert out.stat().st_ino != made.st_ino
    assert len(load_from_disk(out)["train"]) == report["rows_written"] == 60 - (change is remove_wav)
    assert incomplete_folders(tmp_path) == []


def test_a_damaged_dataset_is_not_trained_on(corpus, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "whole")
    for damage, told in DAMAGES.items():
        out = shutil.copytree(tmp_path / "whole", tmp_path / damage.__name__)
        assert len(load_parts(str(out))["train"]) == 60
        damage(corpus, out)
        with pytest.raises(InputError, match=f"dataset {out} is damaged .{told}.* convert it again"):
            load_parts(str(out))
    for content in ("", "[]", '{"files": 1}', '{"corpus": 1}'):
        (tmp_path / "whole" / "source.json").write_text(content)
        assert main(["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "whole")]) == 2


@pytest.mark.parametrize("name", ["annotation", "wav", "wav/Session02"])
def test_a_folder_that_cannot_be_read_is_named(name, corpus, tmp_path, monkeypatch, capsys):
    """A superuser, as who tests may be, can read any."""

    def refuse(function):
        def scan(path="."):
            if str(path) == str(corpus / name):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path)

        return scan

    monkeypatch.setattr("os.scandir", refuse(os.scandir))
    monkeypatch.setattr("os.listdir", refuse(os.listdir))
    csv_arguments = ["--corpus", "csv", "--corpus_dir", str(corpus / "wav"), "--output_dir", str(tmp_path / "out")]
    for arguments in (["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "out")], csv_arguments):
        if arguments is not csv_arguments or name != "annotation":
            assert main(arguments) == 2
            told = capsys.readouterr().err
            assert told.startswith(f"prepare_dataset.py: {corpus}/{name} can't be read (Permission denied)")
            assert told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_dataset_in_use_can_be_replaced(corpus, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "out")
    rows = load_from_disk(tmp_path / "out")["train"]
    before = rows[3]
    change_transcript(corpus, tmp_path / "out")
    prepare("kemdy20", corpus, tmp_path / "out")
    # A run under way goes on with the rows it started with.
    assert rows[3] == before and len(rows.to_list()) == 60


def test_dataset_of_another_corpus_is_not_replaced(corpus, demo_corpus_dir, tmp_path, capsys):
    prepare("kemdy20", corpus, tmp_path / "out")
    capsys.readouterr()
    assert main(["--corpus_dir", str(demo_corpus_dir), "--output_dir", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert f"holds a dataset made from kemdy20 {corpus}" in told and told.count("\n") == 1


def test_killed_between_two_names_the_older_dataset_comes_back(corpus, tmp_path):
    """The moment between taking the older dataset away and giving its name to the new one."""
    out = tmp_path / "out"
    prepare("kemdy20", corpus, out)
    remains = tmp_path / ".out.incomplete"
    remains.mkdir()
    out.rename(remains / "older")
    prepare("kemdy20", corpus, out)
    assert len(load_from_disk(out)["train"]) == 60 and incomplete_folders(tmp_path) == []


def test_skipped_rows_are_listed_beside_the_dataset(damaged_corpus, tmp_path):
    report = prepare("kemdy20", damaged_corpus, tmp_path / "out")
    with open(tmp_path / "out" / "skipped.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    listed = {reason: [row["row"] for row in rows if row["reason"] == reason] for reason in report["skipped"]}
    assert listed == report["skipped"]
    assert len(rows) == report["rows_skipped"] == report["rows_read"] - report["rows_written"] > 0
    assert {row["shard"] for row in rows} == {"session01", "session02", "session03"}


def test_pictures_are_drawn_into_the_folder_of_the_dataset(corpus, tmp_path, capsys):
    assert main(["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "out"), "--report"]) == 0
    page = tmp_path / "out" / "report" / "index.html"
    assert page.is_file() and f"Pictures in {page}" in capsys.readouterr().out
    assert len(load_from_disk(tmp_path / "out")["train"]) == 60


def test_a_refused_upload_is_told_before_the_conversion(corpus, tmp_path, capsys, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    given = ["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "out"), "--push_to_hub", "me/speech"]
    assert main(given) == 1
    told = capsys.readouterr().err
    assert "needs a token that may write" in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_corpus_with_a_session_missing(corpus, tmp_path):
    (corpus / "annotation" / "Sess02_eval.csv").unlink()
    shutil.rmtree(corpus / "wav" / "Session03")
    report = prepare("kemdy20", corpus, tmp_path / "out")
    assert {"Session02", "Session04", "Session40"} <= set(report["notes"]["sessions without annotation"])
    assert len(report["notes"]["wav without a row"]) == 20
    assert {kind: len(names) for kind, names in report["skipped"].items()} == {"audio and transcript missing": 20}
    assert report["rows_read"] == 40 and report["rows_written"] == 20


def test_segment_id_that_climbs_out_is_not_followed(corpus, tmp_path):
    (tmp_path / "secret.wav").write_bytes(next((corpus / "wav" / "Session01").glob("*.wav")).read_bytes())
    (tmp_path / "secret.txt").write_text("secret")
    file = corpus / "annotation" / "Sess01_eval.csv"
    lines = file.read_text().splitlines()
    cells = lines[2].split(",")
    cells[3] = "../../../secret"
    file.write_text("\n".join([*lines, ",".join(cells)]) + "\n")
    report = prepare("kemdy20", corpus, tmp_path / "out")
    assert report["skipped"] == {"malformed Segment ID": ["../../../secret"]}


def test_linked_files_and_folders_are_followed(corpus, tmp_path):
    shutil.move(corpus / "wav" / "Session02", tmp_path / "elsewhere")
    (corpus / "wav" / "Session02").symlink_to(tmp_path / "elsewhere")
    gone = next((corpus / "wav" / "Session01").glob("*.wav"))
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere.wav")
    report = prepare("kemdy20", corpus, tmp_path / "out")
    assert report["skipped"] == {"audio missing": [gone.stem]} and report["rows_written"] == 59


def test_corpus_without_a_usable_row(corpus, tmp_path, capsys):
    shutil.rmtree(corpus / "wav")
    (corpus / "wav").mkdir()
    with pytest.raises(NothingToWriteError, match="none of the 60 rows"):
        prepare("kemdy20", corpus, tmp_path / "out")
    assert main(["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "out")]) == 1
    assert "audio and transcript missing 60" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and incomplete_folders(tmp_path) == []


def test_empty_output_folder_is_used(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    prepare("kemdy20", corpus, tmp_path / "out")
    assert len(load_from_disk(tmp_path / "out")["train"]) == 60


def test_demo_corpus_is_generated_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr("corpora.demo.write_corpus", lambda folder: write_corpus(folder, 12, 2))
    thrown_away = prepare("demo", None, tmp_path / "one")
    kept = prepare("demo", tmp_path / "corpus", tmp_path / "two")
    again = prepare("kemdy20", tmp_path / "corpus", tmp_path / "three")
    assert thrown_away == kept == again
    assert thrown_away["rows_written"] == 12 and not thrown_away["skipped"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "one", "three", "two"]


def bad_arguments(corpus, folder):
    out = ["--output_dir", str(folder / "out")]
    given = ["--corpus_dir", str(corpus)]
    (folder / "file").touch()
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    (folder / "empty").mkdir()
    return {
        "output_dir": given,
        "--corpus iemocap is unknown": [*given, *out, "--corpus", "iemocap", "--push_to_hub", "me/speech"],
        "names no dataset": [*given, *out, "--push_to_hub", "no/such/name"],
        "--colour": [*given, *out, "--colour"],
        "unknown arguments: --output-dir; did you mean --output_dir?": [*given, "--output-dir", "x"],
        "give one of kemdy20, kemdy19, csv, demo": [*given, *out, "--corpus", "iemocap"],
        "--corpus_dir is missing": out,
        "does not exist": ["--corpus_dir", str(folder / "nowhere"), *out],
        "is not a folder": ["--corpus_dir", str(folder / "file"), *out],
        "has no annotation/ and no wav/": ["--corpus_dir", str(folder / "empty"), *out],
        f"one folder below, give {corpus}": ["--corpus_dir", str(folder), *out],
        "--num_proc 0 is less": [*given, *out, "--num_proc", "0"],
        "invalid int value: 'two'": [*given, *out, "--num_proc", "two"],
        "is not empty: give": [*given, "--output_dir", str(folder / "full")],
        "is a file": [*given, "--output_dir", str(folder / "file")],
        "file is a file); give a new folder": [*given, "--output_dir", str(folder / "file" / "out")],
        "lies in the corpus folder": [*given, "--output_dir", str(corpus / "out")],
        "holds the corpus folder": [*given, "--output_dir", str(folder)],
        "code of this repository": [*given, "--output_dir", str(SCRIPT.parent)],
        "not an empty folder": [*given, *out, "--corpus", "demo"],
    }


def test_bad_arguments_are_refused_in_one_line(corpus, tmp_path, capsys):
    for told, arguments in bad_arguments(corpus, tmp_path).items():
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        assert status == 2, arguments
        assert told in captured.err and captured.err.count("\n") == 1 and captured.out == ""
        assert not (tmp_path / "out").exists() and incomplete_folders(tmp_path) == []


def test_csv_of_another_shape_is_refused_before_any_work(corpus, tmp_path, capsys):
    (corpus / "annotation" / "Sess09_eval.csv").write_text("Numb,WAV\n")
    assert main(["--corpus_dir", str(corpus), "--output_dir", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "Sess09_eval.csv has 2 columns" in message and message.count("\n") == 1


def run_command(folder, *arguments):
    command = [sys.executable, SCRIPT, "--corpus_dir", "corpus", "--output_dir", "new/out", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


def test_command(corpus, tmp_path):
    done = run_command(tmp_path, "--num_proc", "64")
    assert done.returncode == 0, done.stderr
    assert "Rows written      60" in done.stdout and "60/60" in done.stderr
    assert len(load_from_disk(tmp_path / "new" / "out")["train"]) == 60
    again = run_command(tmp_path)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert "Nothing has changed" in again.stderr and again.stderr.count("\n") == 1


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("given", [("1",), ("2",), ("1", "--report")])
@pytest.mark.parametrize("has_older", [False, True])
def test_killed_at_any_file_event_the_next_run_ends_as_an_unbroken_one(has_older, given, tmp_path):
    corpus, out = tmp_path / "corpus", tmp_path / "killed" / "out"
    write_corpus(corpus, num_utterances=8, num_sessions=2)
    prepare("kemdy20", corpus, tmp_path / "older")
    touch_wav(corpus, None)
    (tmp_path / "killed").mkdir()
    arguments = ["--corpus_dir", str(corpus), "--num_proc", *given, "--output_dir"]
    assert main([*arguments, str(tmp_path / "unbroken" / "out")]) == 0
    unbroken, older = contents(tmp_path / "unbroken" / "out"), contents(tmp_path / "older") if has_older else {}

    def run(number):
        shutil.rmtree(out, ignore_errors=True)
        if has_older:
            shutil.copytree(tmp_path / "older", out)
        run = multiprocessing.get_context("fork").Process(target=kill_at, args=(number,))
        run.start()
        run.join()
        return run.exitcode

    def kill_at(number):
        killing.kill_at(number, str(tmp_path / "counted"), [str(out.parent)])
        sys.exit(main([*arguments, str(out)]))

    assert run(0) == 0 and contents(out) == unbroken
    number = int((tmp_path / "counted").read_text())
    assert number > 30
    step = 25 if "--report" in given else 5  # pictures take seconds
    for event in range(1, number + 1, int(os.environ.get("RSA_CFN_KILLS", step))):
        assert run(event) == -signal.SIGKILL
        where = out if out.exists() else out.parent / ".out.incomplete" / "older"
        left = contents(where) if where.exists() else {}
        is_new = all(left.get(name) == content for name, content in unbroken.items() if not name.startswith("report"))
        assert is_new or left == older, event
        assert main([*arguments, str(out)]) == 0
        assert contents(out) == unbroken and [path.name for path in out.parent.iterdir()] == ["out"], event


@pytest.mark.slow
def test_of_two_runs_at_once_one_is_refused(corpus, processes, tmp_path):
    prepare("kemdy20", corpus, tmp_path / "alone" / "out")
    for number in range(5):
        out = tmp_path / str(number) / "out"
        command = ("prepare_dataset.py", "--corpus_dir", corpus, "--output_dir", out, "--num_proc", "2")
        runs = [processes.start(*command), processes.start(*command)]
        codes = [run.wait() for run in runs]
        told = [run.stderr for run, code in zip(runs, codes) if code == 2 or "Nothing has changed" in run.stderr]
        assert sorted(codes) in ([0, 2], [0, 0]) and len(told) == 1 and told[0].count("\n") == 1
        assert contents(out) == contents(tmp_path / "alone" / "out")
        assert [path.name for path in out.parent.iterdir()] == ["out"]
