"""
The pages: README.md, its Korean twin, docs/ and the README of each folder.

`check` knows every program that a page may call: a command it doesn't know fails. Each command is parsed by the
program itself, in a folder with a small corpus and a tiny model under the names that the pages use. Those of README.md,
and with `-m slow` those of all pages and of the scripts' own heads, also run one after the other in one folder that has
only the corpora, on tiny backbones and for two steps; `NOT_RUN` says which don't, and why: they leave a folder as a run
would, so that no other command may take it.
"""

import argparse
import ast
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
import pytest
import soundfile
import yaml
from accelerate.commands.launch import launch_command_parser
from datasets import load_from_disk

import prepare_dataset
import run_classification
import run_experiments
from configuration_rsa_cfn import EMOTIONS
from demo import app
from experiments.cells import ARGUMENTS
from foundation.files import write_json
from tests.markdown import anchors, blocks, prose, table


REPOSITORY = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for folder in (".", "docs", "recipes", "benchmarks", "demo")
    for path in sorted((REPOSITORY / folder).glob("*.md"))
}
# The same commands as in README.md, which a test sees to.
TWIN = "README.ko.md"
# Scripts whose docstrings say how they are called.
SCRIPTS = [
    file
    for pattern in ("*.py", "scripts/*.py", "benchmarks/*.py", "demo/app.py")
    for file in sorted(REPOSITORY.glob(pattern))
]
README, KOREAN = PAGES["README.md"], PAGES[TWIN]
SETUP = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "

NOT_RUN = {
    r"--push_to_hub|\b(me|USER)/": "needs an account of the Hub; tests of their own push to a Hub on this machine",
    r"run_classification\.py recipes/": "differs in numbers only from others that run; tests/test_recipes.py runs one",
    r"--asr_model|convert_checkpoint|amu-cai/": "loads a model or a corpus from the Hub",
    r"run_experiments\.py|-m benchmarks\.": "takes from minutes to days",
    r"scripts\.export_onnx": "takes a minute; its own test exports the same model",
    r"--help$": "only prints",
    r"scripts\.serve": "serves until it is stopped; its own test asks a server",
    r"demo/app\.py": "serves until it is stopped; tests/demo opens it in a browser",
}
# The scripts behind the commands of the package.
INSTALLED = {
    "rsa-cfn-prepare": "prepare_dataset",
    "rsa-cfn-train": "run_classification",
    "rsa-cfn-experiments": "run_experiments",
}
# Packages that a page may ask for and the tests do without.
FURTHER_PACKAGES = {"deepspeed", "ruff"}


class ParsedError(Exception):
    """A program has read its command line, and goes no further."""


def commands(page):
    """The command lines of a page's blocks."""
    lines = [line for language, code in blocks(PAGES[page]) if language == "bash" for line in code.splitlines()]
    return [part for line in lines if line and not line.startswith("#") for part in line.split(" && ")]


def commands_in_prose(page):
    spans = re.findall(r"`([^`]+)`", prose(PAGES[page]))
    programs = r"(python|accelerate launch|pip install|hf|ruff|tensorboard|rsa-cfn-\w+) "
    return [span for span in spans if re.match(programs, span)]


def commands_in_docstrings():
    docstrings = [ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for file in SCRIPTS]
    lines = [line for text in docstrings for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    return [line for line in lines if re.match(r"(python|accelerate launch) ", line)]


def commands_in_order():
    """All commands as a reader meets them: README.md, its pages as it lists them, what else there is."""
    listed = re.findall(r"\]\(([^)#]+\.md)\)", README)
    pages = dict.fromkeys(page for page in ("README.md", *listed, *PAGES) if page != TWIN)
    found = [command for page in pages for command in (*commands(page), *commands_in_prose(page))]
    return list(dict.fromkeys([*found, *commands_in_docstrings()]))


@pytest.fixture(scope="module")
def material(make_model, processor, demo_corpus_dir, prepared_dir, tmp_path_factory):
    """What the pages take for granted: corpora, recordings, a trained model."""
    folder = tmp_path_factory.mktemp("material")
    for name in ("recipes", "demo", "requirements.txt"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "KEMDy20_v1_1").symlink_to(demo_corpus_dir)
    for name in ("kemdy20", "demo", "speech", "mine"):
        shutil.copytree(prepared_dir, folder / "data" / name)
    # The last stands for a repository on the Hub.
    for name in ("models/rsa_cfn", "models/kemdy20", "me/emotions"):
        make_model().save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    for name in ("rsa_cfn.pth", "text.pth", "roberta.json"):
        (folder / name).touch()
    for name in ("speech", "recordings"):
        (folder / name).mkdir()
    rows = [("path", "text", "label", "session")]
    for row in load_from_disk(prepared_dir)["train"]:
        if row["label"] is not None:
            rows.append((f"{row['segment_id']}.wav", row["text"], EMOTIONS[row["label"]], row["session"]))
            (folder / "speech" / rows[-1][0]).write_bytes(row["audio"]["bytes"])
    with (folder / "speech" / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    for name in ("speech.wav", "recordings/1.wav"):
        soundfile.write(folder / name, clip, 16000)
    (folder / "recordings" / "1.txt").write_text("정말 고마워요", encoding="utf-8")
    (folder / "calls.csv").write_text("audio,text\nspeech.wav,정말 고마워요\n", encoding="utf-8")
    return folder


@pytest.fixture
def workplace(material, tmp_path, monkeypatch):
    """A copy of the material to work in."""
    shutil.copytree(material, tmp_path / "workplace", symlinks=True)
    monkeypatch.chdir(tmp_path / "workplace")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "workplace"


@pytest.fixture
def checkout(workplace, prepared_dir, monkeypatch):
    """The same before any command: without what those of the pages make."""
    for name in ("models", "data/kemdy20", "data/demo", "data/speech"):
        shutil.rmtree(workplace / name)
    # The tokenizer of a tiny text encoder, which ten rows taught, knows few words of the others.
    monkeypatch.setattr("training.preflight.MOST_UNKNOWN", 1)
    # A small corpus for the demo's, which takes longer.
    monkeypatch.setattr("training.data.prepare", lambda corpus, _, folder: shutil.copytree(prepared_dir, folder))
    return workplace


def check(command, is_run):
    """Parse a command of a page or, if asked, run it; one that can't be run leaves the folder that it would."""
    command = re.sub(r"^rsa-cfn-\w+", lambda name: f"python {INSTALLED[name.group()]}.py", command)
    command = command.replace("-m rsa_cfn.run_classification", "run_classification.py")
    can_run = not any(re.search(pattern, command) for pattern in NOT_RUN)
    words = shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", command))
    if words[:2] == ["accelerate", "launch"]:
        launched = launch_command_parser().parse_args(words[2:])
        assert launched.config_file is None or Path(launched.config_file).is_file(), command
        words = ["python", launched.training_script, *launched.training_script_args]
    match words:
        case ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"] | ["hf", "auth", "login"]:
            pass
        case (
            ["tensorboard", "--logdir", "models"] | ["ruff", "check" | "format", *_] | ["hf", "upload" | "download", *_]
        ):
            pass
        case [".ci/run"]:
            assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)
        case ["pip", "install", "--require-hashes", "-r", "requirements.lock"]:
            pass  # what is in it is tested below; installing it brings gigabytes
        case ["pip", "install", "-r", file, *others]:
            assert all((REPOSITORY / name).is_file() for name in (file, *others) if name != "-r"), command
        case ["pip", "install", "." | ".[app,onnx,lora,serve,slurm,track]"]:
            pass  # tests/test_package.py does
        case ["pip", "install", *names]:
            required = re.findall(r"(?m)^([\w-]+)==", (REPOSITORY / "requirements.txt").read_text())
            assert set(names) <= {*required, *FURTHER_PACKAGES}, command
        case ["python", "-m", "pytest", *arguments]:
            named = [argument.split("::")[0] for argument in arguments if "/" in argument]
            assert all((REPOSITORY / name).exists() for name in named), command
        case ["python", "run_classification.py", *arguments]:
            check_run(arguments, is_run, can_run)
        case ["python", "run_experiments.py", *arguments]:
            check_plan(arguments)
        case ["python", "prepare_dataset.py", *arguments]:
            call(prepare_dataset.main, [*arguments, "--num_proc", "1"], is_run and can_run)
        case ["python", "demo/app.py", *arguments]:
            call(app.main, arguments, is_run and can_run)
        case ["python", "-m", module, *arguments]:
            call(import_module(module).main, arguments, is_run and can_run)
        case _:
            pytest.fail(f"no rule says how to check this command: {command}")


def call(main, arguments, is_run):
    """A program of one parser, as a whole or until it has read its command line."""
    if is_run:
        assert main(arguments) in (None, 0), arguments
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *given):
        parse(parser, *given)
        raise ParsedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only), pytest.raises(ParsedError):
        main(arguments)


def check_run(arguments, is_run, can_run):
    """run_classification.py, for two steps on tiny backbones; or until everything has looked at its arguments."""
    if not is_run:
        arguments = [*arguments, "--output_dir", "new"]
    elif can_run:
        tiny = ["--audio_model", "tiny", "--text_model", "tiny"] * ("--model_name_or_path" not in arguments)
        quick = ("--max_steps", "2", "--per_device_train_batch_size", "4", "--disable_tqdm", "true")
        assert run_classification.run([*arguments, *tiny, *quick]) == 0, arguments
        return

    def leave_folder(model_args, data_args, training_args, command):
        if is_run:
            Path(training_args.output_dir, "left").mkdir(parents=True)
        return {}

    with mock.patch.object(run_classification, "main", leave_folder):
        try:
            assert run_classification.run(arguments) == 0, arguments
        except SystemExit as exit:
            assert exit.code == 0 and "--help" in arguments


def check_plan(arguments):
    """run_experiments.py, until the first run of the plan would start; what each run is given is left."""

    def check_all(plan, folder, *_):
        run_experiments.check_arguments(plan.cells, folder / "cells")
        for cell in plan.cells:
            (folder / "cells" / cell.name).mkdir(parents=True, exist_ok=True)
            write_json(folder / "cells" / cell.name / ARGUMENTS, cell.arguments)
        return 0

    with mock.patch.object(run_experiments, "run_plan", check_all):
        assert run_experiments.run(arguments) == 0, arguments


def test_every_command_is_understood(workplace):
    found = {*commands(TWIN), *commands_in_order()}
    assert len(found) > 50
    for command in sorted(found):
        check(command, is_run=False)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(commands("README.md"), id="README.md"),
        pytest.param(commands_in_order(), id="all", marks=pytest.mark.slow),
    ],
)
def test_the_commands_run_one_after_the_other(run, checkout):
    """In one checkout, so that none may write where another has."""
    for command in run:
        check(command, is_run=True)


def test_two_commands_with_one_folder_are_noticed(checkout):
    command = "accelerate launch run_classification.py recipes/rsa_cfn.json"
    check(command, is_run=True)
    with pytest.raises(AssertionError):
        check(f"{command} --seed 7", is_run=True)


def test_an_unknown_command_is_noticed(workplace):
    for command in ("make all", "python -m scripts.explain models/rsa_cfn --audoi speech.wav --output_dir explained"):
        with pytest.raises((pytest.fail.Exception, SystemExit)):
            check(command, is_run=False)
    with pytest.raises(AssertionError):
        check("accelerate launch run_classification.py --fushion rsa_cfn", is_run=False)


def test_the_python_runs_as_printed(workplace, monkeypatch):
    """What needs nothing of this repository in a process that doesn't know it, the rest in this one."""
    codes = dict.fromkeys(code for page in PAGES.values() for language, code in blocks(page) if language == "python")
    apart = [code for code in codes if "from explain import" not in code]
    here = [code for code in codes if code not in apart]
    assert apart and here
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(workplace / "modules")}
    environment.pop("PYTHONPATH", None)
    program = f"for code in {apart!r}: exec(code, {{}})"
    finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    answers = finished.stdout.split()
    for code in here:
        exec(code, {"print": answers.append})
    assert set(answers) <= set(EMOTIONS) and len(answers) == sum(code.count("print(") for code in codes)


def test_code_is_of_a_kind_that_is_checked():
    for page, text in PAGES.items():
        assert {language for language, _ in blocks(text)} <= {"bash", "python"}, page


def test_the_lock_has_every_requirement_and_hashes_of_every_package():
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert all(
        re.fullmatch(r"[\w.-]+==[^\s;]+( ; [^\n]*?)?(\s+--hash=sha256:[0-9a-f]{64})+", line) for line in packages
    )
    locked = {re.match(r"\S+", line).group() for line in packages}
    required = re.findall(r"(?m)^[\w.-]+==\S+$", (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"))
    assert len(packages) > len(required) and {name.replace("_", "-") for name in required} <= locked


def test_links_and_pictures_are_there():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            file, _, anchor = target.partition("#")
            linked = (REPOSITORY / page).parent / file if file else REPOSITORY / page
            assert linked.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), f"{page}: {target}"


def test_modules_that_are_named_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"`([\w/]+\.py)`", prose(text)):
            folders = (REPOSITORY, (REPOSITORY / page).parent)
            assert any((folder / name).is_file() for folder in folders), f"{page}: {name}"


def test_the_first_page_is_short_and_leads_to_every_other():
    assert len(README.splitlines()) <= 180
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", README))
    assert {page for page in PAGES if page.startswith("docs/")} <= linked


def test_the_korean_page_says_the_same():
    assert blocks(KOREAN) == blocks(README)
    for figures in (r"\d[\d,.]*\d|\d", r"`[^`]+`", r"\]\((?!README|https?:)([^)]+)\)"):
        found = [Counter(re.findall(figures, prose(page))) for page in (README, KOREAN)]
        assert found[0] == found[1], (found[0] - found[1], found[1] - found[0])
    tables = [[row[:2] for row in table(page, "`--fusion`")] for page in (README, KOREAN)]
    assert tables[0] == tables[1]


def test_the_two_first_commands_set_everything_up():
    first, second = (code.strip() for _, code in blocks(README)[:2])
    for command in (first, second):
        assert "\n" not in command and command.startswith(SETUP)
    assert first.endswith("accelerate launch run_classification.py --fusion rsa_cfn")
    pattern = re.search(r"grep -m 1 -E '(.*)' README.md", (REPOSITORY / ".ci" / "run").read_text()).group(1)
    assert re.fullmatch(pattern.replace("\\.", "[.]"), second)


def test_the_citation_names_the_paper_as_the_cards_do():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = cited["references"]
    card = (REPOSITORY / "training" / "card.md.jinja").read_text(encoding="utf-8")
    assert f"*{paper['title']}* (RSA-CFN), {paper['conference']['name']}: " in card
