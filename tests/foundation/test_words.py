"""Names and cells as they are written: nothing of them is acted on by a terminal or a spreadsheet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.words import active, escape_markdown, inert, writable


@given(st.text(alphabet="'=+-@\t1.e그a"))
def test_a_cell_comes_back_as_it_was(text):
    assert active(inert(text)) == text
    assert not inert(text).startswith(("=", "@", "\t"))


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("소리 1.wav", "소리 1.wav"),
        ("\x1b[31mred\nline\u2028", "\\x1b[31mred\\nline\\u2028"),
        ("a/" + "감정".encode("cp949").decode("utf-8", "surrogateescape"), "a/감정"),
        ("\udcff", "\\udcff"),
        ("می\u200cروم\u3000", "می\u200cروم\u3000"),
    ],
)
def test_a_name_is_one_line_without_orders_to_the_terminal(name, written):
    assert writable(name) == written


def test_markdown_shows_a_text_as_it_is():
    assert escape_markdown("rsa_cfn _x_ $a$ <b> [l](u)") == r"rsa_cfn \_x\_ \$a\$ &lt;b> [l]\(u)"
