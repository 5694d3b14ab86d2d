"""The tables: numbers as the field writes them, what is pointed at, and what is said of it."""

import pytest

from experiments.records import system_frame
from experiments.results import PAPER, SESSION, Estimate
from experiments.sheets import (
    classes_sheet,
    comparisons_sheet,
    conditions_sheet,
    format_difference,
    format_interval,
    format_p,
    format_score,
    paper_sheet,
    scores_sheet,
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
    assert [format_difference(value) for value in (0.05, -0.05, 0.0)] == ["+.050", "−.050", ".000"]
    assert format_interval(-0.01, 0.03, is_difference=True) == "[−.010, +.030]" and format_interval(None, 0.3) == ""
    assert [format_p(p) for p in (0.0004, 0.0312, 1.0, None)] == ["<.001", ".031", "1.000", ""]
    assert [format_score(value, digits=5) for value in (0.89254, 0.8882, None)] == [".89254", ".88820", ""]


def test_a_failed_system_keeps_its_row(results):
    sheet = scores_sheet(results, PAPER)
    ranked = [entry.system for entry in results.scores_of(PAPER)]
    assert [row[0][0] for row in sheet.rows] == [*ranked, MARKED] and ranked[-1] == "majority"
    values = [entry.estimates["macro_f1"].value for entry in results.scores_of(PAPER)]
    assert values == sorted(values, reverse=True)
    state, *rest = sheet.rows[-1][1:]
    assert state == ("failed", [], True) and {text for text, *_ in rest} == {""}
    assert sheet.rows[-2][:2] == [("majority", ["baseline"], False), (".130 [.109, .154]", [".127 ± .011"], False)]
    assert "picks the epoch on the very rows that are reported" in sheet.notes[1]
    assert "draws the 40 sessions whole" in sheet.notes[0] and "wider" not in sheet.notes[0]


def test_attributes_are_columns_where_there_are_some(results):
    assert not any(name.startswith("CCC") for name in scores_sheet(results, SESSION).frame)
    there = make_results()
    there.scores[-1].estimates["ccc_pace_of_it"] = Estimate(0.5123, 0.4, 0.6, 0.51, None)
    frame = scores_sheet(there, there.scores[-1].protocol).frame.set_index("system")
    assert [cell for cell in frame["CCC pace_of_it"] if cell] == [".512 [.400, .600]\n.510"]
    system = system_frame(there).query(f"system == '{there.scores[-1].system}'")
    assert system.ccc_pace_of_it.dropna().tolist() == [0.5123]


def test_what_else_was_scored_has_a_table_of_means(results):
    assert conditions_sheet(results, SESSION) is None
    there = make_results()
    runs = [run for run in there.runs if run.protocol == SESSION and run.scores]
    for number, run in enumerate(runs):
        run.scores |= {"noise0_macro_f1": 0.1 * (number % 2), "worst_gender_macro_f1": 0.25}
    frame = conditions_sheet(there, SESSION).frame.set_index("system")
    assert list(frame) == ["all rows", "0 dB", "worst gender"]
    assert set(frame.index) == {run.system for run in runs} and set(frame["worst gender"]) == {".250"}
    one = runs[0].system
    means = [run.scores["noise0_macro_f1"] for run in runs if run.system == one]
    assert frame["0 dB"][one] == format_score(sum(means) / len(means))


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
    fusions, backbones = (paper_sheet(results, table).frame for table in results.tables)
    published = dict(zip(fusions["fusion"], fusions["published weighted F1"]))
    assert (published["late_fusion"], published["early_fusion"]) == (".88820", ".89021")
    kinds = dict(zip(fusions["fusion"], fusions["kind"]))
    assert kinds["audio"] == "audio" and kinds["late_fusion"] == "late" and kinds["hybrid_fusion"] == "cross-modality"
    assert {kinds[name] for name in ("early_fusion", "mlp_mixer", "stack", "residual", "rsa", "rsa_cfn")} == {"early"}
    assert list(backbones.iloc[1][["text backbone", "variant"]]) == ["xlm-roberta-base", "no label transform"]
    there = make_results()
    there.scores = [entry for entry in there.scores if entry.protocol == SESSION]
    there.runs = [run for run in there.runs if run.system != "rsa" or run.protocol == SESSION]
    sheet = paper_sheet(there, there.tables[0])
    rows = sheet.frame.set_index("fusion")
    assert rows["weighted F1 (paper)"][["rsa", "stack"]].tolist() == ["not run", "failed"]
    assert rows["weighted F1 (session)"]["rsa"].startswith(".")
    marks = dict(zip(sheet.frame["fusion"], sheet.marked["weighted F1 (paper)"]))
    assert marks["stack"] and not marks["rsa"]


def test_a_table_that_the_paper_has_not_shows_no_published_numbers(results):
    there = make_results()
    for row in there.tables[0].rows:
        row.published = None
    sheet, published = paper_sheet(there, there.tables[0]), paper_sheet(results, results.tables[0])
    assert sheet.frame.equals(published.frame.drop(columns="published weighted F1"))
    assert "Published" not in " ".join(sheet.notes)


def test_the_surest_differences_come_first_and_are_marked(results):
    sheet = comparisons_sheet(results, SESSION)
    assert len(sheet.rows) == 66
    marks = [is_marked for *_, is_marked in (row[5] for row in sheet.rows)]
    assert any(marks) and not all(marks) and marks == sorted(marks, reverse=True)
    assert comparisons_sheet(make_smallest(), PAPER) is None


def test_a_system_that_knows_two_classes_is_pointed_at(results):
    rows = {row[0][0]: row[1:] for row in classes_sheet(results, SESSION).rows}
    assert rows["audio"][0] == ("2 of 7", [], True)
    assert [is_marked for *_, is_marked in rows["audio"][1:]] == [False, False, *[True] * (len(LABELS) - 2)]
    assert rows[LONG_NAME][0][0] == "7 of 7" and not any(is_marked for *_, is_marked in rows[LONG_NAME])
    assert rows[MARKED][1][1][2] == "10,691 rows"


def test_words_are_flush_left_and_numbers_flush_right(results):
    assert set(scores_sheet(results, SESSION).sides[1:]) == {"r"}
    assert paper_sheet(results, results.tables[0]).sides == ["l"] * 5 + ["r"] * 7
