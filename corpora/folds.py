"""Divides the rows of a dataset into those that train, choose and test a model, the same way on every machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import numpy as np

from corpora.values import PART_NAMES
from foundation.errors import InputError
from foundation.words import counted, first_names


PARTS = TRAIN, VALIDATION, TEST = "train", "validation", "test"
# No division: for a model that was trained on something else.
ALL = "all"
NUM_FOLDS = 5
VALIDATION_GROUPS = 20  # one group of so many is kept for validation
TEST_SIZE = 0.2
SPLIT_SEED = 42  # the paper's
VALIDATION_SIZE = 0.1
# What two parts may have in common, and the column that tells: for recordings the name of the first row with the same.
OVERLAPS = {"sessions": "session", "speakers": "speaker", "transcripts": "text", "recordings": "first_copy"}


@dataclass
class Split:
    """How rows are divided."""

    name: str
    # One of `PARTS` for each row; None for one without a label that would be scored, or that is neither trained on nor
    # scored.
    parts: list[str | None]
    description: str
    # Of splits by sessions or speakers, and which of these are in each part.
    num_folds: int | None = None
    fold: int | None = None
    groups: dict[str, list] = field(default_factory=dict)
    # What makes the division worse than it sounds.
    warnings: list[str] = field(default_factory=list)
    instead: str = ""  # the options of others that the columns allow


def find_groups(table) -> tuple[str, list] | None:
    """The column whose groups have to be drawn whole, and its values; `None` where there is none without a value
    missing. One of several groups comes before one of a single group."""
    columns = ((name, table[name][:]) for name in GROUP_COLUMNS if name in table.column_names)
    whole = [(name, values) for name, values in columns if not any(map(_is_null, values))]
    return max(whole, key=lambda column: len(set(column[1])) > 1, default=None)


def split_rows(columns: dict[str, list], name=None, num_folds=None, fold=None, with_validation: bool = False) -> Split:
    """Divide rows by their columns alone, whatever their order, except that `paper` goes by it: `part`, `label` (`None`
    for none), `segment_id`, and what the split goes by. `with_validation` takes a validation part also where the split
    has none of its own; the other defaults are those of the command line."""
    name, reasons = (name, []) if name else choose_split(columns)
    check_folds(name, num_folds, fold)
    if name == ALL:
        split = Split(ALL, [TEST] * len(columns["label"]), "all labelled rows are scored")
    else:
        problem = find_problem(name, columns)
        others = [f"--split {other}" for other in SPLITS if other != name and find_problem(other, columns) is None]
        instead = " or ".join(others) or "a dataset with more labelled rows"
        if problem is not None:
            raise InputError(f"--split {name} can't divide the rows: {problem}; give {instead}")
        split = replace(SPLITS[name](columns, num_folds, fold, with_validation), instead=instead)
        held_out = [part for part in dict.fromkeys(columns["part"]) if _role(part) in (VALIDATION, TEST)]
        if name != "predefined" and held_out:
            reasons.append(f"rows of {' and '.join(held_out)} are trained on: --split {name} divides all rows anew")
    split.warnings[:0] = reasons
    for row, label in enumerate(columns["label"]):
        if split.parts[row] in (VALIDATION, TEST) and label is None:
            split.parts[row] = None
    return split


def choose_split(columns: dict[str, list]) -> tuple[str, list[str]]:
    """The first of predefined, session, speaker and paper that the columns allow, and why it is none before it."""
    names = ("predefined", *GROUP_COLUMNS, "paper")
    chosen = next((name for name in names if find_problem(name, columns) is None), "paper")
    # A column with nothing in it counts as absent, and the parts of a dataset that isn't divided as none.
    told = ["predefined"] * (len(set(columns["part"])) > 1)
    told += [name for name in GROUP_COLUMNS if not all(map(_is_null, columns.get(name, ())))]
    before = [name for name in names[: names.index(chosen)] if name in told]
    return chosen, [f"the split is {chosen}, not {name}: {find_problem(name, columns)}" for name in before]


def find_problem(name: str, columns: dict[str, list]) -> str | None:
    """Why the columns don't allow a split; `None` where they do."""
    if name == "predefined":
        parts = dict.fromkeys(columns["part"])
        roles = set(map(_role, parts))
        if TRAIN in roles and roles & {VALIDATION, TEST}:
            return None
        return f"it needs splits named train and test (or validation); this dataset has {first_names(list(parts))}"
    if name == "paper":
        return None if len(columns["label"]) - columns["label"].count(None) > 1 else "fewer than two rows have a label"
    if name not in columns:
        return f"there is no column named {name}"
    if lost := [str(row) for row, group in zip(columns["segment_id"], columns[name]) if _is_null(group)]:
        return f"the {name} is missing in {counted(len(lost), 'rows')}: {first_names(lost)}"
    return None if len(set(columns[name])) > 1 else f"there is only one {name}"


def _role(part: str) -> str | None:
    """What a part of a dataset is for, told by the first word of its name: train-clean trains, dev.other validates."""
    return PART_NAMES.get(re.split(r"[^a-z]", part.lower())[0])


def check_folds(name: str, num_folds: int | None, fold: int | None) -> None:
    """Refuse numbers that no dataset could make legal."""
    for option, number, least in (("--num_folds", num_folds, 2), ("--fold", fold, 1)):
        if number is not None and name not in GROUP_COLUMNS:
            problem = f"{option} {number} has no use with --split {name}, which has no folds"
            raise InputError(f"{problem}; leave it out, or give --split {' or '.join(GROUP_COLUMNS)}")
        if number is not None and number < least:
            raise InputError(f"{option} {number} is too small; give {least} or more")
    if num_folds is not None and fold is not None and fold > num_folds:
        raise InputError(f"--fold {fold} is more than --num_folds {num_folds}; give 1 to {num_folds}")


def _split_by_group(
    column: str, columns: dict[str, list], num_folds: int | None, fold: int | None, with_validation: bool
) -> Split:
    """One fold of whole sessions or speakers is tested, blocks of them in sorted order, as equal in number as can be;
    those that follow it in the order validate."""
    groups = sorted(set(columns[column]))
    if num_folds is not None and num_folds > len(groups):
        raise InputError(f"--num_folds {num_folds} is more than the {len(groups)} {column}s; give 2 to {len(groups)}")
    blocks = np.array_split(np.arange(len(groups)), num_folds or min(NUM_FOLDS, len(groups)))
    folds = [[groups[index] for index in block] for block in blocks]
    if fold is not None and fold > len(folds):
        raise InputError(f"--fold {fold} is more than the {len(folds)} folds; give 1 to {len(folds)}")
    fold = fold or len(folds)
    tested = folds[fold - 1]
    # From the group after the tested ones around to the one before them.
    others = sum(folds[fold:], []) + sum(folds[: fold - 1], [])
    wanted = max(2, len(groups) // VALIDATION_GROUPS)
    kept = min(wanted, len(others) - 1)
    groups = {TRAIN: sorted(others[kept:]), VALIDATION: sorted(others[:kept]), TEST: tested}
    part_of = {group: part for part, members in groups.items() for group in members}
    warnings = []
    if kept < wanted:
        warnings.append(f"only {kept} {column}s validate, not {wanted}: one has to be left to train on")
    if num_folds is None and len(folds) < NUM_FOLDS:
        warnings.append(f"only {len(folds)} folds, not {NUM_FOLDS}: there are no more {column}s")
    if with_validation and not kept:
        raise InputError(f"--eval_strategy needs one {column} more than the {len(tested) + 1} there are; leave it out")
    parts, description = [part_of[group] for group in columns[column]], f"fold {fold} of {len(folds)}, {column}s"
    description += f" {first_names(list(map(str, tested)))} are tested"
    description += f", {first_names(list(map(str, groups[VALIDATION])))} validate" if kept else ""
    return Split(column, parts, description, len(folds), fold, groups, warnings)


def _split_as_paper(columns: dict[str, list], num_folds: None, fold: None, with_validation: bool) -> Split:
    """The paper's: a stratified 80/20 of the labelled rows in dataset order. Speakers are on both sides of it."""
    labels = columns["label"]
    labelled = [row for row, label in enumerate(labels) if label is not None]
    train, test, is_stratified = _draw(labelled, labels, TEST_SIZE)
    warnings = [] if is_stratified else ["a class has too few rows for a stratified split; it is random"]
    # Ties have no label to be scored by; they stay on the training side for what --ties makes of them.
    parts: list[str | None] = [TRAIN] * len(labels)
    for row in test:
        parts[row] = TEST
    how = "random stratified 80/20 of the paper" if is_stratified else "random 80/20"
    split = Split("paper", parts, f"{how}, speakers are on both sides", warnings=warnings)
    if with_validation:
        _keep_stratified_tenth(split, labels, sorted(train))
    return split


def _split_as_given(columns: dict[str, list], num_folds: None, fold: None, with_validation: bool) -> Split:
    role_of = {part: _role(part) for part in columns["part"]}
    if TEST not in role_of.values():
        # The validation part is what can be reported.
        role_of = {part: TEST if role == VALIDATION else role for part, role in role_of.items()}
    scored = [part for part, role in role_of.items() if role == TEST]
    parts = [role_of[part] for part in columns["part"]]
    unknown = [part for part, role in role_of.items() if role is None]
    warnings = [f"rows of {first_names(unknown)} neither train nor are scored"] if unknown else []
    split = Split("predefined", parts, f"the dataset's own splits, scored on {first_names(scored)}", warnings=warnings)
    if with_validation and VALIDATION not in parts:
        rows = [row for row, part in enumerate(parts) if part == TRAIN]
        training = {name: [values[row] for row in rows] for name, values in columns.items()}
        column = next((name for name in GROUP_COLUMNS if find_problem(name, training) is None), None)
        if column is None:
            _keep_stratified_tenth(split, columns["label"], rows)
        else:
            groups = sorted(set(training[column]))
            last = groups[-min(max(2, len(groups) // VALIDATION_GROUPS), len(groups) - 1) :]
            for row in [row for row in rows if columns[column][row] in last]:
                split.parts[row] = VALIDATION
            split.description += f", training {column}s {first_names(list(map(str, last)))} validate"
    return split


# Whose utterances are alike, the widest first.
GROUP_COLUMNS = ("session", "speaker")
# Each takes the columns, the number of folds, the fold, and whether there has to be a validation part.
SPLITS: dict[str, Callable[..., Split]] = {
    **{column: partial(_split_by_group, column) for column in GROUP_COLUMNS},
    "paper": _split_as_paper,
    "predefined": _split_as_given,
}


def _draw(rows: list[int], labels: list, share: float) -> tuple[list[int], list[int], bool]:
    """Rows that are left, a share of them drawn, and whether each class has its share of these."""
    from sklearn.model_selection import train_test_split  # takes a second to import, which folds have no use for

    options = {"test_size": share, "random_state": SPLIT_SEED}
    try:
        return *train_test_split(rows, stratify=[labels[row] for row in rows], **options), True
    except ValueError:  # a class of one row, or fewer rows than classes
        return *train_test_split(rows, **options), False


def _keep_stratified_tenth(split: Split, labels: list, rows: list[int]) -> None:
    """Move a tenth of the labelled training rows to the validation part."""
    rows = [row for row in rows if labels[row] is not None]
    if len(rows) < 2:
        raise InputError("one training row is too few to take a validation part from; leave out --eval_strategy")
    _, kept, is_stratified = _draw(rows, labels, VALIDATION_SIZE)
    if not is_stratified:
        split.warnings.append("a class has too few training rows for a stratified validation part; it is random")
    for row in kept:
        split.parts[row] = VALIDATION
    split.description += f", a {'stratified' if is_stratified else 'random'} tenth of the training rows validates"


def _is_null(group) -> bool:
    return group is None or group != group


def find_overlaps(columns: dict[str, list], parts: list[str | None]) -> dict[str, dict]:
    """What two parts have in common: sessions, speakers, transcripts that aren't empty, recordings. A line for each
    kind, and its record, without transcripts: a run may be published, they may not."""
    names = [part for part in dict.fromkeys((*PARTS, *parts)) if part is not None and part in parts]
    overlaps = {}
    for kind, column in OVERLAPS.items():
        values = columns.get(column, ())
        seen = {part: {v for v, p in zip(values, parts) if p == part and not _is_null(v) and v != ""} for part in names}
        for first, second in combinations(names, 2):
            if of_both := seen[first] & seen[second]:
                shared = sorted(of_both)
                num_rows = sum(value in of_both and part == second for value, part in zip(values, parts))
                told = f"share {counted(len(shared), kind)} (rows of {second}: {num_rows})"
                record = {"parts": [first, second], "kind": kind, "count": len(shared), f"rows_of_{second}": num_rows}
                record["values"] = None if kind == "transcripts" else shared
                overlaps[f"{first} and {second} {told}: {first_names(list(map(str, shared)))}"] = record
    return overlaps
