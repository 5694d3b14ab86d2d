"""Texts that look alike are the same, and cells that say that there is nothing are nothing."""

import unicodedata

import pytest

from corpora.values import is_missing, tidy


@pytest.mark.parametrize(
    "text",
    [
        unicodedata.normalize("NFD", "기쁨"),
        "\ufeff기쁨",
        "기\u200b쁨",
        " 기쁨\u00a0",
        "기쁨\u200d ",
        "\t기쁨\r\n",
        "\u202e\x1b기쁨\0",
    ],
)
def test_texts_that_look_alike_are_the_same(text):
    assert tidy(text) == "기쁨"


def test_what_can_be_seen_stays():
    assert tidy("می\u200cروم") == "می\u200cروم"
    assert tidy("기쁨 과 슬픔") == "기쁨 과 슬픔"


def test_a_label_is_one_line():
    assert tidy("two\r\nlines\u2028\x1b[31m") == "two lines [31m" and tidy("\udcff") == "\\udcff"


@pytest.mark.parametrize("cell", ["", " ", "None", "nan", "NaN", "null", "N/A", "<NA>", "\u200b"])
def test_a_cell_that_says_that_there_is_nothing(cell):
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["neutral", "0", "False", "na", "nothing"])
def test_a_cell_with_a_value(cell):
    assert not is_missing(cell)
