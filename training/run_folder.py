"""What a run leaves beside its checkpoint: its split, predictions.csv, confusion_matrix.png and the closing lines."""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import wrap

import numpy as np
import pandas
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainingArguments

from corpora.folds import GROUP_COLUMNS
from foundation.errors import InputError, RunStopped
from foundation.files import owned, write_csv, write_json
from foundation.words import writable
from metrics.scores import SCORES, confusion_matrix


@contextmanager
def owned_by_run(training_args: TrainingArguments):
    """A context in which no other run may write into the output folder. Its first process owns it, as [`owned`] says;
    where it can't, the others stop too."""
    given, refusal = f"--output_dir {training_args.output_dir}", [None]
    with ExitStack() as stack:
        if training_args.process_index == 0:
            try:
                stack.enter_context(owned(training_args.output_dir, given))
            except InputError as error:
                refusal = [f"{error}, such as {given}_seed{training_args.seed}"]
        if training_args.world_size > 1:
            broadcast_object_list(refusal)
        if refusal[0] is not None:
            raise InputError(refusal[0]) if training_args.process_index == 0 else RunStopped("", 2)
        yield


def write_split(folder: Path, record: dict, membership: list[tuple[str, str]]) -> None:
    """`split.json`, how the rows were divided; `splits.csv`, the part of every row, empty for one that is left out."""
    write_json(folder / "split.json", record)
    table = pandas.DataFrame(membership, columns=["segment_id", "part"])
    write_csv(folder / "splits.csv", table)


def write_predictions(file: Path, test: Dataset, logits: np.ndarray, label_names: list[str], attributes=None) -> None:
    """A line per row: its ID or number, session, speaker, gender and duration if all have one, label, prediction,
    probabilities, and of each attribute what is so and what is told, `(2, N)` by its name."""
    probabilities = torch.from_numpy(logits).double().softmax(dim=1).numpy()  # (N, C)
    given = (*GROUP_COLUMNS, "gender", "duration")
    ids = test["segment_id"] if "segment_id" in test.column_names else range(len(test))
    columns = {"segment_id": ids, **{name: test[name][:] for name in given if name in test.column_names}}
    columns = {name: values for name, values in columns.items() if None not in values}
    columns["label"] = [label_names[label] for label in test["label"]]
    columns["prediction"] = [label_names[predicted] for predicted in probabilities.argmax(axis=1)]
    for name, column in zip(label_names, probabilities.T):
        columns[f"probability_{name}"] = [f"{p:.6f}" for p in column]
    for name, pair in (attributes or {}).items():
        columns |= dict(zip((f"label_{name}", f"prediction_{name}"), pair.round(6)))
    write_csv(file, pandas.DataFrame(columns))


def draw_confusion_matrix(file: Path, references: np.ndarray, predictions: np.ndarray, label_names: list[str]) -> None:
    """Counts per pair of true and predicted class, coloured by their share of the true class."""
    # Imported late: matplotlib would delay the first training step.
    from foundation.figures import draw_counts, new_figure

    matrix = confusion_matrix(references, predictions, len(label_names))  # (C, C)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = ["\n".join(wrap(writable(name)[:100], 18)) for name in label_names]
    # No larger than can be drawn, however many there are.
    size = min(max(5.0, 0.9 * len(names) + 1.5) + 0.1 * max(map(len, names)), 60)
    figure = new_figure(size, size * 0.9)
    axes = figure.subplots()
    image = draw_counts(axes, matrix, shares, names, names, fontsize=10)
    axes.set_aspect("auto")
    figure.colorbar(image, ax=axes, label="share of the true class (0 to 1)", fraction=0.046)
    axes.set(xlabel="predicted", ylabel="true", title=f"{len(references)} utterances")
    figure.savefig(file, dpi=120)


def format_summary(metrics: dict[str, float], label_names: list[str], prefix: str = "eval") -> str:
    """The scores named `prefix` as a table, beside those of always answering the most frequent class."""
    rows = {name: [metrics[f"{prefix}_{name}"], metrics[f"{prefix}_majority_{name}"]] for name in SCORES}
    titles = {"kl_to_raters": "kl_to_raters (nats)", "prior_kl_to_raters": "of mean training votes"}
    told = [name.removeprefix(f"{prefix}_") for name in metrics if name.startswith(f"{prefix}_ccc_")]
    titles |= {name: writable(name) for name in told if not name.endswith(("_low", "_high"))}
    titles = {name: title for name, title in titles.items() if f"{prefix}_{name}" in metrics}
    rows |= {title: [metrics[f"{prefix}_{name}"], np.nan] for name, title in titles.items()}
    kinds = {"F1": "f1", "recall": "recall", "rows": "count", "predicted": "predicted_count"}
    classes = {title: [metrics[f"{prefix}_{kind}_{name}"] for name in label_names] for title, kind in kinds.items()}
    scores = pandas.DataFrame.from_dict(rows, "index", columns=["model", "majority class"])
    tables = (scores, pandas.DataFrame(classes, index=list(map(writable, label_names))))
    return "\n\n".join(table.to_string(float_format="{:.3f}".format, na_rep="") for table in tables)


def format_line(metrics: dict[str, float], prefix: str) -> str:
    shown = [name for name in (*SCORES, "kl_to_raters") if f"{prefix}_{name}" in metrics]
    return ", ".join(f"{name} {metrics[f'{prefix}_{name}']:.3f}" for name in shown)


def format_closing(metrics: dict[str, float], output_dir: str, seconds: float) -> str:
    """The last line of a run: how long it took, macro F1 on the test part, with both modalities if that was scored or
    the better of one, and where everything is."""
    minutes, whole = divmod(round(seconds), 60)
    took = f"{minutes} min {whole} s" if minutes else f"{whole} s"
    if minutes >= 60:
        took = f"{minutes // 60} h {minutes % 60} min"
    scored = {"eval": "", "eval_audio": " with audio alone", "eval_text": " with text alone"}
    best = max(
        (prefix for prefix in scored if f"{prefix}_macro_f1" in metrics),
        key=lambda prefix: (prefix == "eval", metrics[f"{prefix}_macro_f1"]),
        default=None,
    )
    result = ""
    if best is not None:
        macro_f1 = f"{metrics[f'{best}_macro_f1']:.3f}".removeprefix("0")
        result = f"macro F1 {macro_f1} on {metrics[f'{best}_rows']} rows{scored[best]}; "
    return f"Done in {took}: {result}everything is in {output_dir}."
