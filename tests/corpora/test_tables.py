"""Tables of any dialect: what is read from them, and that no line is lost."""

import os

import pytest

from corpora.tables import NO_OBJECT, SEVERAL_LINES, STRAY_QUOTE, WRONG_WIDTH, cell_text, is_table, read_table
from foundation.errors import InputError


HEADER = "path,text,label\n"


@pytest.fixture
def read(tmp_path):
    """A function that gives the rows of a file, as lists of cells or a problem, and the notes."""

    def read(content):
        (tmp_path / "table").write_bytes(content if isinstance(content, bytes) else content.encode())
        notes = {}
        rows = read_table(tmp_path / "table", "--metadata", notes).rows
        return [[*row.cells.values()] if row.problem is None else row.problem for row in rows], notes

    return read


@pytest.mark.parametrize(
    "content",
    [
        "path;text;label\r\na.wav;가, 나;x\r\n",
        "path\ttext\tlabel\na.wav\t가, 나\tx",
        "path|text|label\n\na.wav|가, 나|x\n   \n",
        'sep=,\npath,text,label\na.wav, "가, 나",x\n',
        '"sep=;"\n"path";"text";"label"\n"a.wav";"가, 나";"x"\n',
        "path,text,label,,\na.wav,\"가, 나\",x\n".encode("utf-16"),
        "\ufeffpath,text,label,,\na.wav,\"가, 나\",x,,,\n",
        "path;text;label\ra.wav;가, 나;x\r",
        '{"path": "a.wav", "text": "가, 나", "label": "x"}\n\n',
        "path,text,label\n\ufeffa.wav,\"가, 나\",x\ufeff\n",
    ],
)  # fmt: skip
def test_delimiters_encodings_and_empty_columns_of_spreadsheets(read, content):
    rows, notes = read(content)
    assert rows == [["a.wav", "가, 나", "x"]]
    assert set(notes) <= {"csv read as utf-16"}


def test_a_stray_quote_swallows_no_row(read):
    lines = ['a.wav,"그가 말했다,happy', "b.wav,나,sad", 'c.wav,"네,sad', 'd.wav,"그가" 갔다,sad', 'e.wav,아",sad']
    rows, notes = read(HEADER + "\n".join(lines))
    assert rows == [line.split(",") for line in lines]
    assert notes == {STRAY_QUOTE: ["line 2", "line 4", "line 5"]}
    # Balanced by chance, so that csv would put two rows into one.
    rows, notes = read(HEADER + "\n".join([lines[0], lines[1], lines[4]]))
    assert rows == [line.split(",") for line in (lines[0], lines[1], lines[4])]


def test_a_cell_may_have_several_lines(read):
    rows, notes = read(HEADER + 'a.wav,"Well, I\nthink, ""so""\n\nyes",happy\nb.wav,"x, y",sad\n')
    assert rows == [["a.wav", 'Well, I\nthink, "so"\n\nyes', "happy"], ["b.wav", "x, y", "sad"]]
    assert notes == {SEVERAL_LINES: ["line 2"]}
    assert read('text\n"가\n나"\n다\n')[0] == [["가\n나"], ["다"]]


def test_a_row_of_another_width_is_told(read):
    rows, _ = read(HEADER + "a.wav,가\na.wav,가,x,y\na.wav,가,x,\n,,\n")
    assert rows == [WRONG_WIDTH, WRONG_WIDTH, ["a.wav", "가", "x"], ["", "", ""]]


def test_unnamed_columns_with_something_in_them_are_kept(read, tmp_path):
    assert read(",path,,\n0,a.wav,x,y\n1,b.wav\n")[0] == [["0", "a.wav", "x", "y"], ["1", "b.wav", "", ""]]
    assert read_table(tmp_path / "table", "", {}).header == ["column 1", "path", "column 3", "column 4"]


def test_cells_of_jsonl_are_of_any_kind(read):
    rows, _ = read('{"path": "a", "text": 1.5, "label": true}\n{"path": "b", "more": ["x"]}\n[1]\n{"path"\n')
    assert rows == [["a", 1.5, True, None], ["b", None, None, ["x"]], NO_OBJECT, NO_OBJECT]
    assert [cell_text(cell) for cell in ("말", 1.5, 7, True, None, float("nan"))] == ["말", "1.5", "7", "true", "", ""]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"PK\3\4 or other bytes", "is a spreadsheet or another file that is no text: save it as csv in utf-8"),
        (b"path,text\0", "that is no text"),
        ("path,te\0xt".encode("utf-16"), "that is no text"),
        ('[{"path": "a.wav"}]', "is a JSON array: save it as csv, or as jsonl, an object in each line"),
        ('{\n"path": "a.wav"\n}', "is JSON, but not an object in each line"),
        ("path,가\n".encode() + b"\xff,a", "is neither utf-8 nor cp949"),
        ("path,\u200bText,text \n", "has several columns named text"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(read, content, message):
    with pytest.raises(InputError, match=message) as error:
        read(content)
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="is no file"):
        read_table(tmp_path / "pipe.csv", "--metadata", {})


def test_a_table_is_told_from_a_recording(tmp_path):
    for content, expected in ((b"audio\na.wav", True), (b"RIFF\x24\0\0\0", False), (b"PK\3\4", True), (b"", True)):
        (tmp_path / "file").write_bytes(content)
        assert is_table(tmp_path / "file") == expected
