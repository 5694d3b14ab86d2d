"""Where a model comes from: its backbones and its corpus, and under which licences they are.
The Hub is asked where it can be reached; otherwise only the licences of the default backbones are known."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants
from transformers import PretrainedConfig

from corpora.catalogue import CORPORA, KnownCorpus
from corpora.output import read_source
from training.arguments import AUDIO_MODEL, TEXT_MODEL, TINY, ModelArguments


# As their cards on the Hub say, for runs that can't reach it.
KNOWN_LICENCES = {AUDIO_MODEL: "apache-2.0", TEXT_MODEL: "cc-by-sa-4.0"}
# Seconds that a card may wait for the Hub.
TIMEOUT = 5


@dataclass(frozen=True)
class Backbone:
    """One half of a model: its `modality`, the `name` it was asked for by, its `licence` and who says so."""

    modality: str
    name: str
    licence: str
    source: str

    @property
    def is_on_hub(self) -> bool:
        return is_hub_id(self.name)


def is_hub_id(name: str) -> bool:
    """Whether a name can only be that of a repository: nothing on this machine is called so."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not os.path.exists(name)


def find_backbones(model_args: ModelArguments, config: PretrainedConfig) -> list[Backbone]:
    """The backbones that a fusion has, with their licences."""
    modalities = (config.fusion,) if config.fusion in ("audio", "text") else ("audio", "text")
    backbones = []
    for modality in modalities:
        name = getattr(model_args, f"{modality}_model")
        if name is None:
            # A saved model: its configuration may tell what it was made from.
            name = getattr(config, f"{modality}_config")._name_or_path or f"that of {model_args.model_name_or_path}"
        backbones.append(Backbone(modality, name, *_licence(name)))
    return backbones


def _licence(name: str) -> tuple[str, str]:
    if name == TINY:
        return "none needed", "small and randomly initialised, nothing pretrained is in it"
    if is_hub_id(name):
        metadata = hub_metadata(name, "model")
        if metadata is not None and metadata.get("license"):
            return metadata["license"], f"according to {constants.ENDPOINT}/{name}"
        if name in KNOWN_LICENCES:
            return KNOWN_LICENCES[name], "as known when this card's code was written; the Hub was not reached"
        return "unknown", "its card names none" if metadata is not None else "the Hub was not reached"
    return "unknown", "it was loaded from a folder"


def hub_metadata(name: str, repo_type: str) -> dict | None:
    """The metadata in the card of a repository; `None` where it can't be reached."""
    try:
        info = HfApi().repo_info(name, repo_type=repo_type, timeout=TIMEOUT)
    except Exception:  # a card is written without the network, too, and whatever is wrong with it
        return None
    return {} if info.card_data is None else info.card_data.to_dict()


def find_corpus(name: str) -> tuple[str, KnownCorpus]:
    """What is known of the corpus behind a folder or Hub id, and its name among `CORPORA`: `csv` if it isn't known."""
    source = read_source(Path(name))
    if source is not None and source["corpus"] in CORPORA:
        return source["corpus"], CORPORA[source["corpus"]]
    if is_hub_id(name):
        title = (hub_metadata(name, "dataset") or {}).get("pretty_name")
        for corpus, facts in CORPORA.items():
            if title and facts.pretty_name == title:
                return corpus, facts
    return "csv", CORPORA["csv"]
