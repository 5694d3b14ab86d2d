"""The card of a dataset on the Hub: metadata, and what a reader needs to judge, load and cite it.
Every number in it is counted from the dataset or comes from the report of its conversion."""

import shlex
from pathlib import Path

import numpy as np
import pandas
from datasets import ClassLabel, DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from corpora.catalogue import CORPORA
from corpora.columns import MEANINGS, TIE, UNLABELLED, read_table, sizes, vote_entropy
from foundation.templates import fill_template
from foundation.words import escape_markdown, with_share, without_folders, writable


TEMPLATE = Path(__file__).with_name("card.md.jinja")


def dataset_card(dataset: DatasetDict, report: dict, corpus: str, repo_id: str, arguments: list[str]) -> DatasetCard:
    """The card of a converted corpus, one of `CORPORA`, without what `push_to_hub` and the Hub add: the types of the
    columns and the sizes of the splits. `report` is its `conversion_report.json`, `arguments` are those of the command
    that made it."""
    facts, rows = CORPORA[corpus], read_table(dataset)
    title = facts.pretty_name or repo_id.partition("/")[2]
    metadata = DatasetCardData(
        pretty_name=title,
        task_categories=["audio-classification"],
        **facts.metadata,
    )
    counts = pandas.crosstab(rows["label"], rows["split"], dropna=False)
    unit = next((name for name in ("session", "speaker") if name in rows), None)
    text = fill_template(
        TEMPLATE,
        metadata=metadata.to_yaml(),
        title=title,
        facts=facts,
        repo_id=repo_id,
        report=report,
        command=writable(shlex.join(["python", "prepare_dataset.py", *map(without_folders, arguments)])),
        columns=[_describe(*column) for column in next(iter(dataset.values())).features.items()],
        sizes=", ".join(sizes(rows)),
        seconds=rows.get("duration"),
        counts=counts,
        totals=list(counts.sum()),
        label_names={TIE: "null, as raters tie", UNLABELLED: "null"},
        raters=_count_raters(rows) if "votes" in rows else None,
        splits=list(dataset),
        unit=unit,
        num_units=rows[unit].nunique() if unit else 0,
    )
    return DatasetCard(text)


def _describe(name: str, feature) -> tuple[str, str]:
    """A column's name and meaning."""
    meaning = MEANINGS.get(name, "")
    if isinstance(feature, ClassLabel):
        meaning = f"{', '.join(map(escape_markdown, feature.names))}; {meaning}"
    return name, meaning


def _count_raters(rows: pandas.DataFrame) -> dict:
    """How many raters a row has, and how far they agree."""
    votes = np.stack(rows["votes"].to_list())  # (N, C)
    raters = votes.sum(axis=1)
    entropies = vote_entropy(votes[raters > 0])
    fewest, most = raters.min(), raters.max()
    return {
        "number": f"{most}" if fewest == most else f"{fewest} to {most}",
        "agreed": with_share((entropies == 0).sum(), len(entropies)),
        "tied": with_share((rows["label"] == TIE).sum(), len(rows)),
        "entropy": entropies.mean(),
    }
