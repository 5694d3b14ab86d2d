"""A plan and the folders of its cells → `Results`: what was run, the statistics over it, and with which versions."""

import logging
import platform
import shlex
import subprocess
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

from experiments.comparisons import compare_systems, measure_flattery
from experiments.plan import OF_A_CELL, Cell, Plan
from experiments.results import PAPER, SESSION, Cost, Results, Run
from experiments.scored_run import ScoredRun, read_runs
from experiments.statistics import majority_runs, score_system
from foundation.errors import InputError
from foundation.files import REPOSITORY
from foundation.versions import package_versions
from foundation.words import writable
from training.arguments import DEMO_DIR
from training.parsing import parse_arguments


logger = logging.getLogger(__name__)


def make_results(plan: Plan, output_dir: Path, errors: dict[str, str], command: str) -> Results:
    """Everything that the report shows, from the finished cells; `errors` says why others failed, by their names, of
    which those become some that can't be read."""
    read, damaged = read_runs(plan.cells, output_dir / "cells")
    errors |= {name: reason for name, reason in damaged.items() if name not in errors}
    finished, classes = {name: run for name, (run, _) in read.items()}, [names for _, names in read.values()]
    label_names = classes[0] if classes else []
    for name, names in zip(finished, classes):
        if names != label_names:
            given, first = ", ".join(names), ", ".join(label_names)
            raise InputError(f"{name} has classes {given}, the first {first}: the runs are of different datasets")
    _, data_args, _ = parse_arguments(plan.cells[0].arguments)
    results = Results(
        name=plan.name,
        description=plan.description,
        dataset=data_args.dataset_name or DEMO_DIR,
        label_names=label_names,
        command=command,
        plan={**plan.given, "overrides": plan.overrides},
        versions=_versions(),
        systems=plan.systems,
        tables=plan.tables,
        runs=[_describe(cell, finished.get(cell.name), errors) for cell in plan.cells],
    )
    of_protocol = {protocol: defaultdict(list) for protocol in dict.fromkeys(cell.protocol for cell in plan.cells)}
    for run in finished.values():
        of_protocol[run.protocol][run.system].append(run)
    for runs_of in of_protocol.values():
        results.scores += [score_system(runs, label_names) for runs in runs_of.values()]
        results.comparisons += compare_systems(runs_of, label_names)
        if runs_of:
            everything = [run for runs in runs_of.values() for run in runs]
            results.scores.append(score_system(majority_runs(everything), label_names))
    for system, runs in of_protocol.get(PAPER, {}).items():
        session_runs = of_protocol.get(SESSION, {}).get(system, [])
        results.flattery += measure_flattery(runs, session_runs, label_names)
    results.attention = _draw_attention(plan, output_dir, finished, results.dataset)
    return results


def _describe(cell: Cell, run: ScoredRun | None, errors: dict[str, str]) -> Run:
    described = Run(
        name=cell.name,
        protocol=cell.protocol,
        system=cell.system,
        fold=cell.fold,
        seed=cell.seed,
        command="accelerate launch run_classification.py " + shlex.join(cell.arguments[: -len(OF_A_CELL)]),
    )
    if run is None:
        described.error = errors.get(cell.name, "not run")
        return described
    described.scores = _scores(run.scores)
    if run.compared_on == "test" and run.last_evaluation is not None:
        described.last_epoch = _scores(run.last_evaluation)
    for part in fields(Cost):
        setattr(described, part.name, getattr(run, part.name))
    return described


def _scores(logged: dict) -> dict[str, float]:
    """The scores of the reported rows, without how long the scoring took."""
    times = ("_runtime", "_per_second", "_preparation_time")  # the last one only of a run that resumed after training
    return {
        name.removeprefix("eval_"): score
        for name, score in logged.items()
        if name.startswith("eval_") and not name.endswith(times)
    }


def _versions() -> dict[str, str]:
    """Versions of Python and the packages, and the commit of this repository if git knows it."""
    versions = {"python": platform.python_version()} | package_versions()
    try:
        git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
        versions["commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        logger.warning("This folder is no git repository: the report can't name the commit.")
    return versions


def _draw_attention(plan: Plan, output_dir: Path, finished: dict[str, ScoredRun], dataset: str) -> dict[str, str]:
    """The attention of each system that has one: of its first finished run, over the rows that run was scored on."""
    from transformers import AutoModelForSequenceClassification, AutoProcessor

    from explain.attention import FUSIONS_WITH_ATTENTION, collect_attention, draw_attention

    files = {}
    for system in plan.systems:
        cell = next((cell for cell in plan.cells if cell.system == system.name and cell.name in finished), None)
        if system.fusion not in FUSIONS_WITH_ATTENTION or cell is None:
            continue
        folder = output_dir / "cells" / cell.name
        try:
            weights = collect_attention(
                AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval(),
                AutoProcessor.from_pretrained(folder, trust_remote_code=True),
                dataset,
                segment_ids=set(finished[cell.name].segment_ids),
            )
        except Exception as error:  # of the files of a model that is damaged: all else is still to be told
            logger.warning(f"No picture of the attention of {system.name}: {writable(' '.join(str(error).split()))}")
            continue
        files[system.name] = f"pictures/attention-{cell.name.split('/')[1]}.png"
        (output_dir / files[system.name]).parent.mkdir(exist_ok=True)
        draw_attention(weights).savefig(output_dir / files[system.name], dpi=120)
    return files
