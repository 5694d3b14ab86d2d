"""The turns before an utterance: of its dialogue, in their order, and none that comes later."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from foundation.errors import InputError
from prepare_dataset import prepare
from run_classification import main as train
from training.arguments import DataArguments
from training.context import preceding_turns
from training.data import load_splits
from training.parsing import parse_arguments


def test_turns_are_those_before_in_the_same_dialogue_by_their_start():
    columns = {
        "part": ["train"] * 5 + ["test"],
        "text": ["first", "other", "third", "second", "", "elsewhere"],
        "dialogue": ["a", "b", "a", "a", "a", "a"],
        "speaker": ["x", "x", "x", "y", None, "x"],
        "start": [1.0, 0.0, 3.0, 2.0, 4.0, 5.0],
    }
    turns = preceding_turns(columns, 2)
    assert turns == [[], [], ["+ first", "- second"], ["- first"], ["second", "third"], []]
    assert preceding_turns(columns, 1)[2] == ["- second"]
    columns["start"][1] = None  # then rows are in the order of the dataset
    assert preceding_turns(columns, 2)[3] == ["- first", "- third"]
    assert preceding_turns(columns | {"context": [["own", "turns", "here"]] + [None] * 5}, 2)[0] == ["turns", "here"]
    assert preceding_turns(columns | {"dialogue": [None] * 6}, 2) == [[]] * 6


def test_no_row_of_a_corpus_sees_a_later_turn(prepared_dir):
    arguments = DataArguments(dataset_name=str(prepared_dir), context_turns=3)
    splits = load_splits(arguments, True)
    rows = [row for table in splits.tables.values() for row in table]
    assert sum(len(row["context"]) for row in rows) > 20
    from datasets import load_from_disk

    whole = load_from_disk(prepared_dir)["train"].remove_columns("audio")
    place = {row["segment_id"]: number for number, row in enumerate(whole)}
    for row in rows:
        own = whole[place[row["segment_id"]]]
        said = [
            other["text"]
            for other in whole
            if other["dialogue"] == own["dialogue"] and other["start"] < own["start"] and other["text"]
        ]
        assert len(row["context"]) == min(3, len(said))
        assert sorted(turn[2:] for turn in row["context"]) == sorted(
            turn for turn in said if turn in str(row["context"])
        )


def answer_given_the_turn_before(folder, num_rows=120):
    """Every second utterance is the same word; which class it has, only the question before it tells."""
    asked = {"happy": ("정말 기뻐", "너무 좋아"), "sad": ("정말 슬퍼", "너무 아파")}
    rows = []
    for number in range(num_rows):
        label = ("happy", "sad")[number * 7 % 5 % 2]
        dialogue, question = f"dialogue {number}", asked[label][number // 3 % 2]
        session = f"{number % 6}"
        rows.append({"text": question, "label": None, "dialogue": dialogue, "speaker": "a", "session": session})
        rows.append({"text": "그래", "label": label, "dialogue": dialogue, "speaker": "b", "session": session})
    features = Features({name: Value("string") for name in rows[0]} | {"label": ClassLabel(names=["happy", "sad"])})
    Dataset.from_list(rows, features=features).save_to_disk(folder)


@pytest.mark.slow
def test_a_model_learns_what_only_the_context_tells_and_predicts_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer_given_the_turn_before("dialogues")
    given = "--fusion text --audio_model tiny --text_model tiny --dataset_name dialogues --num_train_epochs 4 --use_cpu"
    scores = {}
    for turns in (0, 1):
        arguments = [*given.split(), "--context_turns", f"{turns}", "--output_dir", f"turns{turns}"]
        scores[turns] = train(*parse_arguments(arguments))["eval_macro_f1"]
    assert scores[1] == 1 and scores[0] < 0.8
    with open("asked.csv", "w", encoding="utf-8") as file:
        file.write("text,dialogue,speaker\n정말 기뻐,1,a\n그래,1,b\n정말 슬퍼,2,a\n그래,2,b\n")
    predict = "--do_predict --model_name_or_path turns1 --predict_file asked.csv --output_dir predicted --use_cpu"
    train(*parse_arguments(predict.split()))
    with open("predicted/predictions.csv", encoding="utf-8") as file:
        answers = [line.split(",")[3] for line in file.read().splitlines()[1:]]
    assert answers[1::2] == ["happy", "sad"]


@pytest.mark.slow
def test_the_turn_before_tells_of_the_demo_what_the_words_leave_open(tmp_path):
    prepare("demo", None, tmp_path / "demo")
    given = f"--fusion text --audio_model tiny --text_model tiny --dataset_name {tmp_path / 'demo'} --use_cpu --seed 1"
    none, one = (
        train(*parse_arguments([*given.split(), "--context_turns", turns, "--output_dir", str(tmp_path / turns)]))
        for turns in ("0", "1")
    )
    assert one["eval_macro_f1"] > none["eval_macro_f1"] + 0.03


def test_a_dataset_without_dialogues_is_refused(tmp_path):
    Dataset.from_dict({"text": ["a", "b"] * 4, "label": ["x", "y"] * 4}).save_to_disk(tmp_path / "rows")
    arguments = DataArguments(dataset_name=str(tmp_path / "rows"), context_turns=2)
    with pytest.raises(InputError, match="^--context_turns 2 needs a column context or dialogue; give one"):
        load_splits(arguments, False, modalities=("text",))
