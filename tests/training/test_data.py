"""Data: columns and labels of any dataset, rows left out and reported, and splits that keep sides apart."""

import io
import logging

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, load_from_disk
from sklearn.model_selection import train_test_split

from configuration_rsa_cfn import EMOTIONS
from foundation.errors import InputError
from prepare_dataset import prepare
from training.arguments import DataArguments
from training.data import load_splits


def wav(seconds=0.1, value=0.1, sampling_rate=16000):
    buffer = io.BytesIO()
    samples = np.full(int(seconds * sampling_rate), value, dtype=np.float32)
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.fixture
def save(tmp_path):
    """A function that saves columns as a dataset and gives the arguments that load it."""

    def save(columns, parts=None, folder="d", **arguments):
        count = len(columns["label"])
        columns = {"audio": [{"bytes": wav(), "path": None}] * count, "text": ["안녕"] * count, **columns}
        dataset = Dataset.from_dict(columns)
        if parts:
            DatasetDict({name: dataset.select(rows) for name, rows in parts.items()}).save_to_disk(tmp_path / folder)
        else:
            dataset.save_to_disk(tmp_path / folder)
        return DataArguments(dataset_name=str(tmp_path / folder), **arguments)

    return save


def test_session_split_holds_out_the_last_fold_of_the_sessions(prepared_dir):
    dataset = load_from_disk(prepared_dir)["train"]
    splits = load_splits(DataArguments(dataset_name=str(prepared_dir)), with_validation=False)
    assert splits.label_names == list(EMOTIONS)
    sessions = [set(part["session"]) for part in (splits.train, splits.validation, splits.test)]
    assert sessions == [{3, 4, 5}, {1, 2}, {6}]
    labelled = dataset.filter(lambda label: label is not None, input_columns="label")
    parts = (splits.validation, splits.train, splits.test)
    assert sum([part["segment_id"][:] for part in parts], []) == labelled["segment_id"][:]


def test_attributes_are_columns_of_numbers_with_holes(save):
    arguments = save({"label": [0, 1, 0, 1], "pace": [3, None, 1, 2]}, parts={"train": range(2), "test": range(2, 4)})
    splits = load_splits(arguments, with_validation=False, attributes=["pace"])
    assert splits.tables["train"]["pace"][:] == [3, None] == splits.train["pace"][:]
    assert splits.tables["test"]["pace"][:] == [1, 2] == splits.test["pace"][:]


@pytest.mark.parametrize(
    "name, told",
    [
        ("valence", "--attributes valence is no column of split 'train'; give one of audio, text, label"),
        ("note", "--attributes note holds values of type string; give a number in each row"),
        ("speaker", "--attributes speaker has a meaning of its own; give columns of numbers by other names"),
    ],
)
def test_attributes_that_are_no_numbers_are_refused(name, told, save, caplog):
    columns = {"label": [0, 1] * 4, "speaker": list("aabbccdd"), "note": ["x"] * 8}
    arguments = save(columns)
    with pytest.raises(InputError, match=f"^{told}"):
        load_splits(arguments, with_validation=False, attributes=[name])
    if name == "valence":  # a saved model can be scored all the same
        splits = load_splits(arguments, with_validation=False, attributes=[name], classes=["LABEL_0", "LABEL_1"])
        assert set(splits.tables["test"][name][:]) == {None} and "neither learnt nor scored" in caplog.text


def test_each_row_keeps_its_recording_and_columns(prepared_dir):
    """Columns are read apart from the recordings and joined again."""
    source = {row["segment_id"]: row for row in load_from_disk(prepared_dir)["train"]}
    splits = load_splits(DataArguments(dataset_name=str(prepared_dir), split="paper"), with_validation=True)
    seen = 0
    for part in (splits.train, splits.validation, splits.test):
        for row in part:
            original = source[row["segment_id"]]
            for name in ("audio", "text", "label", "votes", "session", "speaker"):
                assert row[name] == original[name]
            assert row["duration"] == pytest.approx(original["duration"])
            seen += 1
    assert seen == sum(row["label"] is not None for row in source.values())


def test_the_fold_is_chosen(prepared_dir):
    for fold, tested in enumerate([{1, 2}, {3, 4}, {5, 6}], start=1):
        arguments = DataArguments(dataset_name=str(prepared_dir), split="session", num_folds=3, fold=fold)
        splits = load_splits(arguments, with_validation=False)
        assert set(splits.test["session"]) == tested


def test_paper_split_is_sklearns_on_the_labelled_rows_in_order(prepared_dir):
    dataset = load_from_disk(prepared_dir)["train"]
    labelled = [index for index, label in enumerate(dataset["label"]) if label is not None]
    train, test = train_test_split(
        labelled, test_size=0.2, random_state=42, stratify=[dataset["label"][index] for index in labelled]
    )
    splits = load_splits(DataArguments(dataset_name=str(prepared_dir), split="paper"), with_validation=False)
    assert splits.train["segment_id"][:] == dataset.select(sorted(train))["segment_id"][:]
    assert splits.test["segment_id"][:] == dataset.select(sorted(test))["segment_id"][:]
    assert splits.validation is None


def test_a_damaged_recording_changes_no_other_rows_part(save):
    columns = {"label": [0, 1] * 10, "segment_id": [f"row{index:02d}" for index in range(20)]}
    whole = load_splits(save(columns, split="paper"), with_validation=False)
    damaged = [{"bytes": b"" if index == 4 else wav(), "path": None} for index in range(20)]
    less = load_splits(save({**columns, "audio": damaged}, split="paper", folder="less"), with_validation=False)
    for part in ("train", "test"):
        names = getattr(whole, part)["segment_id"][:]
        assert getattr(less, part)["segment_id"][:] == [name for name in names if name != "row04"]
    assert len(less.train) + len(less.test) == 19


def test_what_was_divided_is_recorded(save, caplog):
    columns = {
        "audio": [{"bytes": wav(value=value), "path": None} for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.2)],
        "label": [0, 0, 1, 1, -1, 0],
        "text": ["가", " 가", "나", "", "", "나"],
        "speaker": ["a", "b", "b", "c", "c", "d"],
        "session": [1, 1, 2, 3, 3, 4],
        "segment_id": list("pqrstu"),
    }
    with caplog.at_level(logging.INFO):
        splits = load_splits(save(columns, num_folds=4), with_validation=False)
    assert splits.membership == [("p", "validation"), ("q", "validation"), ("r", "validation")] + [
        ("s", "train"),
        ("t", ""),
        ("u", "test"),
    ]
    record = splits.record
    assert (record["split"], record["num_folds"], record["fold"]) == ("session", 4, 4)
    assert {part: facts["groups"] for part, facts in record["parts"].items()} == {
        "train": [3],
        "validation": [1, 2],
        "test": [4],
    }
    assert record["parts"]["validation"]["classes"] == {"LABEL_0": 2, "LABEL_1": 1}
    assert record["warnings"] == ["no row of train is LABEL_0", "no row of test is LABEL_1"]
    # Of what people said, only the number.
    assert record["overlaps"] == [
        {"parts": ["validation", "test"], "kind": "transcripts", "count": 1, "rows_of_test": 1, "values": None},
        {"parts": ["validation", "test"], "kind": "recordings", "count": 1, "rows_of_test": 1, "values": ["q"]},
    ]
    assert "validation and test share 1 transcript (rows of test: 1): 나" in caplog.text
    assert "no row of train is LABEL_0" in caplog.text
    assert "1 unlabelled rows are left out of training." in caplog.text


def test_identical_recordings_are_found_in_files_and_samples(tmp_path, save):
    """Whatever their names; another recording of the same length is none of them."""
    paths = []
    for number, value in enumerate((0.1, 0.2, 0.1, 0.3)):
        paths.append(str(tmp_path / f"{number}.wav"))
        (tmp_path / f"{number}.wav").write_bytes(wav(value=value))
    samples = [{"array": [value] * 1600, "sampling_rate": 16000} for value in (0.1, 0.2, 0.1, 0.3)]
    for number, audio in enumerate((paths, samples)):
        columns = {"audio": audio, "label": [0, 1, 0, 1], "text": list("가나다라")}
        given = save(columns, {"train": [0, 1], "test": [2, 3]}, folder=f"d{number}")
        overlap = load_splits(given, with_validation=False).record["overlaps"]
        assert overlap == [
            {"parts": ["train", "test"], "kind": "recordings", "count": 1, "rows_of_test": 1, "values": ["train/0"]}
        ]


@pytest.mark.parametrize("modality, missing", [("audio", "text"), ("text", "audio")])
def test_what_the_fusion_does_not_read_need_not_be_there(save, modality, missing):
    given = save({"label": [0, 1] * 10})
    dataset = load_from_disk(given.dataset_name).remove_columns(missing)
    dataset.save_to_disk(given.dataset_name + "-less")
    given.dataset_name += "-less"
    splits = load_splits(given, with_validation=False, modalities=(modality,))
    rows = list(splits.test)
    assert len(rows) == 4 and all(row[modality] is not None and row.get(missing) is None for row in rows)
    with pytest.raises(
        InputError, match=f"is no column of split 'train'; .*, or --fusion {modality}, which reads no {missing}$"
    ):
        load_splits(given, with_validation=False)
    given.eval_modalities = ["both", missing]
    with pytest.raises(InputError, match=f"{missing} is no column .*, or leave {missing} out of --eval_modalities$"):
        load_splits(given, with_validation=False, modalities=(modality,))


def test_rows_without_a_transcript_do_for_a_fusion_that_reads_none(save):
    given = save({"label": [0, 1] * 4, "text": ["가", None] * 4})
    assert len(load_splits(given, with_validation=False, modalities=("audio",)).recordings) == 8
    assert len(load_splits(given, with_validation=False).recordings) == 4


def test_a_csv_with_numbers_and_a_blank_cell_is_read_as_it_was_written(tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav())
    rows = [f"{tmp_path / 'clip.wav'},{'' if n == 5 else 110 + n},{'' if n == 7 else n % 3}" for n in range(12)]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_text("\n".join(["audio,text,label", *rows]), encoding="utf-8")
    splits = load_splits(DataArguments(dataset_name=str(tmp_path / "d")), with_validation=False)
    assert splits.label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert [part for _, part in splits.membership].count("") == 2
    text_of = dict(zip(splits.recordings["row"], splits.recordings["text"]))
    assert text_of == {n: str(110 + n) for n in range(12) if n != 5}


@pytest.fixture
def save_ties(save):
    """A function that saves ties on all sides of a split and gives the arguments."""
    neutral, happy, angry, *_ = range(7)
    columns = {
        "label": [neutral, None, None, happy, None, neutral, None],
        "emotions": [[neutral], [neutral, happy], [happy, angry], [happy], [neutral, angry], [neutral], [angry, happy]],
        "votes": [[8, 2] + [0] * 5, [5, 5] + [0] * 5, [0, 5, 5] + [0] * 4] + [[1] * 7] * 4,
        "session": [2, 2, 2, 1, 1, 3, 3],
    }

    def save_ties(**arguments):
        given = save(columns, **arguments)
        named = load_from_disk(given.dataset_name).cast_column("label", ClassLabel(names=list(EMOTIONS)))
        named.save_to_disk(given.dataset_name + "-named")
        given.dataset_name += "-named"
        return given

    return save_ties


@pytest.mark.parametrize(
    "arguments, column, expected",
    [
        ({}, "label", [0]),
        ({"label_transform": True}, "label", [0, 1]),
        ({"ties": "soft"}, "label_shares", [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]]),
        ({"label_target": "soft"}, "label_shares", [[0.8, 0.2, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]]),
        ({"label_target": "soft", "ties": "drop"}, "label_shares", [[0.8, 0.2, 0]]),
    ],
)
def test_targets_are_of_the_training_part_alone(save_ties, arguments, column, expected):
    splits = load_splits(save_ties(**arguments), with_validation=False)
    targets = splits.train[column][:]
    assert [target[:3] if column == "label_shares" else target for target in targets] == expected
    assert ("label_shares" in splits.train.column_names) == (column == "label_shares")
    for part, label in ((splits.validation, 1), (splits.test, 0)):
        assert part["label"][:] == [label] and "label_shares" not in part.column_names


def test_any_column_names_and_labels_in_words(save):
    audio = [{"bytes": wav(), "path": None}] * 4
    columns = {"label": [9] * 4, "text": ["not this"] * 4, "speech": audio, "sentence": list("가나다라")}
    columns["mood"] = ["upset", "calm", "upset", "calm"]
    columns |= {"speaker_id": ["a", "a", "b", "b"], "take": [1, 2, 1, 2], "speaker": ["not this"] * 4}
    # What raters chose was another column's classes.
    columns |= {"emotions": [[0]] * 4, "votes": [[4, 3, 3]] * 4}
    arguments = save(
        columns,
        {"train": [0, 1], "test": [2, 3]},
        audio_column_name="speech",
        text_column_name="sentence",
        label_column_name="mood",
        speaker_column_name="speaker_id",
        session_column_name="take",
    )
    splits = load_splits(arguments, with_validation=False)
    assert splits.test["speaker"][:] == ["b", "b"] and splits.test["session"][:] == [1, 2]
    assert splits.label_names == ["calm", "upset"] and "votes" not in splits.tables["train"].column_names
    assert splits.train["text"][:] == ["가", "나"] and splits.train["label"][:] == [1, 0]
    assert splits.test["text"][:] == ["다", "라"]


def test_predefined_splits_keep_their_sides(save, caplog):
    parts = {"train": [0, 1, 2], "validation": [3], "test": [4, 5]}
    arguments = save({"label": [0, 1, 2, 1, 0, -1]}, parts)
    with caplog.at_level(logging.INFO):
        splits = load_splits(arguments, with_validation=True)
    assert "1 rows without a label are not scored." in caplog.text
    assert splits.label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert [part["label"][:] for part in (splits.train, splits.validation, splits.test)] == [[0, 1, 2], [1], [0]]


def test_an_audio_feature_is_read_without_decoding(save):
    arguments = save({"label": ["a", "b"] * 10})
    encoded = load_from_disk(arguments.dataset_name)
    encoded.cast_column("audio", Audio(16000, decode=True)).save_to_disk(arguments.dataset_name + "-audio")
    arguments.dataset_name += "-audio"
    splits = load_splits(arguments, with_validation=False)
    # A float wav holds the second it was written in, so another one would not do.
    assert splits.train[0]["audio"]["bytes"] == encoded[0]["audio"]["bytes"]


def test_rows_that_cannot_be_used_are_left_out_and_named(save, caplog):
    contents = [wav(), b"", wav(seconds=0), b"no wav", wav(value=np.nan), wav(), None, wav()]
    columns = {
        "audio": [{"bytes": content, "path": None} for content in contents],
        "text": ["가", "나", "다", "라", "마", None, "바", ""],
        "label": [0, 0, 0, 0, 0, 0, 0, 1],
        "segment_id": [f"row{index}" for index in range(8)],
        "session": [1] * 7 + [2],
    }
    with caplog.at_level(logging.WARNING):
        splits = load_splits(save(columns), with_validation=False)
    assert splits.train["segment_id"][:] == ["row0"]
    # An empty transcript is a transcript: the row is scored.
    assert splits.test["segment_id"][:] == ["row7"]
    warnings = "\n".join(record.getMessage() for record in caplog.records)
    for expected in (
        "1 of 8 rows of train are left out, audio format not supported (convert with ffmpeg): row3",
        "2 of 8 rows of train are left out, audio empty: row1, row2",
        "1 of 8 rows of train are left out, audio not finite: row4",
        "1 of 8 rows of train are left out, no transcript: row5",
        "1 of 8 rows of train are left out, no audio: row6",
    ):
        assert expected in warnings


def test_recordings_of_a_prepared_dataset_are_not_opened(prepared_dir, tmp_path, monkeypatch, caplog):
    """prepare_dataset.py has read them; a transcript may have been taken away since."""

    def forget(row):
        return {"text": None if row["segment_id"] == forgotten else row["text"]}

    dataset = load_from_disk(prepared_dir)["train"]
    forgotten = next(row["segment_id"] for row in dataset if row["label"] is not None)
    dataset.map(forget).save_to_disk(tmp_path / "d")
    monkeypatch.setattr(soundfile, "SoundFile", None)
    splits = load_splits(DataArguments(dataset_name=str(tmp_path / "d")), with_validation=False)
    ids = sum((part["segment_id"][:] for part in (splits.train, splits.validation, splits.test)), [])
    assert len(ids) == sum(label is not None for label in dataset["label"]) - 1
    assert f"1 of 60 rows of train are left out, no transcript: {forgotten}" in caplog.text
    duration_of = dict(zip(dataset["segment_id"], dataset["duration"]))
    assert splits.train["duration"][:] == [duration_of[name] for name in splits.train["segment_id"]]


def test_recordings_of_a_csv_that_was_prepared_are_not_opened_again(tmp_path, monkeypatch):
    rows = [f"{n}.wav,말 {n},{'sad' if n % 2 else 'calm'}" for n in range(8)]
    for n in range(8):
        (tmp_path / f"{n}.wav").write_bytes(wav(value=0.1 + n / 100))
    (tmp_path / "m.csv").write_text("\n".join(["path,text,label", *rows]), encoding="utf-8")
    prepare("csv", None, tmp_path / "d", num_proc=1, metadata_file=tmp_path / "m.csv")
    monkeypatch.setattr(soundfile, "SoundFile", None)
    assert len(load_splits(DataArguments(dataset_name=str(tmp_path / "d")), with_validation=False).recordings) == 8


def test_recordings_of_another_column_are_opened(prepared_dir, tmp_path, caplog):
    dataset = load_from_disk(prepared_dir)["train"]
    broken = [
        {"bytes": b"" if row == 7 else audio["bytes"], "path": None} for row, audio in enumerate(dataset["audio"])
    ]
    dataset.add_column("speech", broken).save_to_disk(tmp_path / "d")
    load_splits(DataArguments(dataset_name=str(tmp_path / "d"), audio_column_name="speech"), with_validation=False)
    assert f"1 of 60 rows of train are left out, audio empty: {dataset['segment_id'][7]}" in caplog.text


@pytest.mark.parametrize(
    "columns, arguments, message",
    [
        ({}, {"text_column_name": "words"}, "--text_column_name words is no column of split 'train'; give one of"),
        ({"label": [0.5] * 4}, {}, "--label_column_name label holds 0.5; give one class in each row: its name, True"),
        ({"text": [[1]] * 4}, {}, "--text_column_name text holds values of type list of int; give one transcript in e"),
        ({"audio": [1.5] * 4}, {}, "--audio_column_name audio holds values of type float; give recordings: paths, enc"),
        ({"mood": [[0, 1]] * 4}, {"label_column_name": "mood"}, "--label_column_name mood holds values of type list"),
        ({}, {"speaker_column_name": "who"}, "--speaker_column_name who isn't in every split; give one of audio, "),
        ({}, {"text_column_name": "label"}, "--label_column_name label is the column of the text too; give another"),
        ({"session": [[1]] * 4}, {}, "column session holds values of type list of int; give one name or whole number"),
        ({}, {"split": "session"}, "there is no column named session; give --split paper"),
        ({"session": [3] * 4}, {"split": "session"}, "there is only one session; give --split paper"),
        ({}, {"split": "predefined"}, "it needs splits named train and test (or validation); this dataset has train;"),
        ({"label": [0, 0, 0, -1], "session": [1, 1, 1, 2]}, {}, "leaves no labelled test row; give --split paper"),
        ({"session": [1, 1, 2, 2]}, {"label_transform": True}, "--ties transform needs a column named emotions"),
        ({"session": [1, 1, 2, 2]}, {"label_target": "soft"}, "--label_target soft needs a column named votes"),
        ({"session": [1, 1, 2, 2], "votes": [[1]] * 4}, {"ties": "soft"}, "emotions and votes don't fit 2 classes"),
        ({"text": [None] * 4, "session": [1, 1, 2, 2]}, {}, "no row of split 'train' can be used"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(save, columns, arguments, message):
    with pytest.raises(InputError) as error:
        load_splits(save({"label": [0, 1, 0, 1], **columns}, **arguments), with_validation=False)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_no_dataset(demo_corpus_dir, tmp_path):
    with pytest.raises(InputError, match="is a corpus, not a dataset; convert it first: python prepare_dataset.py"):
        load_splits(DataArguments(dataset_name=str(demo_corpus_dir)), with_validation=False)
    for name in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="can't be loaded; give a folder from prepare_dataset.py") as error:
            load_splits(DataArguments(dataset_name=str(name)), with_validation=False)
        assert "\n" not in str(error.value)


def test_the_corpus_that_is_not_made_yet_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no folder data/kemdy20; make it by prepare_dataset.py"):
        load_splits(DataArguments(dataset_name="data/kemdy20"), with_validation=False)
