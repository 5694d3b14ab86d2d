"""The scores of parts of the rows, such as those of each speaker: what the mean over all of them hides."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from scipy.stats import entropy

from metrics.scores import confusion_matrix, matrix_scores


# Of more slices than these, as of speakers with a few rows each, the worst is the unluckiest.
MOST_SLICES = 50
# The columns that `divide` reads.
DIVIDING = ("gender", "speaker", "duration", "votes")
NUM_QUARTERS = 4


def divide(table: Mapping[str, Sequence]) -> dict[str, pandas.Series]:
    """Of each row the slice that it is in, by what divides the rows: gender and speaker, and quarters of the clips'
    length in seconds and of the entropy of the raters' votes in bits, as far as every row has them."""
    slices = {name: pandas.Series(table[name]) for name in ("gender", "speaker") if name in table}
    if "duration" in table:
        slices["length"] = _quarters(pandas.Series(table["duration"], dtype=float))
    if "votes" in table and None not in table["votes"]:
        slices["disagreement"] = _quarters(pandas.Series(entropy(np.array(table["votes"], float), base=2, axis=1)))
    return {name: rows for name, rows in slices.items() if rows.notna().all() and 1 < rows.nunique() <= MOST_SLICES}


def _quarters(values: pandas.Series) -> pandas.Series:
    """Names of the ranges of values, with as many rows in each as equal values allow."""
    if values.isna().any():
        return values
    parts = pandas.qcut(values.round(2), NUM_QUARTERS, duplicates="drop")
    return parts.map(lambda part: f"{max(part.left, 0):g} to {part.right:g}", na_action="ignore")


def slice_scores(
    references: np.ndarray, predictions: np.ndarray, slices: dict[str, pandas.Series], num_labels: int
) -> pandas.DataFrame:
    """A line for each slice: `by`, `slice`, `rows`, and the scores of all its rows; the worst of each kind first."""
    lines = []
    for by, names in slices.items():
        for name, rows in names.groupby(names, observed=True).groups.items():
            scores = matrix_scores(confusion_matrix(references[rows], predictions[rows], num_labels))
            lines.append({"by": by, "slice": name, "rows": len(rows)} | {name: float(s) for name, s in scores.items()})
    lines.sort(key=lambda line: (list(slices).index(line["by"]), line["macro_f1"]))
    return pandas.DataFrame(lines, columns=None if lines else ["by", "slice", "rows", "macro_f1"])
