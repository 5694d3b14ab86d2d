"""What `pip install .` gives: three commands and the model's modules that work anywhere, and nothing else in the way of
other packages."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modeling_rsa_cfn import RsaCfnForSequenceClassification


REPOSITORY = Path(__file__).parents[1]
SETTINGS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, WHEEL = SETTINGS["project"], SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]
# What has its place in a checkout alone.
LEFT_OUT = {"benchmarks", "tests"}


def test_all_modules_are_in_it():
    files = {path.relative_to(REPOSITORY).parts[0] for path in REPOSITORY.glob("[!.]*/*.py")} - LEFT_OUT
    files |= {path.name for path in REPOSITORY.glob("*.py")}
    assert files <= {*WHEEL["only-include"], *WHEEL["force-include"]}
    assert set(WHEEL["only-include"]) == {path.name for path in REPOSITORY.glob("*_rsa_cfn.py")}


def test_ranges_hold_what_is_pinned():
    extras = [name for names in PROJECT["optional-dependencies"].values() for name in names]
    ranges = {canonicalize_name(need.name): need for need in map(Requirement, [*PROJECT["dependencies"], *extras])}
    pinned, for_tests = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split("# tests\n")
    app = (REPOSITORY / "demo" / "requirements.txt").read_text(encoding="utf-8")
    for line in "".join([pinned, for_tests, app]).splitlines():
        name, _, version = line.partition("==")
        need = ranges.get(canonicalize_name(name))
        assert line.startswith("#") or need is None or need.specifier.contains(version), line
        assert need is not None or line not in pinned.splitlines(), line


def run(command, folder, **environment):
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(command, cwd=folder, env=outside | environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_three_commands_work_from_anywhere(tmp_path, prepared_dir):
    site, rows = tmp_path / "site", ["--dataset_name", str(prepared_dir)]
    build = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    run([sys.executable, "-m", "pip", "install", *build, str(REPOSITORY)], tmp_path)
    given = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert given - {"__pycache__"} == {*WHEEL["only-include"], "rsa_cfn", "bin"}
    modules = {"PYTHONPATH": str(site)}
    plan = {"protocols": {"session": {"folds": [1], "seeds": [1]}}, "tables": {"one": [{"fusions": ["early_fusion"]}]}}
    plan["arguments"] = {"max_steps": 2, "num_train_epochs": 1}
    (tmp_path / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    run([site / "bin" / "rsa-cfn-prepare", "--corpus", "demo", "--output_dir", "data/demo"], tmp_path, **modules)
    recipe = ["recipes/early_fusion.json", "--fp16", "false", "--output_dir", "models/a", "--max_steps", "2"]
    tiny = ["--audio_model", "tiny", "--text_model", "tiny", "--max_audio_seconds", "1"]
    run([site / "bin" / "rsa-cfn-train", *recipe, *rows, *tiny], tmp_path, **modules)
    run([site / "bin" / "rsa-cfn-experiments", "plan.json", "--dataset_name", "data/demo"], tmp_path, **modules)
    results = json.loads((tmp_path / "results" / "plan" / "results.json").read_text(encoding="utf-8"))
    assert results["versions"]["rsa-cfn"] == PROJECT["version"] and "commit" not in results["versions"]
    # The checkpoint needs neither.
    load = "from transformers import pipeline; pipeline(model='models/a', trust_remote_code=True)"
    run([sys.executable, "-c", load], tmp_path)
    explain = [sys.executable, "-m", "rsa_cfn.scripts.explain", "models/a", "--text", "정말", "--output_dir", "why"]
    run(explain, tmp_path, **modules)
    assert RsaCfnForSequenceClassification.from_pretrained(tmp_path / "models" / "a").config.fusion == "early_fusion"
