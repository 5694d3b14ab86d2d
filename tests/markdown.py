"""Markdown that is read back: code, tables and headings of a page."""

import re


def blocks(text):
    """The fenced blocks of code as pairs of language and code."""
    return [
        (language, re.sub(f"(?m)^{indent}", "", code))
        for indent, language, code in re.findall(r"(?ms)^( *)```(\S*)\n(.*?)^ *```$", text)
    ]


def prose(text):
    """The page without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```$", "", text)


def anchors(text):
    """What a link may name behind `#`, as GitHub makes it of the headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(text, *head):
    """The rows of the Markdown table whose head begins like that, as lists of cells."""
    lines = text.splitlines()
    beginning = "|" + "|".join(f" {name} " if name else " " for name in head)
    start = next(index for index, line in enumerate(lines) if line.startswith(beginning))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows
