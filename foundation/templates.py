"""Fills the jinja templates that lie beside the code: pages in HTML and cards in Markdown."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from foundation.words import cell, with_share


def fill_template(template: Path, **values) -> str:
    """The text of a template, `*.html.jinja` or `*.md.jinja`; in HTML, values are escaped."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=template.name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "with_share": with_share, "thousands": "{:,}".format}
    return environment.get_template(template.name).render(values)
