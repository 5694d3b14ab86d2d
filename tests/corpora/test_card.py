"""The card of a dataset: metadata that the Hub takes, the dataset's own numbers, licences, and no machine's folders."""

import json

import pytest
from datasets import load_from_disk
from huggingface_hub import DatasetCard, DatasetCardData

from corpora.card import dataset_card
from corpora.catalogue import CORPORA
from tests.markdown import table


REPORT = {"rows_read": 7, "rows_written": 5, "skipped": {"audio missing": ["a", "b"]}}


@pytest.fixture(scope="module")
def demo(prepared_dir):
    report = json.loads((prepared_dir / "conversion_report.json").read_text())
    return load_from_disk(prepared_dir), report


@pytest.mark.parametrize("corpus", CORPORA)
def test_metadata_comes_back_as_written(own_dataset, corpus):
    card = DatasetCard(str(dataset_card(own_dataset, REPORT, corpus, "me/speech", [])))
    metadata = card.data.to_dict()
    assert metadata["task_categories"] == ["audio-classification"]
    assert metadata["pretty_name"] == (CORPORA[corpus].pretty_name or "speech")
    assert CORPORA[corpus].metadata.items() <= metadata.items()
    assert DatasetCardData(**metadata).to_dict() == metadata


@pytest.mark.parametrize(
    "corpus, language, license",
    [("kemdy20", ["ko"], "other"), ("kemdy19", ["ko"], "other"), ("demo", ["ko"], "apache-2.0"), ("csv", None, None)],
)
def test_language_and_licence_are_in_the_metadata(own_dataset, corpus, language, license):
    metadata = dataset_card(own_dataset, REPORT, corpus, "me/speech", []).data.to_dict()
    assert metadata.get("language") == language and metadata.get("license") == license
    assert ("license_name" in metadata) == (license == "other")


@pytest.mark.parametrize("corpus", ["kemdy20", "kemdy19"])
def test_a_licensed_corpus_says_so(demo, corpus):
    card = dataset_card(*demo, corpus, "me/speech", [])
    assert "may not be redistributed" in card.text and "ETRI" in card.text
    assert "Citation" in card.text


def test_numbers_are_those_of_the_dataset(demo):
    dataset, report = demo
    card = dataset_card(dataset, report, "demo", "me/speech", [])
    labels = dataset["train"]["label"][:]
    shown = {name: int(cell.split(" ")[0]) for name, cell in table(card.text, "label")}
    names = dataset["train"].features["label"].names
    expected = {name: labels.count(index) for index, name in enumerate(names)}
    assert shown == expected | {"null, as raters tie": labels.count(None)}
    assert f"60 rows, {sum(dataset['train']['duration']) / 60:.1f} minutes, 6 sessions, 12 speakers." in card.text
    assert "Of 60 rows of the corpus, 60 were converted and 0 skipped." in card.text
    assert "judgements of 10 raters per row" in card.text
    assert [row[0] for row in table(card.text, "column")] == [f"`{name}`" for name in dataset["train"].column_names]
    assert all(meaning for _, meaning in table(card.text, "column"))


def test_only_what_is_there(own_dataset):
    card = dataset_card(own_dataset, REPORT, "csv", "me/speech", [])
    columns = dict(table(card.text, "column"))
    assert list(columns) == ["`audio`", "`text`", "`label`", "`segment_id`", "`duration`"]
    assert columns["`label`"].startswith("calm, happy, up|set &lt;b>;")
    assert table(card.text, "label")[2] == ["up|set &lt;b>", "1 (33.3%)", "0 (0.0%)"]
    assert "- 2 skipped: audio missing" in card.text
    assert "It comes divided into train, test." in card.text
    heard = REPORT | {"asr_text": {"rows with both texts": 2, "word error rate": 0.25}}
    card_with_both = dataset_card(own_dataset, heard, "csv", "me/speech", []).text
    assert "Of `asr_text`: rows with both texts 2, word error rate 0.25.\n\n" in card_with_both
    assert table(card_with_both, "label") == table(card.text, "label")
    for absent in ("rater", "session", "KEMDy", "ETRI", "Citation", "asr_text"):
        assert absent not in card.text.replace("null where raters tie or none is given", "")


def test_the_command_without_the_folders_of_the_machine(own_dataset):
    arguments = ["--corpus_dir", "/home/jane/my corpus", "--output_dir=/data/out", "--metadata", "rows.csv"]
    card = dataset_card(own_dataset, REPORT, "csv", "me/speech", arguments)
    assert "python prepare_dataset.py --corpus_dir 'my corpus' --output_dir=out --metadata rows.csv\n" in card.text
    assert "jane" not in card.text
