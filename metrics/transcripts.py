"""How far what a recogniser heard is from what was said."""

import re

import numpy as np


def error_rate(pairs: list[tuple[str, str]], of_characters: bool = False) -> float:
    """Of pairs of what was said and heard, the words, or characters without blanks, that were changed, left out or
    added, as a share of those said. Case and punctuation don't count."""
    edits = number = 0
    for pair in pairs:
        texts = (re.sub(r"[^\w\s]", " ", text.casefold()).split() for text in pair)
        said, heard = (np.array([*"".join(words)] if of_characters else words, dtype=str) for words in texts)
        distances = steps = np.arange(len(heard) + 1)  # of what was said so far from so much of what was heard
        for place, unit in enumerate(said, start=1):
            distances = np.append(place, np.minimum(distances[:-1] + (heard != unit), distances[1:] + 1))
            distances = np.minimum.accumulate(distances - steps) + steps
        edits, number = edits + distances[-1], number + len(said)
    return float(edits / max(number, 1))
