"""Templates: what is escaped, and that nothing is left out in silence."""

import pytest
from jinja2 import UndefinedError

from foundation.templates import fill_template


@pytest.mark.parametrize("name, shown", [("a.html.jinja", "&lt;b&gt; &amp; c"), ("a.md.jinja", "<b> & c")])
def test_only_html_is_escaped(name, shown, tmp_path):
    (tmp_path / name).write_text("{% for word in words %}\n{{ word }}\n{% endfor %}\n")
    assert fill_template(tmp_path / name, words=["<b> & c", "d"]) == f"{shown}\nd\n"


def test_a_value_that_was_forgotten_is_an_error(tmp_path):
    (tmp_path / "a.md.jinja").write_text("{{ title }}")
    with pytest.raises(UndefinedError, match="title"):
        fill_template(tmp_path / "a.md.jinja")


def test_numbers_are_written_as_in_reports(tmp_path):
    (tmp_path / "a.md.jinja").write_text("{{ 13462 | thousands }} {{ 3 | with_share(12) }} {{ 'a|b' | cell }}")
    assert fill_template(tmp_path / "a.md.jinja") == r"13,462 3 (25.0%) a\|b"
