"""Pushing a dataset: what is refused, and the way there and back against a Hub on this machine.
Both run in processes of their own."""

import json
import re

import pyarrow
import pytest
from datasets import load_from_disk
from huggingface_hub import constants

from corpora.hub import check_destination, push_dataset
from foundation.errors import InputError, PushError
from tests.hub_server import READ_TOKEN, TOKEN


@pytest.mark.parametrize("name", ["speech", "me/speech/train", "me/my speech", "/speech", "me/", "me/speech.git"])
def test_a_malformed_name_is_refused(name):
    with pytest.raises(InputError, match=f"{re.escape(name)} names no dataset: give USER/NAME"):
        check_destination(name)


def test_no_token(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(PushError, match="needs a token that may write: run `hf auth login`, or set HF_TOKEN"):
        check_destination("me/speech")


@pytest.mark.slow
def test_no_connection(on_hub):
    # Nobody listens on the discard port.
    code = """
from huggingface_hub import constants
from foundation.errors import PushError
from corpora.hub import check_destination
constants.ENDPOINT = "http://127.0.0.1:9"
try:
    check_destination("me/speech")
except PushError as error:
    print(error)
"""
    said = on_hub("-c", code, HF_TOKEN=TOKEN).stdout
    assert said.startswith("--push_to_hub me/speech: no connection to http://127.0.0.1:9") and said.count("\n") == 1


@pytest.mark.parametrize("audio", [{"path": "/home/jane/speech.flac"}, {"bytes": None}], ids=["path", "no bytes"])
def test_a_recording_that_is_elsewhere_is_not_pushed(own_dataset, audio, tmp_path):
    own_dataset.save_to_disk(tmp_path)
    (file,) = (tmp_path / "test").glob("*.arrow")
    rows = own_dataset["test"].to_list()
    rows[1]["audio"] |= audio
    table = pyarrow.Table.from_pylist(rows, own_dataset["test"].data.schema)
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "conversion_report.json").write_text("{}")
    with pytest.raises(PushError, match="split test has rows that hold the path"):
        push_dataset(tmp_path, "me/speech", "csv", [])


def test_there_and_back(hub, on_hub, prepared_dir):
    arguments = ["--corpus", "kemdy20", "--corpus_dir", "/home/jane/KEMDy20_v1_1"]
    push = f"""
from foundation.errors import PushError
from corpora.hub import check_destination, push_dataset
(folder, arguments) = {str(prepared_dir)!r}, {arguments!r}
check_destination("lab/kemdy")
print(push_dataset(folder, "lab/kemdy", "kemdy20", arguments))
"""
    assert on_hub("-c", push, HF_TOKEN=TOKEN).stdout == f"{hub.address}/datasets/lab/kemdy\n"

    # The cache is empty: what is read comes from the Hub.
    load = f"""
import json
from datasets import load_dataset, load_from_disk
from huggingface_hub import HfApi, DatasetCard, hf_hub_download
loaded, written = load_dataset("lab/kemdy"), load_from_disk({str(prepared_dir)!r})
assert loaded["train"].features == written["train"].features, loaded["train"].features
assert loaded["train"].to_list() == written["train"].to_list()
info = HfApi().dataset_info("lab/kemdy")
card = DatasetCard.load("lab/kemdy")
card.validate(repo_type="dataset")
report = hf_hub_download("lab/kemdy", "conversion_report.json", repo_type="dataset")
print(json.dumps([info.private, sorted(file.rfilename for file in info.siblings), card.data.to_dict(), card.text]))
assert open(report).read() == open({str(prepared_dir / "conversion_report.json")!r}).read()
"""
    private, files, metadata, text = json.loads(on_hub("-c", load, HF_TOKEN=READ_TOKEN).stdout)
    assert private
    data = "data/train-00000-of-00001.parquet"
    assert files == [".gitattributes", "README.md", "conversion_report.json", data, "skipped.csv"]
    assert metadata["license_name"] == "etri-kemdy20" and metadata["language"] == ["ko"]
    assert metadata["dataset_info"]["splits"][0]["num_examples"] == 60
    assert "jane" not in text

    refused = "from datasets import load_dataset\ntry: load_dataset('lab/kemdy')\nexcept Exception as e: print(e)"
    assert "doesn't exist on the Hub or cannot be accessed" in on_hub("-c", refused).stdout

    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    first = load_from_disk(prepared_dir)["train"][0]
    seconds, _, words = on_hub("-c", example, HF_TOKEN=READ_TOKEN).stdout.partition(" s: ")
    assert float(seconds) == pytest.approx(first["duration"]) and words == first["text"] + "\n"


def test_what_the_hub_refuses(on_hub, own_dataset, tmp_path):
    own_dataset.save_to_disk(tmp_path)
    (tmp_path / "conversion_report.json").write_text('{"rows_read": 5, "rows_written": 5, "skipped": {}}')
    (tmp_path / "skipped.csv").write_text("segment_id,reason\n")
    code = f"""
import os
from foundation.errors import PushError
from corpora.hub import check_destination, push_dataset
from huggingface_hub import HfApi

def attempt(name, token={TOKEN!r}):
    os.environ["HF_TOKEN"] = token
    try:
        check_destination(name)
        print("accepted", name)
    except PushError as error:
        print(error)

attempt("user/speech", token="hf_wrong")
attempt("user/speech", token={READ_TOKEN!r})
attempt("other/speech")
HfApi().create_repo("user/open", repo_type="dataset", private=False)
attempt("user/open")
try:
    push_dataset({str(tmp_path)!r}, "user/open", "csv", [])
except PushError as error:
    print(error)
try:
    push_dataset({str(tmp_path)!r}, "other/speech", "csv", [])
except PushError as error:
    print(error)
# Broken off after the card.
HfApi().create_repo("user/speech", repo_type="dataset", private=True)
HfApi().upload_file(path_or_fileobj=b"# card", path_in_repo="README.md", repo_id="user/speech", repo_type="dataset")
attempt("user/speech")
push_dataset({str(tmp_path)!r}, "user/speech", "csv", [])
print(sorted(HfApi().list_repo_files("user/speech", repo_type="dataset")))
attempt("user/speech")
"""
    parts = [f"data/{split}-00000-of-00001.parquet" for split in ("test", "train")]
    files = sorted([".gitattributes", "README.md", "conversion_report.json", "skipped.csv", *parts])
    other_visibility = "--push_to_hub user/open exists and is public, not private: give another name"
    expected = [
        "--push_to_hub user/speech: the Hub doesn't accept the token",
        "--push_to_hub needs a token that may write, this one may only read",
        "--push_to_hub other/speech: the token may not write to other: give user or lab before the /",
        other_visibility,
        other_visibility,
        "--push_to_hub other/speech: the token may not write there",
        "accepted user/speech",
        str(files),
        "--push_to_hub user/speech exists and holds files: give another name",
    ]
    said = on_hub("-c", code).stdout.splitlines()
    assert len(said) == len(expected)
    for line, start in zip(said, expected, strict=True):
        assert line.startswith(start)
