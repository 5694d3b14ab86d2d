"""One cell of a plan in a process of its own: run_classification.py, the record that says it is finished, a picture."""

import json
import logging
import os
import shutil
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import pandas
import psutil
import torch
from filelock import FileLock
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoProcessor
from transformers.utils import SAFE_WEIGHTS_NAME

import run_classification
from experiments.plan import Cell
from foundation.errors import InputError
from foundation.files import LOCK, MIB, digest, holds_files, owned, write_json
from foundation.words import active, writable
from training.arguments import DEMO_DIR
from training.checkpoints import delete, list_checkpoints
from training.parsing import parse_arguments


# The first file of a cell is what the run is given, the last what it took and left.
ARGUMENTS = "arguments.json"
RECORD = "cell.json"
LOG = "log.txt"
PICTURE = "attention.png"
BACKBONES = ("audio_model.", "text_model.")
# What the report is made of; models are larger than what is read to recognise a file.
READ = (".csv", ".json", ".py", ".safetensors")
MOST_BYTES = 16 * MIB


def is_finished(folder: Path) -> bool:
    """Whether nothing is left to do for the cell in this folder."""
    return (folder / RECORD).is_file()


def mark(file: Path) -> str:
    """What tells a file from one that is cut or otherwise changed: its size, and a digest of its beginning."""
    return f"{file.stat().st_size} {digest(file, MOST_BYTES)}"


def clear(folder: Path) -> None:
    """Remove what a damaged cell has left, its record last: it is damaged until all else is gone."""
    with owned(folder, str(folder)):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def check_arguments(cells: list[Cell], output_dir: Path) -> None:
    """Raise `InputError` if a cell was started earlier with other arguments than it has now."""
    for cell in cells:
        folder = output_dir / cell.name
        if not (folder / ARGUMENTS).is_file():
            if holds_files(folder):
                raise InputError(f"{folder} holds a run without {ARGUMENTS}; give another --output_dir, or remove it")
            continue
        then, now = _by_name(read_arguments(folder)), _by_name(cell.arguments)
        differences = [
            f"--{name} {then.get(name, 'not given')}, now {now.get(name, 'not given')}"
            for name in then | now
            if then.get(name) != now.get(name)
        ]
        if differences:
            raise InputError(
                f"{folder} was run with other arguments ({'; '.join(differences)}); give another --output_dir, or "
                "remove that folder"
            )


def read_arguments(folder: Path) -> list[str]:
    """What a cell was given."""
    try:
        arguments = json.loads((folder / ARGUMENTS).read_text(encoding="utf-8"))
    except ValueError:
        arguments = None
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        raise InputError(f"{ARGUMENTS} is no list of arguments")
    return arguments


def _by_name(arguments: list[str]) -> dict[str, str]:
    """A command line's values by the names of their arguments."""
    parts = [part.partition(" ") for part in f" {' '.join(arguments)}".split(" --")[1:]]
    return {name: value for name, _, value in parts}


def run_cell_in_process(cell: Cell, folder: Path, environment: dict[str, str]) -> None:
    """Run a cell, and end this process with its exit code. The environment says which device is its own."""
    os.environ.update(environment)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    sys.exit(run_cell(cell, folder))


def run_cell(cell: Cell, folder: Path) -> int:
    """Run a cell, or go on where it was interrupted, and give the exit code of run_classification.py."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ARGUMENTS, cell.arguments)
    _print_to(folder / LOG)
    logging.basicConfig(format="%(message)s", force=True)
    # A process that outlived the one that started it may be about to save its last checkpoint, or to finish.
    with FileLock(f"{folder}.lock"):
        if is_finished(folder):
            return 0
        code = run_classification.run([*cell.arguments, "--output_dir", str(folder)])
        if code == 0:
            finish(folder)
            if cell.is_first:
                draw_cell(cell, folder)
    return code


def _print_to(file: Path) -> None:
    """Append to a file whatever this process prints, native libraries included."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


def _stop_with_parent() -> None:
    """Stop this run, after a last checkpoint, when the process that started it is gone."""
    wait([parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def finish(folder: Path) -> None:
    for checkpoint in list_checkpoints(folder):
        delete(checkpoint)
    files = sorted(file for file in folder.iterdir() if file.suffix in READ and file.name != RECORD)
    record = {"peak_memory_bytes": _peak_memory_bytes(), **count_parameters(folder)}
    write_json(folder / RECORD, record | {"files": {file.name: mark(file) for file in files}})


def _peak_memory_bytes() -> int:
    """The most memory used, of the accelerator if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def draw_cell(cell: Cell, folder: Path) -> bool:
    """Draw where the attention of a finished cell's model goes over the rows that it was scored on, on the device that
    it was trained on: of a large model a CPU would take hours. Whether there is a picture."""
    from explain.attention import FUSIONS_WITH_ATTENTION, collect_attention, draw_attention  # late, as few draw one

    model_args, data_args, training_args = parse_arguments(cell.arguments)
    if model_args.fusion not in FUSIONS_WITH_ATTENTION:
        return False
    try:
        ids = pandas.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)["segment_id"].map(active)
        model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        dataset = data_args.dataset_name or DEMO_DIR
        weights = collect_attention(model.to(training_args.device), processor, dataset, set(ids))
        draw_attention(weights).savefig(folder / PICTURE, dpi=120)
    except Exception as error:  # of the files of a model that is damaged: all else is still to be told
        reason = writable(" ".join(str(error).split()))
        logging.getLogger(__name__).warning(f"No picture of the attention of {cell.system}: {reason}")
        return False
    return True


def count_parameters(folder: Path) -> dict[str, int]:
    """Parameters of the saved model, and those of its fusion alone."""
    counts = {"parameters": 0, "fusion_parameters": 0}
    with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as weights:
        for name in weights.keys():
            size = torch.Size(weights.get_slice(name).get_shape()).numel()
            counts["parameters"] += size
            counts["fusion_parameters"] += 0 if name.startswith(BACKBONES) else size
    return counts
