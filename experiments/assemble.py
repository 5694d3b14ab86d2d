"""A plan and the folders of its cells → `Results`: what was run, the statistics over it, and with which versions."""

import shlex
import shutil
from collections import defaultdict
from pathlib import Path

from experiments.cells import PICTURE, draw_cell
from experiments.comparisons import compare_systems, measure_flattery
from experiments.plan import OF_A_CELL, Cell, Plan
from experiments.results import COST, PAPER, SESSION, Results, Run
from experiments.scored_run import ScoredRun, read_runs
from experiments.statistics import ensemble_runs, majority_runs, score_system
from foundation.errors import InputError
from foundation.versions import made_with
from training.arguments import DEMO_DIR
from training.parsing import parse_arguments


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
        versions=made_with(),
        systems=plan.systems,
        tables=plan.tables,
        runs=[_describe(cell, finished.get(cell.name), errors) for cell in plan.cells],
    )
    of_protocol = {protocol: defaultdict(list) for protocol in dict.fromkeys(cell.protocol for cell in plan.cells)}
    for run in finished.values():
        of_protocol[run.protocol][run.system].append(run)
    for runs_of in of_protocol.values():
        joined = {name: ensemble_runs(name, members, runs_of) for name, members in plan.ensembles.items()}
        runs_of |= {name: runs for name, runs in joined.items() if runs}
        results.scores += [score_system(runs, label_names) for runs in runs_of.values()]
        results.comparisons += compare_systems(runs_of, label_names)
        if runs_of:
            everything = [run for runs in runs_of.values() for run in runs]
            results.scores.append(score_system(majority_runs(everything), label_names))
    for system, runs in of_protocol.get(PAPER, {}).items():
        if system in plan.ensembles:
            continue
        session_runs = of_protocol.get(SESSION, {}).get(system, [])
        results.flattery += measure_flattery(runs, session_runs, label_names)
    results.attention = _take_attention(plan, output_dir, finished)
    return results


def _describe(cell: Cell, run: ScoredRun | None, errors: dict[str, str]) -> Run:
    command = "accelerate launch run_classification.py " + shlex.join(cell.arguments[: -len(OF_A_CELL)])
    described = Run(cell.name, cell.protocol, cell.system, cell.fold, cell.seed, command)
    if run is None:
        described.error = errors.get(cell.name, "not run")
        return described
    described.scores = _scores(run.scores)
    if run.compared_on == "test" and run.last_evaluation is not None:
        described.last_epoch = _scores(run.last_evaluation)
    for name in COST:
        setattr(described, name, getattr(run, name))
    return described


def _scores(logged: dict) -> dict[str, float]:
    """The scores of the reported rows, without how long the scoring took."""
    times = ("_runtime", "_per_second", "_preparation_time")  # the last one only of a run that resumed after training
    names = [name for name in logged if name.startswith("eval_") and not name.endswith(times)]
    return {name.removeprefix("eval_"): logged[name] for name in names}


def _take_attention(plan: Plan, output_dir: Path, finished: dict[str, ScoredRun]) -> dict[str, str]:
    """The attention of each system that has one: of its first finished run, which drew it if none before it failed."""
    files, first = {}, {cell.system: cell for cell in reversed(plan.cells) if cell.name in finished}
    for cell in (first[system.name] for system in plan.systems if system.name in first):
        folder = output_dir / "cells" / cell.name
        if (folder / PICTURE).is_file() or draw_cell(cell, folder):
            files[cell.system] = f"pictures/attention-{cell.name.split('/')[1]}.png"
            (output_dir / files[cell.system]).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / PICTURE, output_dir / files[cell.system])
    return files
