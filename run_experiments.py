"""Train and score all systems of a plan, and compare them: intervals, paired differences, and a report.

python run_experiments.py recipes/experiments/demo.json
python run_experiments.py recipes/experiments/paper.json --dataset_name data/kemdy20 --num_processes 4
"""

import argparse
import logging
import shlex
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from foundation.errors import InputError, OneLineParser, complain, run_script, unknown_arguments
from training.parsing import make_parser, parse_arguments


def parse_command(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Tell the arguments of this script from those for run_classification.py."""
    parser = OneLineParser("run_experiments.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("plan", help="A JSON file such as those in recipes/experiments.")
    parser.add_argument("--output_dir", help="Where everything is written (default: results/ and the plan's name).")
    parser.add_argument(
        "--num_processes",
        type=int,
        help="How many runs are trained side by side (default: one for each GPU; without one, tiny backbones as\n"
        "many as there are cores, and any others one after the other).",
    )
    parser.add_argument(
        "--launcher",
        choices=["slurm"],
        help="Make the runs jobs of Slurm, all at a time unless --num_processes is given, on a folder that all its\n"
        "machines see.",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="Of each job: timeout_min (1440), mem_gb, cpus_per_task, gpus_per_node, partition and what else submitit\n"
        "gives to sbatch; cluster=local tries them as processes of this machine.",
    )
    parser.add_argument("--dry_run", action="store_true", help="Only show what Slurm would be given for a run.")
    parser.epilog = (
        "All other arguments are for run_classification.py, and win over those of the plan.\n\n"
        "Exit codes: 0, all runs are finished; 1, some failed, or a file can't be written; 2, something given can't\n"
        "be used; 143 after SIGTERM, 130 after SIGINT."
    )
    args, overrides = parser.parse_known_args(arguments)
    _, unknown = make_parser().parse_known_args(overrides)
    if unknown:
        known = [*parser._option_string_actions, *make_parser()._option_string_actions]
        raise InputError(unknown_arguments(unknown, known))
    if args.num_processes is not None and args.num_processes < 1:
        raise InputError(f"--num_processes {args.num_processes} is too small; give 1 or more")
    if args.launcher and find_spec("submitit") is None:
        raise InputError("--launcher slurm needs submitit; pip install submitit")
    if not args.launcher and (args.slurm or args.dry_run):
        raise InputError("--slurm and --dry_run are for jobs of Slurm; give --launcher slurm too")
    return args, overrides


if __name__ == "__main__":  # as imports take seconds
    run_script("run_experiments.py", parse_command, is_early=True)

from experiments.assemble import make_results
from experiments.cells import check_arguments, clear, is_finished
from experiments.pages import write_report
from experiments.plan import Plan, read_plan
from experiments.progress import Progress
from experiments.schedule import Interrupted, choose_num_processes, run_cells
from experiments.scored_run import read_runs
from foundation.files import owned
from fusion_rsa_cfn import FUSION_CLASSES
from training.arguments import TINY
from training.data import load_splits
from training.model import check_models


FAILED = 1
REFUSED = 2


def main(arguments: list[str]) -> int:
    """
    Run what isn't finished of a plan, then write the report over all of it: 0 if all cells are finished, 1 if some
    failed, 128 and its number after a signal.
    """
    args, overrides = parse_command(arguments)
    plan = read_plan(args.plan, overrides)
    output_dir = Path(args.output_dir or f"results/{plan.name}")
    with owned(output_dir, f"--output_dir {output_dir}") as output_dir:
        command = shlex.join(["python", "run_experiments.py", *arguments])
        return run_plan(plan, output_dir, args, command)


def run_plan(plan: Plan, output_dir: Path, args: argparse.Namespace, command: str) -> int:
    """The same as `main`, for a plan that was read, in a folder that no other process writes to."""
    start, cells_dir = time.perf_counter(), output_dir / "cells"
    launch = None
    if args.launcher:
        from experiments.jobs import Job, make_executor, sbatch_text  # late, since submitit is an extra

        executor = make_executor(output_dir / "jobs", args.slurm)
        launch = partial(Job, executor)
    _, damaged = read_runs(plan.cells, cells_dir)
    check_arguments([cell for cell in plan.cells if cell.name not in damaged], cells_dir)
    check_data(plan)
    for name, damage in damaged.items():
        clear(cells_dir / name)
        print(f"Damaged: {name}: {damage}; it is run again")
    left = [cell for cell in plan.cells if not is_finished(cells_dir / cell.name)]
    trained = [system for system in plan.systems if system.fusion in FUSION_CLASSES]
    is_tiny = all(TINY in (system.audio_model, system.text_model) for system in trained)
    if args.dry_run:
        for cell in left[:1]:
            print(f"{len(left)} jobs are left; the first:\n\n{sbatch_text(executor, cell, cells_dir / cell.name)}")
        return 0
    is_elsewhere = launch and "cluster=local" not in args.slurm
    num_processes = args.num_processes or (len(left) if is_elsewhere else choose_num_processes(is_tiny, len(left)))
    progress = Progress(plan.cells, {cell.name for cell in left}, num_processes, cells_dir)
    try:
        errors = run_cells(left, cells_dir, num_processes, progress.update, launch) if left else {}
    except Interrupted as interrupted:
        number = sum(is_finished(cells_dir / cell.name) for cell in plan.cells)
        complain(
            "run_experiments.py",
            f"stopped by {interrupted}; {number} of {len(plan.cells)} runs are finished, and the same command goes on "
            "with the others",
        )
        return 128 + interrupted.number
    progress.close()
    results = make_results(plan, output_dir, errors, command)
    for name, reason in errors.items():
        print(f"Failed: {name}: {reason} (all it said is in {cells_dir / name / 'log.txt'})")
    write_report(results, output_dir)
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    print(
        f"{len(plan.cells) - len(errors)} of {len(plan.cells)} runs are finished, {minutes} min {seconds} s. The "
        f"report is {output_dir / 'report.html'}; beside it are results.md, results.csv and results.json."
    )
    return FAILED if errors else 0


def check_data(plan: Plan) -> None:
    """Look once for each pair of backbones, and load and divide the rows once for each protocol, as each cell will, to
    report here what is wrong with them."""
    backbones = {system.name: (system.audio_model, system.text_model) for system in plan.systems}
    for cell in {backbones[cell.system]: cell for cell in plan.cells}.values():
        check_models(*parse_arguments(cell.arguments)[:2])
    fusions = {system.fusion for system in plan.systems} & {*FUSION_CLASSES}
    read = {name for fusion in fusions for name in FUSION_CLASSES[fusion].modalities}
    for protocol in dict.fromkeys(cell.protocol for cell in plan.cells):
        cell = max((cell for cell in plan.cells if cell.protocol == protocol), key=lambda cell: cell.fold or 0)
        _, data_args, training_args = parse_arguments(cell.arguments)
        load_splits(data_args, training_args.eval_strategy != "no", modalities=tuple(read))


def run(arguments: list[str]) -> int:
    """The script: what `main` returns, 2 if something given can't be used, 1 if something can't be written."""
    try:
        return main(arguments)
    except InputError as error:
        complain("run_experiments.py", error)
        return REFUSED
    except OSError as error:
        complain("run_experiments.py", f"a file can't be read or written ({error}); the same command goes on")
        return FAILED


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    run_script("run_experiments.py", run)
