"""Uploads a prepared dataset to the Hub, where it is private until its owner makes it public in its settings there.
What can be refused is refused before anything is converted or uploaded, and every refusal is one line."""

import json
from pathlib import Path

import pyarrow.compute
from datasets import DatasetDict
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from corpora.card import dataset_card
from corpora.conversion import REPORT_FILE, SKIPPED_FILE
from foundation.errors import InputError, PushError
from foundation.hub import check_namespace, check_visibility, errors_in_one_line, split_name, writable_namespaces


CARD_FILE = "README.md"
# What a repository may hold whose upload never came to its data.
WITHOUT_DATA = {".gitattributes", CARD_FILE, REPORT_FILE, SKIPPED_FILE}


def check_destination(repo_id: str) -> None:
    """Whether a dataset may be pushed to `USER/NAME`; asked before the corpus is converted. An InputError where that is
    no name, a PushError where the Hub can't be reached, the token may not write there, or there is a dataset already.
    """
    asked = f"--push_to_hub {repo_id}"
    try:
        namespace, _ = split_name(repo_id)
    except ValueError:
        raise InputError(f"{asked} names no dataset: give USER/NAME, in letters, digits, '-', '_' and '.'") from None
    with errors_in_one_line(asked):
        check_namespace(asked, namespace, writable_namespaces())
        try:
            repository = HfApi().dataset_info(repo_id)
        except RepositoryNotFoundError:
            return
        if {file.rfilename for file in repository.siblings} - WITHOUT_DATA:
            raise PushError(f"{asked} exists and holds files: give another name, or rename or delete it on the Hub")
        check_visibility(asked, repository.private, public=False)


def push_dataset(folder: str | Path, repo_id: str, corpus: str, arguments: list[str]) -> str:
    """Uploads card and report, then the rows as Parquet files that hold the encoded recordings; gives the address. The
    rows come last, so that no data is there without its licence, and an upload that was broken off can be repeated.
    `arguments` are those of the command, for the card. Whatever fails is a `PushError`, and `folder` is untouched."""
    folder, asked = Path(folder), f"--push_to_hub {repo_id}"
    dataset = DatasetDict.load_from_disk(folder)
    report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    for name, part in dataset.items():  # each row must hold its recording, under a name that tells of no machine
        audio = part.data.column("audio")
        content, paths = (pyarrow.compute.struct_field(audio, field) for field in ("bytes", "path"))
        if content.null_count or any("/" in path or "\\" in path for path in paths.to_pylist() if path is not None):
            raise PushError(f"split {name} has rows that hold the path of a recording instead of it: convert it anew")
    card = dataset_card(dataset, report, corpus, repo_id, arguments)
    additions = [CommitOperationAdd(CARD_FILE, str(card).encode())]
    files = [folder / REPORT_FILE, folder / SKIPPED_FILE]
    additions += [CommitOperationAdd(file.name, file) for file in files if file.exists()]
    with errors_in_one_line(asked):
        api = HfApi()
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        # Somebody may have made it in the meantime, and then `private` is ignored.
        check_visibility(asked, api.dataset_info(repo_id).private, public=False)
        api.create_commit(repo_id, additions, commit_message="Upload card and report", repo_type="dataset")
        # The recordings are in the rows; to embed them again would take the memory of two shards.
        dataset.push_to_hub(repo_id, private=True, max_shard_size="200MB", embed_external_files=False)
    return f"{constants.ENDPOINT}/datasets/{repo_id}"
