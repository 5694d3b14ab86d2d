"""The card of a dataset on the Hub: metadata, and what a reader needs to judge, load and cite it.
Every number in it is counted from the dataset or comes from the report of its conversion."""

import shlex
from dataclasses import dataclass, field

import numpy as np
import pandas
from datasets import Audio, ClassLabel, DatasetDict, Features, List
from huggingface_hub import DatasetCard, DatasetCardData

from corpora.columns import MEANINGS, TIE, UNLABELLED, read_table, sizes, vote_entropy
from foundation.words import cell, with_share, without_folders


@dataclass(frozen=True)
class CorpusFacts:
    """What a card says about a corpus that its rows don't tell. `clause` is set where it may not be passed on."""

    pretty_name: str
    description: str
    terms: str
    metadata: dict = field(default_factory=dict)
    clause: str | None = None
    citation: str | None = None


def _etri_clause(name: str, where: str = "") -> str:
    return (
        f"{name} is licensed by ETRI to those who signed its licence agreement{where}. "
        "It may not be redistributed, and a converted copy is still the corpus."
    )


KEMDY20_PAGE = "https://nanum.etri.re.kr/share/kjnoh2/KEMDy20"
KEMDY20_CLAUSE = _etri_clause("KEMDy20", f" ({KEMDY20_PAGE})")
KEMDY19_CLAUSE = _etri_clause("KEMDy19")
KOREAN = {"language": ["ko"]}

FACTS = {
    "kemdy20": CorpusFacts(
        pretty_name="KEMDy20",
        description=(
            "Korean spontaneous dialogue with emotion labels. 80 adults talked in 40 pairs, each about six videos that "
            "they had watched; ten external raters judged the emotion, valence and arousal of every utterance."
        ),
        terms=f"{KEMDY20_CLAUSE} Keep this dataset private.",
        metadata=KOREAN | {"license": "other", "license_name": "etri-kemdy20", "license_link": KEMDY20_PAGE},
        clause=KEMDY20_CLAUSE,
        citation=f"K. J. Noh and H. Jeong, KEMDy20, ETRI. {KEMDY20_PAGE}",
    ),
    "kemdy19": CorpusFacts(
        pretty_name="KEMDy19",
        description=(
            "Korean dialogue with emotion labels, played by actors in 20 sessions of one woman and one man each; ten "
            "external raters judged the emotion, valence and arousal of every utterance."
        ),
        terms=f"{KEMDY19_CLAUSE} Keep this dataset private.",
        metadata=KOREAN | {"license": "other", "license_name": "etri-kemdy19"},
        clause=KEMDY19_CLAUSE,
        citation="KEMDy19, ETRI.",
    ),
    "demo": CorpusFacts(
        pretty_name="Synthetic corpus in the shape of KEMDy20",
        description=(
            "Synthetic sounds with made-up Korean transcripts, raters and labels. Nobody speaks in it: a generator "
            "decides how much of a label is in the voice and how much in the words. It is for trying software; scores "
            "on it say nothing about emotion."
        ),
        terms="Apache-2.0, like the generator that made it.",
        metadata=KOREAN | {"license": "apache-2.0"},
    ),
    "csv": CorpusFacts(
        pretty_name="",
        description="Recordings with transcripts and labels.",
        terms="No licence is stated here. Before sharing it, make sure that you may, and state one.",
    ),
}


def dataset_card(dataset: DatasetDict, report: dict, corpus: str, repo_id: str, arguments: list[str]) -> DatasetCard:
    """
    The card of a converted corpus.

    Args:
        dataset (`DatasetDict`): As written by `prepare_dataset.py`.
        report (`dict`): Its `conversion_report.json`: `rows_read`, `rows_written` and `skipped` are used.
        corpus (`str`): One of `FACTS`.
        repo_id (`str`): `USER/NAME` of the dataset on the Hub.
        arguments (`list[str]`): Of the command that made it. Absolute paths are shortened to their last part.

    Returns:
        `DatasetCard`: Without what `push_to_hub` adds to the metadata, the features and sizes of the splits.
    """
    facts, rows = FACTS[corpus], read_table(dataset)
    pretty_name = facts.pretty_name or repo_id.partition("/")[2]
    metadata = DatasetCardData(
        pretty_name=pretty_name,
        task_categories=["audio-classification"],
        size_categories=[size_category(len(rows))],
        **facts.metadata,
    )
    sections = {
        "Licence": facts.terms,
        "How it was made": _command_text(arguments),
        "Columns": _columns_table(next(iter(dataset.values())).features),
        "Rows": _rows_text(rows, report),
        "Raters": _raters_text(rows) if "votes" in rows else None,
        "Load it": _loading_text(repo_id, next(iter(dataset))),
        "Splits": _splits_text(rows),
        "Citation": facts.citation,
    }
    parts = [f"---\n{metadata.to_yaml()}\n---", f"# {pretty_name}", facts.description]
    for heading, text in sections.items():
        if text is not None:
            parts += [f"## {heading}", text]
    return DatasetCard("\n\n".join(parts) + "\n")


def size_category(num_rows: int) -> str:
    """The Hub's name for a number of rows."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    for index, name in enumerate(names):
        if num_rows < 1000 * 10**index:
            return f"n<{name}" if index == 0 else f"{names[index - 1]}<n<{name}"
    return f"{names[-1]}<n<10B"


def _command_text(arguments: list[str]) -> str:
    command = shlex.join(["python", "prepare_dataset.py", *map(without_folders, arguments)])
    return f"With `prepare_dataset.py` of the RSA-CFN repository:\n\n```bash\n{command}\n```"


def _columns_table(features: Features) -> str:
    lines = ["| column | type | |", "|---|---|---|"]
    for name, feature in features.items():
        meaning = MEANINGS.get(name, "")
        if isinstance(feature, ClassLabel):
            meaning = f"{', '.join(feature.names)}; {meaning}"
        lines.append(f"| `{name}` | {_type_in_words(feature)} | {cell(meaning)} |")
    return "\n".join(lines)


def _type_in_words(feature) -> str:
    if isinstance(feature, Audio):
        return f"audio, {feature.sampling_rate} Hz" if feature.sampling_rate else "audio"
    if isinstance(feature, ClassLabel):
        return f"one of {feature.num_classes} classes"
    if isinstance(feature, List):
        length = f" of {feature.length}" if feature.length > 0 else ""
        return f"list{length}: {_type_in_words(feature.feature)}"
    return str(getattr(feature, "dtype", feature))


def _rows_text(rows: pandas.DataFrame, report: dict) -> str:
    read, written = report["rows_read"], report["rows_written"]
    lines = [f"{', '.join(sizes(rows))}."]
    if "duration" in rows:
        lines[0] += f" Clips last {rows['duration'].min():.2f} to {rows['duration'].max():.2f} s."
    lines += ["", f"Of {read:,} rows of the corpus, {written:,} were converted and {read - written:,} skipped."]
    lines += [f"- {len(names):,} skipped: {reason}" for reason, names in report["skipped"].items()]
    counts = pandas.crosstab(rows["label"], rows["split"], dropna=False)
    lines += ["", f"| label | {' | '.join(counts)} |", f"|---|{'---:|' * counts.shape[1]}"]
    totals = counts.sum()
    for label, row in counts.iterrows():
        cells = [with_share(count, totals[split]) for split, count in row.items()]
        lines.append(f"| {cell(_label_in_words(label))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _label_in_words(label: str) -> str:
    return {TIE: "null, as raters tie", UNLABELLED: "null"}.get(label, label)


def _raters_text(rows: pandas.DataFrame) -> str:
    votes = np.stack(rows["votes"].to_list())  # (N, C)
    raters = votes.sum(axis=1)
    entropies = vote_entropy(votes[raters > 0])
    fewest, most = raters.min(), raters.max()
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    return (
        f"`votes` holds the judgements of {number} raters per row. All agree on "
        f"{with_share((entropies == 0).sum(), len(entropies))} of the rows, and two or more labels tie for the most "
        f"votes on {with_share((rows['label'] == TIE).sum(), len(rows))}. The entropy of the votes of a row is "
        f"{entropies.mean():.2f} bits on average."
    )


def _loading_text(repo_id: str, split: str) -> str:
    return f"""Neither torchcodec nor ffmpeg is needed. While the dataset is private, run `hf auth login` first.

```python
import io

import soundfile
from datasets import Audio, load_dataset

dataset = load_dataset("{repo_id}", split="{split}").cast_column("audio", Audio(decode=False))
samples, sampling_rate = soundfile.read(io.BytesIO(dataset[0]["audio"]["bytes"]))
print(len(samples) / sampling_rate, "s:", dataset[0]["text"])
```

In the RSA-CFN repository it trains a model:

```bash
accelerate launch run_classification.py --dataset_name {repo_id}
```"""


def _splits_text(rows: pandas.DataFrame) -> str:
    splits = rows["split"].cat.categories
    if len(splits) > 1:
        return f"It comes divided into {', '.join(splits)}. Report scores on the part that nothing was chosen by."
    unit = next((name for name in ("session", "speaker") if name in rows), None)
    if unit is None:
        return (
            "There is one split, and no column says who speaks. A random part of the rows may hold speakers that were "
            "trained on; if you know the speakers, hold out whole ones."
        )
    return (
        f"There is one split, to be divided by whole {unit}s, of which there are {rows[unit].nunique():,}: with other "
        "utterances of a speaker in training, a score says little about people who were not heard before."
    )
