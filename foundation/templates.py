"""Fills the jinja templates that lie beside the code: pages in HTML and cards in Markdown."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from foundation import words


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
    for name in ("cell", "counted", "escape_markdown", "with_share", "without_folders"):
        environment.filters[name] = getattr(words, name)
    environment.filters |= {"thousands": "{:,}".format, "score": "{:.3f}".format}
    return environment.get_template(template.name).render(values)
