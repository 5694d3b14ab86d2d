"""How names, counts, times and commands are written in messages, reports and cards."""

import re
from pathlib import PurePath


NAMES_SHOWN = 5
# What a terminal would act on, ends a line or turns its direction; and what is no character.
CONTROLS = "\\0-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069"
UNWRITABLE = re.compile(f"[{CONTROLS}\\ud800-\\udfff]")
# How a cell begins that a spreadsheet calculates, be it after our own apostrophes; no number does.
FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?!\.?\d[\d.]*(?:[eE][+-]?\d+)?$|inf$))")


def first_names(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(map(writable, names[:NAMES_SHOWN])) + more


def writable(text: str) -> str:
    """As it can be written in a line, with escapes for what isn't text or a terminal would act on; a file's name that
    isn't UTF-8 is read as cp949 (Korean zips have such)."""
    if not UNWRITABLE.search(text):
        return text
    try:
        # Folder by folder: only some of them may come from elsewhere.
        text = "/".join(_decode_name(name.encode("utf-8", "surrogateescape")) for name in text.split("/"))
    except UnicodeError:
        pass
    return UNWRITABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _decode_name(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp949")


def counted(number: float, things: str) -> str:
    """A number of things, whose name is their plural."""
    return f"1 {things[:-1]}" if number == 1 else f"{number:,.12g} {things}"


def with_share(count: float, total: float) -> str:
    """A count, which may be a sum of shares, and in brackets its share of a total."""
    written = f"{count:,.0f}" if float(count).is_integer() else f"{count:,.1f}"
    return f"{written} ({count / max(total, 1):.1%})"


def time_in_words(seconds: float) -> str:
    """Hours, or less than one in minutes."""
    return f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def without_folders(argument: str) -> str:
    """An argument without the folders of the machine, which are nobody's business."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = PurePath(value)
    return option + equals + (path.name if path.is_absolute() else value)


def cell(text: str) -> str:
    """As it can stand in a Markdown table."""
    return " ".join(text.replace("|", r"\|").split())


def inert(value):
    """A cell of a csv as a spreadsheet shows it, after an apostrophe where it would be calculated; [`active`] undoes
    it."""
    is_formula = isinstance(value, str) and FORMULA.match(value)
    return f"'{value}" if is_formula else value


def active(value: str) -> str:
    """What was made [`inert`], as it was."""
    return value[1:] if value.startswith("'") and FORMULA.match(value) else value


def escape_markdown(text: str) -> str:
    """Text as Markdown that shows it, without HTML, emphasis, links, code or mathematics."""
    special = r"([\\`*~$]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])|^[#>])"
    return re.sub(special, r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
