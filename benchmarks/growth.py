"""
What a corpus costs as it grows: reading, conversion, division into folds, and the report of a plan on it, whose runs
are simulated.

```bash
python -m benchmarks.growth --rows 1000 4000 13462 --picture benchmarks/growth.png
```
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from pandas import DataFrame
from safetensors.torch import save_file
from transformers import EvalPrediction
from transformers.utils import SAFE_WEIGHTS_NAME

from benchmarks.measure import GIBIBYTE, describe_run, markdown_table
from configuration_rsa_cfn import FUSIONS
from corpora.demo import write_corpus
from experiments.cells import ARGUMENTS, MOST_BYTES, finish
from experiments.plan import Cell, read_plan
from foundation.figures import new_figure
from foundation.files import REPOSITORY, write_json
from training.checkpoints import FINISHED
from training.data import Splits, load_splits
from training.parsing import parse_arguments
from training.run_folder import write_predictions, write_split
from training.scoring import compute_metrics


NUM_FOLDS, NUM_SEEDS = 5, 3
# In a small process of its own, as a child's peak memory is never less than its parent's was when it was started.
LAUNCH = """import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""


def run_script(*command: str | Path) -> tuple[float, float]:
    """Seconds of one of the scripts from start to exit, and GiB of its largest process."""
    start = time.perf_counter()
    kibibytes = subprocess.check_output([sys.executable, "-c", LAUNCH, *map(str, command)], cwd=REPOSITORY)
    return time.perf_counter() - start, int(kibibytes) * 1024 / GIBIBYTE


def simulate(cell: Cell, folder: Path, splits: Splits, model: Path) -> None:
    """Leave what a run leaves, with answers drawn at random and the same weights for all."""
    folder.mkdir(parents=True)
    write_json(folder / ARGUMENTS, cell.arguments)
    write_split(folder, splits.record, splits.membership)
    table, names = splits.tables["test"], splits.label_names
    labels, rng = np.array(table["label"][:]), np.random.default_rng([cell.fold, cell.seed])
    logits = rng.normal(size=(len(labels), len(names))) + np.eye(len(names))[labels] * FUSIONS.index(cell.system) / 4
    write_predictions(folder / "predictions.csv", table, logits, names)
    scores = compute_metrics(EvalPrediction(logits, labels), names) | {"rows": len(labels), "loss": 1.0}
    scores = {f"eval_{name}": value for name, value in scores.items()}
    write_json(folder / "all_results.json", scores | {"train_runtime": 100.0})
    write_json(folder / FINISHED, {"log_history": [scores | {"epoch": n, "loss": 1 / n} for n in range(1, 11)]})
    os.link(model, folder / SAFE_WEIGHTS_NAME)
    finish(folder)


def measure(folder: Path, num_rows: int) -> dict[str, float]:
    """Seconds, and GiB where the name says so, of each step for a corpus of so many rows."""
    corpus, dataset, results, model = (folder / name for name in ("corpus", "dataset", "results", "model"))
    write_corpus(corpus, num_rows)
    costs, start = {"rows": num_rows}, time.perf_counter()
    for file in corpus.glob("wav/*/*.wav"):
        soundfile.read(file)
    costs["soundfile reads"] = time.perf_counter() - start
    for num_proc in (1, 2):
        options = ("--corpus_dir", corpus, "--output_dir", f"{dataset}{num_proc}", "--num_proc", num_proc)
        costs[f"conversion, {num_proc}"], gibibytes = run_script("prepare_dataset.py", *options)
        costs[f"conversion, {num_proc}, GiB"] = gibibytes
    protocols = {"session": {"num_folds": NUM_FOLDS, "seeds": list(range(NUM_SEEDS))}}
    tables = {"": [{"fusions": FUSIONS, "backbones": [{"audio_model": "tiny", "text_model": "tiny"}]}]}
    plan = {"arguments": {"dataset_name": f"{dataset}1"}, "protocols": protocols, "tables": tables}
    plan_file = folder / "plan.json"
    write_json(plan_file, plan)
    cells, start = read_plan(plan_file).cells, time.perf_counter()
    of_fold = {cell.fold: parse_arguments(cell.arguments)[1] for cell in cells}
    splits = {fold: load_splits(data_args, True) for fold, data_args in of_fold.items()}
    costs["division into folds"] = time.perf_counter() - start
    save_file({"weight": torch.zeros(MOST_BYTES // 4)}, model)  # as much as is read to recognise one
    for cell in cells:
        simulate(cell, results / "cells" / cell.name, splits[cell.fold], model)
    costs["report"], costs["report, GiB"] = run_script("run_experiments.py", plan_file, "--output_dir", results)
    return costs


def draw(file: Path, costs: DataFrame) -> None:
    figure = new_figure(8.0, 3.6)
    for axes, is_memory, label in zip(figure.subplots(1, 2), (False, True), ("seconds", "GiB of the largest process")):
        shown = costs[[name for name in costs if name.endswith("GiB") == is_memory]]
        for name, values in shown.items():
            axes.plot(shown.index, values, "o-", label=name.removesuffix(", GiB"))
        axes.set(xlabel="rows of the corpus", ylabel=label, xlim=(0, None))
        axes.set_ylim(0, 1.6 * shown.to_numpy().max())  # room for the names
        axes.legend(frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Time and memory as the corpus grows.")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 4_000, 13_462], help="default: up to KEMDy20's")
    parser.add_argument("--picture", type=Path, help="where a picture of it is written")
    arguments, costs = parser.parse_args(argv), []
    print(f"{describe_run(torch.device('cpu'))}; {len(FUSIONS)} systems, {NUM_FOLDS} folds, {NUM_SEEDS} seeds\n")
    for num_rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            costs.append(measure(Path(folder), num_rows))
        print(f"{num_rows} rows are measured.", file=sys.stderr)
    print(markdown_table([{name: f"{value:.4g}" for name, value in cost.items()} for cost in costs]))
    if arguments.picture:
        draw(arguments.picture, DataFrame(costs).set_index("rows"))


if __name__ == "__main__":
    main()
