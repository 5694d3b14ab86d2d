"""The tables: numbers as the field writes them, records that are the dataclasses' own, and what is pointed at."""

import pytest

from experiments.results import PAPER, SESSION
from experiments.tables import (
    SCORES,
    classes_sheet,
    comparisons_sheet,
    find_difference,
    format_interval,
    format_p,
    format_published,
    format_score,
    paper_sheet,
    run_records,
    scores_sheet,
    system_records,
)
from tests.made_results import LABELS, LONG_NAME, MARKED, make_results, make_smallest


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.8123, ".812"), (1.0, "1.000"), (0.0, ".000"), (-0.0412, "−.041"), (-0.0001, ".000"), (None, "")],
)
def test_scores_are_written_as_in_the_field(value, written):
    assert format_score(value) == written


def test_differences_have_a_sign_and_small_p_are_small():
    assert [format_score(value, is_difference=True) for value in (0.05, -0.05, 0.0)] == ["+.050", "−.050", ".000"]
    assert format_interval(-0.01, 0.03, is_difference=True) == "[−.010, +.030]" and format_interval(None, 0.3) == ""
    assert [format_p(p) for p in (0.0004, 0.0312, 1.0, None)] == ["<.001", ".031", "1.000", ""]
    assert [format_published(value) for value in (0.89254, 0.8882, None)] == [".89254", ".88820", ""]


def test_records_hold_every_number(results):
    records = {(record["system"], record["protocol"]): record for record in system_records(results)}
    assert len({tuple(record) for record in records.values()}) == 1
    for scores in results.scores:
        record = records[scores.system, scores.protocol]
        for name in SCORES:
            estimate = scores.estimates[name]
            expected = [estimate.value, estimate.low, estimate.high, estimate.mean, estimate.sd]
            assert [record[name + suffix] for suffix in ("", "_low", "_high", "_mean", "_sd")] == expected
        for entry in scores.classes:
            measured = (entry.f1, entry.recall, entry.rows, entry.predicted)
            names = ("f1", "recall", "rows", "predicted")
            assert tuple(record[f"{name}_{entry.name}"] for name in names) == measured
        assert (record["runs"], record["rows"], record["state"]) == (scores.num_runs, scores.num_rows, "finished")
    assert records["audio", SESSION]["predicted_classes"] == 2
    assert records["rsa_cfn", PAPER]["published_weighted_f1"] == 0.89254
    failed = records[MARKED, PAPER]
    assert (failed["state"], failed["failed_runs"], failed["macro_f1"]) == ("failed", 2, None)


def test_runs_have_their_scores_and_errors(results):
    for run, record in zip(results.runs, run_records(results), strict=True):
        assert record["command"] == run.command and record["error"] == run.error
        assert {name: record[name] for name in run.scores} == run.scores
        assert {name: record[f"last_epoch_{name}"] for name in run.last_epoch} == run.last_epoch


def test_a_failed_system_keeps_its_row(results):
    sheet = scores_sheet(results, PAPER)
    assert [row[0].text for row in sheet.rows] == [system.name for system in results.systems]
    assert sheet.rows[-1][1].text == "failed" and sheet.rows[-1][1].is_marked
    assert all(len(row) == len(sheet.head) == len(sheet.alignment) for row in sheet.rows)
    assert "picks the epoch on the very rows that are reported" in sheet.notes[1]
    assert "draws the 40 sessions whole" in sheet.notes[0] and "wider" not in sheet.notes[0]


def test_few_sessions_and_single_rows_are_warned_of(results):
    few = make_results()
    for entry in few.scores:
        entry.num_groups = 8
    assert "With so few sessions the true interval is wider" in scores_sheet(few, SESSION).notes[0]
    for entry in few.scores:
        entry.group_column = None
    assert "over the 8 rows" in scores_sheet(few, SESSION).notes[0]
    assert "no intervals" in scores_sheet(make_smallest(), PAPER).notes[0]


def test_the_papers_tables_say_what_is_missing(results):
    fusions, backbones = (paper_sheet(results, table) for table in results.tables)
    assert [(row[0].text, row[5].text) for row in fusions.rows][2:4] == [
        ("late_fusion", ".88820"),
        ("early_fusion", ".89021"),
    ]
    kinds = {row[0].text: row[1].text for row in fusions.rows}
    assert kinds["audio"] == "audio" and kinds["late_fusion"] == "late" and kinds["hybrid_fusion"] == "cross-modality"
    assert {kinds[name] for name in ("early_fusion", "mlp_mixer", "stack", "residual", "rsa", "rsa_cfn")} == {"early"}
    assert [cell.text for cell in backbones.rows[1][2:5]][::2] == ["xlm-roberta-base", "no label transform"]
    there = make_results()
    there.scores = [entry for entry in there.scores if entry.protocol == SESSION]
    there.runs = [run for run in there.runs if run.system != "rsa" or run.protocol == SESSION]
    rows = {row[0].text: row for row in paper_sheet(there, there.tables[0]).rows}
    assert rows["rsa"][9].text == "not run" and rows["stack"][9].text == "failed"
    assert rows["rsa"][6].text.startswith(".")


def test_a_table_that_the_paper_has_not_shows_no_published_numbers(results):
    there = make_results()
    for row in there.tables[0].rows:
        row.published = None
    sheet, published = paper_sheet(there, there.tables[0]), paper_sheet(results, results.tables[0])
    assert [name for name in published.head if name not in sheet.head] == ["published weighted F1"]
    assert len(sheet.head) == len(sheet.alignment) == len(published.head) - 1
    assert [row[:5] + row[6:] for row in published.rows] == sheet.rows
    assert "Published" not in " ".join(sheet.notes)


def test_the_surest_differences_come_first_and_are_marked(results):
    sheet = comparisons_sheet(results, SESSION)
    assert len(sheet.rows) == 66
    marks = [row[5].is_marked for row in sheet.rows]
    assert any(marks) and not all(marks) and marks == sorted(marks, reverse=True)
    assert comparisons_sheet(make_smallest(), PAPER) is None


def test_a_difference_is_found_from_both_sides(results):
    there, back = (find_difference(results, SESSION, *pair) for pair in (("rsa", "text"), ("text", "rsa")))
    assert there.value == -back.value > 0 and there.p_holm == back.p_holm
    assert (there.low, there.high) == (-back.high, -back.low)
    assert find_difference(results, SESSION, "rsa", "majority") is None


def test_a_system_that_knows_two_classes_is_pointed_at(results):
    rows = {row[0].text: row for row in classes_sheet(results, SESSION).rows}
    assert rows["audio"][1].text == "2 of 7" and rows["audio"][1].is_marked
    assert [cell.is_marked for cell in rows["audio"][2:]] == [False, False, *[True] * (len(LABELS) - 2)]
    assert rows[LONG_NAME][1].text == "7 of 7" and not any(cell.is_marked for cell in rows[LONG_NAME])
