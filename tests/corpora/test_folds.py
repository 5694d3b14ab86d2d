"""The folds: nobody on two sides, the same from any order of rows, and the paper's split as scikit-learn makes it."""

import random

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from corpora.folds import find_overlaps, split_rows
from foundation.errors import InputError


# KEMDy20's, and its ties.
COUNTS = {"neutral": 11120, "happy": 1183, "surprise": 156, "angry": 144, "sad": 121, "disgust": 61, "fear": 43}
NUM_TIES = 634


def make_columns(num_sessions=40, rows_per_speaker=3, **columns):
    """Two speakers a session, whose rows take turns, and no two alike transcripts."""
    rows = [(s, f"User{2 * s - t:03d}") for s in range(1, num_sessions + 1) for t in (1, 0) * rows_per_speaker]
    made = {"session": [session for session, _ in rows], "speaker": [speaker for _, speaker in rows]}
    numbers = range(len(rows))
    made |= {"segment_id": [f"row{n:04d}" for n in numbers], "text": [f"말 {n}" for n in numbers]}
    return {**made, "label": [n % 3 for n in numbers], "part": ["train"] * len(rows), **columns}


def shuffled(columns, seed=0):
    order = random.Random(seed).sample(range(len(columns["label"])), len(columns["label"]))
    return {name: [values[row] for row in order] for name, values in columns.items()}


def part_of_segments(columns, **options):
    return dict(zip(columns["segment_id"], split_rows(columns, **options).parts, strict=True))


@pytest.mark.parametrize("name", ["session", "speaker"])
@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_nobody_is_on_two_sides_and_everybody_is_tested_once(name, num_folds):
    columns = make_columns()
    tested = []
    for fold in range(1, num_folds + 1):
        split = split_rows(columns, name, num_folds, fold)
        kinds = {"segment_id", "text", "speaker", "session"} if name == "session" else {"segment_id", "text", "speaker"}
        for kind in kinds:
            seen = [{v for v, p in zip(columns[kind], split.parts) if p == part} for part in split.groups]
            assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2]), kind
        assert set(split.parts) == {"train", "validation", "test"}
        tested += [row for row, part in enumerate(split.parts) if part == "test"]
        assert len(split.groups["validation"]) == (2 if name == "session" else 4)
    assert sorted(tested) == list(range(len(columns["label"])))


def test_the_folds_of_kemdy20s_sessions():
    columns = make_columns()
    split = split_rows(columns)
    assert (split.name, split.num_folds, split.fold) == ("session", 5, 5)
    assert split.groups == {"train": list(range(3, 33)), "validation": [1, 2], "test": list(range(33, 41))}
    first = split_rows(columns, fold=1)
    assert (first.groups["test"], first.groups["validation"]) == (list(range(1, 9)), [9, 10])
    assert not split.warnings


@pytest.mark.parametrize("options", [{}, {"fold": 2}, {"name": "speaker"}, {"num_folds": 40, "fold": 13}])
def test_folds_do_not_depend_on_the_order_of_the_rows(options):
    columns = make_columns()
    for seed in range(3):
        assert part_of_segments(shuffled(columns, seed), **options) == part_of_segments(columns, **options)


def test_numbers_go_by_number_and_names_by_name():
    columns = {"label": [0] * 12, "segment_id": list("abcdefghijkl"), "part": ["train"] * 12}
    numbers = split_rows({**columns, "session": list(range(12, 0, -1))}, num_folds=6)
    assert numbers.groups["test"] == [11, 12]
    names = split_rows({**columns, "session": [str(number) for number in range(12, 0, -1)]}, num_folds=6)
    assert names.groups["test"] == ["8", "9"]


@pytest.mark.parametrize("num_sessions, kept", [(2, 0), (3, 1), (4, 2), (39, 2), (100, 5)])
def test_a_twentieth_validates_but_one_session_is_left_to_train_on(num_sessions, kept):
    split = split_rows(make_columns(num_sessions), num_folds=min(num_sessions, 10))
    assert len(split.groups["validation"]) == kept
    assert len(split.groups["train"]) >= 1
    assert any("one has to be left to train on" in warning for warning in split.warnings) == (kept < 2)


def test_ties_are_neither_scored_nor_lost_to_training():
    columns = make_columns(4)
    columns["label"] = [None] * len(columns["label"])
    split = split_rows(columns, num_folds=4)
    assert {part for session, part in zip(columns["session"], split.parts) if session == 3} == {"train"}
    assert {part for session, part in zip(columns["session"], split.parts) if session != 3} == {None}


def kemdy20_labels():
    names = list(COUNTS)
    labels = [names.index(name) for name, count in COUNTS.items() for _ in range(count)] + [None] * NUM_TIES
    random.Random(0).shuffle(labels)
    return labels


def test_paper_split_is_scikit_learns_over_the_labelled_rows_in_file_order():
    labels = kemdy20_labels()
    columns = {"label": labels, "part": ["train"] * len(labels), "segment_id": list(range(len(labels)))}
    labelled = np.flatnonzero([label is not None for label in labels])
    assert len(labelled) == 12_828
    classes = [labels[row] for row in labelled]
    train, test = train_test_split(labelled, test_size=0.2, random_state=42, stratify=classes)
    assert (len(train), len(test)) == (10_262, 2_566)
    split = split_rows(columns)
    assert split.name == "paper"
    ours = {part: [row for row, other in enumerate(split.parts) if other == part] for part in ("train", "test")}
    assert ours["test"] == sorted(test)
    assert [row for row in ours["train"] if labels[row] is not None] == sorted(train)
    # Ties wait on the training side for what becomes of them.
    assert len(ours["train"]) == 10_262 + NUM_TIES


def test_paper_split_keeps_a_stratified_tenth_where_epochs_are_compared():
    labels = kemdy20_labels()
    columns = {"label": labels, "part": ["train"] * len(labels), "segment_id": list(range(len(labels)))}
    plain, split = split_rows(columns, "paper"), split_rows(columns, "paper", with_validation=True)
    kept = [row for row, part in enumerate(split.parts) if part == "validation"]
    assert len(kept) == 1027
    assert {plain.parts[row] for row in kept} == {"train"}
    assert [part == "test" for part in split.parts] == [part == "test" for part in plain.parts]
    share = sum(labels[row] == 0 for row in kept) / len(kept)
    assert share == pytest.approx(11_120 / 12_828, abs=0.002)


def test_the_datasets_own_parts_keep_their_sides():
    parts = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2 + ["unlabelled"]
    columns = {"label": [0, 1] * 5 + [None], "part": parts, "segment_id": list(range(11))}
    assert split_rows(columns).parts == ["train"] * 6 + ["validation"] * 2 + ["test"] * 2 + [None]
    without_test = {name: values[:8] for name, values in columns.items()}
    assert split_rows(without_test).parts == ["train"] * 6 + ["test"] * 2


def test_epochs_of_the_datasets_own_parts_are_compared_on_whole_sessions_where_there_are_some():
    columns = make_columns(6)
    columns["part"] = ["test" if session == 1 else "train" for session in columns["session"]]
    split = split_rows(columns, with_validation=True)
    kept = {session for session, part in zip(columns["session"], split.parts) if part == "validation"}
    assert kept == {5, 6}
    del columns["session"], columns["speaker"]
    assert split_rows(columns, with_validation=True).parts.count("validation") == 3


def test_the_split_that_is_taken_when_none_is_named():
    columns = make_columns(4)
    assert split_rows(columns).name == "session"
    assert split_rows({**columns, "session": [None] * len(columns["label"])}).name == "speaker"
    del columns["session"], columns["speaker"]
    assert split_rows(columns).name == "paper"
    assert split_rows({**columns, "part": ["train", "test"] * 12}).name == "predefined"


@pytest.mark.parametrize(
    "columns, name, reason",
    [
        (
            {"session": [1, None] * 12},
            "speaker",
            "the split is speaker, not session: the session is missing in 12 rows: ",
        ),
        (
            {"session": [1] * 24, "speaker": ["a"] * 24},
            "paper",
            "the split is paper, not speaker: there is only one spe",
        ),
        (
            {"part": ["en"] * 12 + ["de"] * 12},
            "session",
            "the split is session, not predefined: it needs splits named t",
        ),
        ({"part": ["test"] * 24}, "session", "rows of test are trained on: --split session divides all rows anew"),
        ({"part": ["all"] * 24}, "session", None),
        ({"part": ["train.clean"] * 8 + ["dev"] * 8 + ["test-other"] * 8}, "predefined", None),
        (
            {"part": ["train"] * 8 + ["test"] * 8 + ["extra"] * 8},
            "predefined",
            "rows of extra neither train nor are sco",
        ),
    ],
)
def test_a_default_split_always_exists_and_says_why_it_is_no_better_one(columns, name, reason):
    split = split_rows(make_columns(4, **columns))
    assert split.name == name and {"train", "test"} <= set(split.parts)
    warnings = [warning for warning in split.warnings if "folds" not in warning]
    assert warnings[-1].startswith(reason) if reason else not warnings


@pytest.mark.parametrize("labels", [[0] + [1] * 23, list(range(24)), [0, 1] + [None] * 22])
def test_paper_is_random_where_a_class_is_too_rare_to_be_stratified(labels):
    columns = {"label": labels, "part": ["train"] * 24, "segment_id": list(range(24))}
    split = split_rows(columns)
    assert (split.name, split.warnings) == ("paper", ["a class has too few rows for a stratified split; it is random"])
    assert split.description.startswith("random 80/20")
    assert split.parts.count("test") == -(-sum(label is not None for label in labels) // 5)


def test_what_a_refused_split_suggests_is_possible():
    """The refusals don't send each other round in a circle."""
    columns = {"label": [0, 1] * 4, "session": [1] * 8, "part": ["train"] * 8, "segment_id": list(range(8))}
    for name in ("predefined", "session", "speaker"):
        with pytest.raises(InputError, match="; give --split paper$"):
            split_rows(columns, name)
    assert split_rows(columns, "paper").instead == "a dataset with more labelled rows"


def test_epochs_of_a_single_session_are_compared_on_a_tenth_of_its_rows():
    columns = make_columns(8, session=[1] * 48, speaker=["a"] * 48, part=["train"] * 40 + ["test"] * 8)
    assert split_rows(columns, with_validation=True).parts.count("validation") == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_folds": 1}, "--num_folds 1 is too small; give 2 or more"),
        ({"fold": 0}, "--fold 0 is too small; give 1 or more"),
        ({"fold": 5}, "--fold 5 is more than the 4 folds; give 1 to 4"),
        ({"num_folds": 3, "fold": 4}, "--fold 4 is more than --num_folds 3; give 1 to 3"),
        ({"num_folds": 5}, "--num_folds 5 is more than the 4 sessions; give 2 to 4"),
        ({"name": "paper", "fold": 1}, "--fold 1 has no use with --split paper"),
        ({"name": "predefined", "num_folds": 5}, "--num_folds 5 has no use with --split predefined"),
        ({"name": "predefined"}, "can't divide the rows: it needs splits named train and test (or validation); this"),
        ({"name": "session", "columns": {"session": [1] * 24}}, "there is only one session; give --split speaker or"),
        ({"name": "session", "columns": {"session": [1, None] * 12}}, "is missing in 12 rows: row0001, row0003"),
        ({"name": "paper", "columns": {"label": [0] + [None] * 23}}, "fewer than two rows have a label; give --split"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(options, message):
    columns = make_columns(4, **options.pop("columns", {}))
    with pytest.raises(InputError) as error:
        split_rows(columns, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_two_parts_have_in_common():
    columns = {
        "session": [1, 1, 2, 2],
        "speaker": ["a", "b", "b", None],
        "text": ["네.", "아니", "네.", ""],
        "first_copy": ["row0", None, None, "row0"],
    }
    overlaps = find_overlaps(columns, ["train", "train", "test", "test"])
    common = {"parts": ["train", "test"], "count": 1, "rows_of_test": 1}
    assert overlaps == {
        "train and test share 1 speaker (rows of test: 1): b": common | {"kind": "speakers", "values": ["b"]},
        # A run may be published, transcripts may not.
        "train and test share 1 transcript (rows of test: 1): 네.": common | {"kind": "transcripts", "values": None},
        "train and test share 1 recording (rows of test: 1): row0": common | {"kind": "recordings", "values": ["row0"]},
    }
    assert find_overlaps(columns, ["train", "train", None, None]) == {}
