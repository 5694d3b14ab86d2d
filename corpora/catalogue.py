"""The corpora that prepare_dataset.py knows: how each is read, and what its card says that its rows don't tell.
A new one is a module that reads it, and an entry in `CORPORA`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from corpora import kemdy, metadata
from corpora.kemdy_layouts import KEMDY19, KEMDY20
from corpora.rows import Corpus


@dataclass(frozen=True)
class KnownCorpus:
    pretty_name: str
    description: str
    terms: str
    # Gives the rows of what lies in --corpus_dir and --metadata, without opening the recordings; None for a corpus that
    # is generated first.
    read: Callable[[Path | None, Path | None], Corpus] | None = None
    # The one of the two arguments that it can't do without; --corpus_dir alone will do where it is the metadata.
    needs: str | None = None
    metadata: dict = field(default_factory=dict)
    citation: str | None = None
    # In brackets behind its name in --help.
    hint: str = ""


KEMDY20_PAGE = "https://nanum.etri.re.kr/share/kjnoh2/KEMDy20"
ETRI_CLAUSE = (
    "{} is licensed by ETRI to those who signed its licence agreement{}. "
    "It may not be redistributed, and a converted copy is still the corpus."
)
KEMDY20_CLAUSE, KEMDY19_CLAUSE = ETRI_CLAUSE.format("KEMDy20", f" ({KEMDY20_PAGE})"), ETRI_CLAUSE.format("KEMDy19", "")
KOREAN = {"language": ["ko"]}

CORPORA = {
    "kemdy20": KnownCorpus(
        read=lambda corpus_dir, _: kemdy.read_corpus(corpus_dir, KEMDY20),
        needs="corpus_dir",
        pretty_name="KEMDy20",
        description=(
            "Korean spontaneous dialogue with emotion labels. 80 adults talked in 40 pairs, each about six videos that "
            "they had watched; ten external raters judged the emotion, valence and arousal of every utterance."
        ),
        terms=f"{KEMDY20_CLAUSE} Keep this dataset private.",
        metadata=KOREAN | {"license": "other", "license_name": "etri-kemdy20", "license_link": KEMDY20_PAGE},
        citation=f"K. J. Noh and H. Jeong, KEMDy20, ETRI. {KEMDY20_PAGE}",
        hint="default",
    ),
    "kemdy19": KnownCorpus(
        read=lambda corpus_dir, _: kemdy.read_corpus(corpus_dir, KEMDY19),
        needs="corpus_dir",
        pretty_name="KEMDy19",
        description=(
            "Korean dialogue with emotion labels, played by actors in 20 sessions of one woman and one man each; ten "
            "external raters judged the emotion, valence and arousal of every utterance."
        ),
        terms=f"{KEMDY19_CLAUSE} Keep this dataset private.",
        metadata=KOREAN | {"license": "other", "license_name": "etri-kemdy19"},
        citation="KEMDy19, ETRI.",
    ),
    "csv": KnownCorpus(
        read=lambda corpus_dir, metadata_file: metadata.read_corpus(metadata_file, corpus_dir),
        needs="metadata",
        pretty_name="",
        description="Recordings with transcripts and labels.",
        terms="No licence is stated here. Before sharing it, make sure that you may, and state one.",
        hint="a folder of your own",
    ),
    "demo": KnownCorpus(
        pretty_name="Synthetic corpus in the shape of KEMDy20",
        description=(
            "Synthetic sounds with made-up Korean transcripts, raters and labels. Nobody speaks in it: a generator "
            "decides how much of a label is in the voice and how much in the words. It is for trying software; scores "
            "on it say nothing about emotion."
        ),
        terms="Apache-2.0, like the generator that made it.",
        metadata=KOREAN | {"license": "apache-2.0"},
        hint="synthetic speech, generated first",
    ),
}
