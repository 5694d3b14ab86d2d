"""What the columns of a prepared dataset mean, and their content but for the recordings as one table.
A corpus need not have all of them; a column with nothing in it counts as absent."""

from functools import partial

import pandas
from datasets import DatasetDict
from scipy.stats import entropy

from corpora.roles import encode_labels, read_columns
from foundation.words import time_in_words


MEANINGS = {
    "audio": "encoded recording in `bytes`, file name in `path`; not decoded on loading",
    "text": "transcript",
    "asr_text": "transcript by a speech recogniser",
    "raw_text": "transcript with the corpus's tags for noise, breath and fillers",
    "label": "null where raters tie or none is given",
    "emotions": "classes that most raters chose, several where they tie",
    "votes": "number of raters who chose each class, in the order of the classes",
    "valence": "mean over the raters, 1 to 5",
    "arousal": "mean over the raters, 1 to 5",
    "segment_id": "name of the utterance in the corpus",
    "session": "recording session",
    "dialogue": "session and topic, in which turns follow each other",
    "speaker": "who speaks",
    "gender": "of the speaker, F or M",
    "start": "where the utterance begins in its session's recording, seconds",
    "end": "where it ends, seconds",
    "duration": "length of the clip, seconds",
}

# With a blank at the end, which no class has, so that they differ from any.
TIE = "(tie) "
UNLABELLED = "(no label) "

# Counts `(num_rows, num_labels)`, at least one in each row → entropy of the raters' shares in bits `(num_rows,)`.
vote_entropy = partial(entropy, base=2, axis=1)


def read_table(dataset: DatasetDict) -> pandas.DataFrame:
    """The rows of all splits in their order, without recordings and transcripts. `split` and `label` are categorical,
    `TIE` and `UNLABELLED` are categories where they occur. As far as the dataset has them there are `duration`
    (seconds), `session`, `speaker`, `emotions` (lists of class indices) and `votes`."""
    columns = read_columns(dataset.items(), ("label", "duration", "session", "speaker", "emotions", "votes"))
    classes = encode_labels(dataset.items(), columns)
    rows = pandas.DataFrame(columns).drop(columns="segment_id").rename(columns={"part": "split"})
    rows = rows.drop(columns=[column for column in rows if column != "label" and rows[column].isna().all()])
    rows["split"] = pandas.Categorical(rows["split"], categories=list(dataset))
    if "session" in rows:
        # Numbers become floating when one is missing.
        rows["session"] = rows["session"].convert_dtypes()
    tied = rows["emotions"].map(len) > 1 if "emotions" in rows else [False] * len(rows)
    names = [
        (TIE if is_tie else UNLABELLED) if pandas.isna(label) else classes[int(label)]
        for label, is_tie in zip(rows["label"], tied, strict=True)
    ]
    categories = [*classes, *(name for name in (TIE, UNLABELLED) if name in names)]
    rows["label"] = pandas.Categorical(names, categories)
    return rows


def sizes(rows: pandas.DataFrame) -> list[str]:
    """Rows, time, sessions and speakers of a table from `read_table`, as far as it has them: "1,000 rows" ..."""
    phrases = [f"{len(rows):,} rows"]
    if "duration" in rows:
        phrases.append(time_in_words(rows["duration"].sum()))
    return phrases + [f"{rows[name].nunique():,} {name}s" for name in ("session", "speaker") if name in rows]
