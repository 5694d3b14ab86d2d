"""Error rates of words and characters, against values by hand and another algorithm."""

import functools

import numpy as np
import pytest

from metrics.transcripts import error_rate


@pytest.mark.parametrize(
    "said, heard, words, characters",
    [
        ("오늘 날씨가 좋아요.", "오늘 날씨가 좋아요", 0, 0),
        ("오늘 날씨가 좋아요", "오늘 날씨 좋아요", 1 / 3, 1 / 8),
        ("오늘 날씨가", "오늘날씨가", 1, 0),
        ("Well, yes", "well no yes", 1 / 2, 2 / 7),
        ("a b c", "", 1, 1),
        ("a", "b c a", 2, 2),
        ("", "a", 1, 1),
    ],
)
def test_what_was_changed_left_out_or_added_counts(said, heard, words, characters):
    assert error_rate([(said, heard)]) == pytest.approx(words)
    assert error_rate([(said, heard)], of_characters=True) == pytest.approx(characters)


def test_the_fewest_edits_are_counted_and_long_texts_weigh_more():
    rng, pairs, edits = np.random.default_rng(0), [], 0
    for _ in range(40):
        said, heard = ("".join(rng.choice([*"abc"], size)) for size in rng.integers(1, 12, 2))

        @functools.cache
        def distance(i, j, said=said, heard=heard):
            if not i or not j:
                return i + j
            kept = distance(i - 1, j - 1) + (said[i - 1] != heard[j - 1])
            return min(kept, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

        pairs.append((said, heard))
        edits += distance(len(said), len(heard))
    assert error_rate(pairs, of_characters=True) == edits / sum(len(said) for said, _ in pairs)
