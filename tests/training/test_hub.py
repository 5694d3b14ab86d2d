"""Pushing a model: the way there and back, what never goes along, what is refused, and what is left when it fails.
Runs are processes of their own, against a Hub on this machine."""

import hashlib
import json
import re

import numpy as np
import pytest
import soundfile
from huggingface_hub import constants
from transformers import TrainingArguments

from foundation.errors import InputError, PushError
from tests.hub_server import READ_TOKEN, TOKEN
from training.hub import check_destination, model_files


CODE = {f"{name}_rsa_cfn.py" for name in ("audio", "configuration", "encoders", "fusion", "modeling", "processing")}
MODEL = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
RESULTS = {"README.md", "all_results.json", "confusion_matrix.png", "training_curve.png"}


def arguments(dataset, output_dir, repo_id, *more):
    given = ["--dataset_name", str(dataset), "--output_dir", str(output_dir), "--disable_tqdm", "true"]
    if "--model_name_or_path" not in more:
        given += ["--fusion", "early_fusion", "--audio_model", "tiny", "--text_model", "tiny"]
    if repo_id is not None:
        given += ["--push_to_hub", "--hub_model_id", repo_id]
    return [*given, *more]


def given(tmp_path, **fields):
    return TrainingArguments(output_dir=str(tmp_path), push_to_hub=True, use_cpu=True, **fields)


@pytest.mark.parametrize("name", ["me/speech/two", "my speech", "me/", "me/speech.git"])
def test_a_malformed_name_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr("training.hub.writable_namespaces", lambda: ["me"])
    with pytest.raises(InputError, match="names no model: give --hub_model_id USER/NAME"):
        check_destination(given(tmp_path, hub_model_id=name))


@pytest.mark.parametrize(
    ("name", "full"), [(None, "me/rsa_cfn"), ("speech", "me/speech"), ("lab/speech", "lab/speech")]
)
def test_a_name_is_completed(name, full, tmp_path, monkeypatch):
    monkeypatch.setattr("training.hub.writable_namespaces", lambda: ["me", "lab"])
    training_args = given(tmp_path / "rsa_cfn", hub_model_id=name)
    check_destination(training_args)
    assert training_args.hub_model_id == full


def test_no_token(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(PushError, match="needs a token that may write: run `hf auth login`, or set HF_TOKEN"):
        check_destination(given(tmp_path))


def test_a_trained_model_is_spoken_of_where_a_push_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "trainer_state.json").write_text("{}")
    with pytest.raises(PushError) as refused:
        check_destination(given(tmp_path, hub_model_id="me/speech"))
    assert str(refused.value) == (
        f"--hub_model_id me/speech: HF_HUB_OFFLINE is set: unset it (the trained model in {tmp_path} is complete and "
        "kept; push it by the same command with --resume_from_checkpoint last)"
    )


def test_no_connection(on_hub, tmp_path, prepared_dir):
    # Nobody listens on the discard port.
    code = f"""
import sys
from huggingface_hub import constants
from run_classification import run
constants.ENDPOINT = "http://127.0.0.1:9"
sys.exit(run({arguments(prepared_dir, tmp_path / "out", "me/speech")!r}))
"""
    finished = on_hub("-c", code, HF_TOKEN=TOKEN, exit_code=1)
    said = "run_classification.py: --hub_model_id me/speech: no connection to http://127.0.0.1:9"
    assert finished.stderr.startswith(said) and finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_only_the_model_is_uploaded(tmp_path):
    left = ["optimizer.pt", "training_args.bin", "predictions.csv", "splits.csv", "split.json", "trainer_state.json"]
    left += ["explained_Sess01_script01_User002M_001.png", "speech.wav", "events.out.tfevents"]
    for name in [*MODEL, *CODE, *left]:
        (tmp_path / name).touch()
    (tmp_path / "tokenizer_folder").mkdir()
    assert set(model_files(tmp_path)) == MODEL | CODE


@pytest.fixture(scope="module")
def pushed(hub, on_hub, prepared_dir, tmp_path_factory):
    """The folder of a run of two epochs that was pushed privately."""
    folder = tmp_path_factory.mktemp("models") / "early_fusion"
    options = "--num_train_epochs 2 --save_strategy epoch --hub_private_repo true".split()
    run = arguments(prepared_dir, folder, "lab/early", *options, "--save_total_limit", "1")
    finished = on_hub("run_classification.py", *run, HF_TOKEN=TOKEN)
    address, revision = re.search(r"^Uploaded to (\S+), the model as revision (\w+)$", finished.stdout, re.M).groups()
    assert address == f"{hub.address}/lab/early"
    assert len(list(folder.glob("checkpoint-*"))) == 1
    return folder, revision


def test_there_and_back(pushed, on_hub, tmp_path):
    folder, revision = pushed
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000), 16000)
    code = f"""
import json, os
from huggingface_hub import HfApi, ModelCard
import torch
from transformers import AutoModel, AutoProcessor
api = HfApi()
commits = api.list_repo_commits("lab/early")
files = {{commit.commit_id: api.list_repo_files("lab/early", revision=commit.commit_id) for commit in commits}}
card = ModelCard.load("lab/early")
card.validate()
try:
    AutoModel.from_pretrained("lab/early", trust_remote_code=True, token=False)
except OSError as error:
    refused = str(error)
models = [AutoModel.from_pretrained(name, trust_remote_code=True) for name in ("lab/early", {str(folder)!r})]
loaded, local = (model.state_dict() for model in models)
assert local.keys() == loaded.keys() and all(torch.equal(local[name], loaded[name]) for name in local)
processor = AutoProcessor.from_pretrained("lab/early", trust_remote_code=True)
inputs = processor(audio={str(tmp_path / "speech.wav")!r}, text="정말 고마워요", return_tensors="pt")
with torch.no_grad():
    logits = [model(**inputs).logits for model in models]
print(json.dumps([api.model_info("lab/early").private, [commit.title for commit in commits], list(files),
    list(files.values()), refused, (logits[0] - logits[1]).abs().max().item(), card.text]))
"""
    # The cache is empty: what is read comes from the Hub.
    told = on_hub("-c", code, HF_TOKEN=READ_TOKEN).stdout
    private, titles, commits, files, refused, difference, text = json.loads(told)
    assert private and "lab/early" in refused
    assert difference <= 1e-6
    assert titles == [
        "Pin the card to the revision it describes",
        "End of training",
        "initial commit",
    ]
    assert commits[1] == revision
    for number, revision_files in enumerate(files[:-1]):
        assert set(revision_files) == {".gitattributes"} | CODE | MODEL | RESULTS, titles[number]
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert [example.count(f'revision="{revision}"') for example in examples] == [1, 2]
    answer = on_hub("-c", "".join(examples), cwd=tmp_path, HF_TOKEN=READ_TOKEN)
    names = json.loads((folder / "config.json").read_text())["label2id"]
    *piped, without_pipeline = answer.stdout.strip().splitlines()
    assert without_pipeline in names and len(piped) == 2 and all(name in line for line in piped for name in names)


def test_a_model_on_the_hub_is_scored_on_any_prepared_dataset(pushed, on_hub, prepared_dir, tmp_path):
    folder, _ = pushed
    options = ["--do_eval", "--model_name_or_path", "lab/early"]
    run = arguments(prepared_dir, tmp_path / "scored", None, *options)
    on_hub("run_classification.py", *run, HF_TOKEN=READ_TOKEN)
    before, now = (json.loads((out / "all_results.json").read_text()) for out in (folder, tmp_path / "scored"))
    assert now["eval_rows"] == before["eval_rows"]
    assert now["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-5)
    assert now["eval_macro_f1"] == pytest.approx(before["eval_macro_f1"])
    assert "train_loss" not in now and not list((tmp_path / "scored").glob("*.safetensors"))


def test_a_model_that_is_only_scored_is_pushed_with_its_scores(pushed, on_hub, prepared_dir, tmp_path):
    folder, _ = pushed
    options = ["--model_name_or_path", str(folder), "--do_eval", "--split", "all", "--hub_handler"]
    run = arguments(prepared_dir, tmp_path / "scored", "lab/scored", *options)
    finished = on_hub("run_classification.py", *run, HF_TOKEN=TOKEN)
    assert re.search(r"^Uploaded to \S+/lab/scored, the model as revision \w+$", finished.stdout, re.M)
    card = (tmp_path / "scored" / "README.md").read_text()
    assert "Not trained in this run" in card and "this run, which didn't train the model" in card
    assert {"model.safetensors", "handler.py"} <= set(model_files(tmp_path / "scored"))


def test_what_the_hub_refuses_is_said_before_training(pushed, on_hub, prepared_dir, tmp_path):
    code = f"""
import os
from huggingface_hub import HfApi
from run_classification import run
def attempt(name, *more, token={TOKEN!r}):
    os.environ["HF_TOKEN"] = token
    given = {arguments(prepared_dir, tmp_path / "out", "NAME")!r}
    print(run([name if value == "NAME" else value for value in given] + list(more)), flush=True)
import sys
sys.stderr = sys.stdout
attempt("user/early", token="hf_wrong")
attempt("user/early", token={READ_TOKEN!r})
attempt("other/early")
attempt("lab/early", "--hub_private_repo", "false")
attempt("user/early", "--hub_token", "hf_secret")
"""
    said = on_hub("-c", code).stdout.splitlines()
    expected = [
        "run_classification.py: --hub_model_id user/early: the Hub doesn't accept the token: run `hf auth login` again",
        "1",
        "run_classification.py: --push_to_hub needs a token that may write, this one may only read",
        "1",
        "run_classification.py: --hub_model_id other/early: the token may not write to other: give user or lab before",
        "1",
        "run_classification.py: --hub_model_id lab/early exists and is private, not public: give another name",
        "1",
        "run_classification.py: --hub_token would be written into training_args.bin; run `hf auth login`",
        "2",
    ]
    assert len(said) == len(expected), said
    for line, start in zip(said, expected, strict=True):
        assert line.startswith(start)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_push_that_fails_costs_nothing_and_goes_on(hub, on_hub, prepared_dir, tmp_path):
    """The token expires while the model is trained; then the connection breaks; then all is well."""
    # Of a seed of its own: files that other tests have uploaded would not be sent.
    run = arguments(prepared_dir, tmp_path / "out", "user/tried", "--max_steps", "1", "--seed", "11")
    code = f"""
import os
import run_classification
def attempt(*more):
    print("exit", run_classification.run([*{run!r}, *more]))
train = run_classification.train
def train_too_long(*arguments):
    train(*arguments)
    os.environ["HF_TOKEN"] = "hf_expired"
run_classification.train = train_too_long
attempt()
os.environ["HF_TOKEN"] = {TOKEN!r}
run_classification.train = lambda *arguments: print("trained again")
attempt("--resume_from_checkpoint", "last")
attempt("--resume_from_checkpoint", "last")
from huggingface_hub import HfApi
print(*HfApi().list_repo_files("user/tried"))
"""
    hub.breaks_at = "POST /api/models/user/tried/commit/"
    finished = on_hub("-c", code, HF_TOKEN=TOKEN)
    assert re.findall(r"^exit \d$", finished.stdout, re.M) == ["exit 1", "exit 1", "exit 0"], finished.stderr
    assert "trained again" not in finished.stdout
    lines = [line for line in finished.stderr.splitlines() if line.startswith("run_classification.py:")]
    reasons = ("the Hub doesn't accept the token", f"no connection to {hub.address}, or it broke")
    for line, reason in zip(lines, reasons, strict=True):
        assert line.startswith(f"run_classification.py: --hub_model_id user/tried: {reason}")
        assert line.endswith(
            f"(the trained model in {tmp_path / 'out'} is complete and kept; push it by the same command with "
            "--resume_from_checkpoint last)"
        )
    assert set(finished.stdout.splitlines()[-1].split()) == {".gitattributes"} | CODE | MODEL | RESULTS
    # Broken off, again, and the card.
    assert sum(request.startswith("POST /api/models/user/tried/commit/") for request in hub.requests) == 3
    # The weights had arrived when it broke off, and were not sent again.
    digest = hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest()
    assert hub.requests.count(f"PUT /lfs/{digest}") == 1
    # The card of the last attempt has the log of the first, which alone trained.
    assert "1 optimizer step in" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
