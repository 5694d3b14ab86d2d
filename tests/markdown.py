"""Markdown that is read back: what a card says in its tables."""

import re


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
