"""What training logged, step by step: as rows of a table, and as a picture of loss and scores."""

from pathlib import Path


# What is shown of a log, and what it is called.
COLUMNS = {"loss": "training loss", "eval_loss": "validation loss", "eval_macro_f1": "validation macro F1"}
COLUMNS |= {"eval_unweighted_average_recall": "validation UAR", "learning_rate": "learning rate"}
COLUMNS["grad_norm"] = "gradient norm"


def training_steps(log_history: list[dict]) -> list[dict]:
    """`step`, `epoch` and what of `COLUMNS` the `log_history` of `trainer_state.json` has of it, one entry per step."""
    steps: dict[int, dict] = {}
    for entry in log_history:
        if logged := {name: entry[name] for name in COLUMNS if name in entry}:
            steps.setdefault(entry["step"], {}).update(step=entry["step"], epoch=entry["epoch"], **logged)
    return [steps[step] for step in sorted(steps)]


def draw_training_curve(file: Path, steps: list[dict], best_step: int | None = None) -> None:
    """Losses, and beside them the scores on the validation part where there are any, against the step, as a PNG."""
    # Imported late, as in draw_confusion_matrix.
    from matplotlib.ticker import MaxNLocator

    from foundation.figures import new_figure

    logged = set().union(*steps)
    score = "score (0 to 1)"
    panels = {"loss (nats)": ["loss", "eval_loss"], score: ["eval_macro_f1", "eval_unweighted_average_recall"]}
    panels = {label: [name for name in names if name in logged] for label, names in panels.items()}
    panels = {label: names for label, names in panels.items() if names}
    figure = new_figure(4.5 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for panel, (label, names) in zip(axes[0], panels.items()):
        for name, style in zip(names, ("o-", "s--")):
            there = [entry for entry in steps if name in entry]
            # Markers hide a curve of many points.
            style = style if len(there) <= 30 else style[1:]
            title = COLUMNS[name].replace("validation", "validation part:") if label == score else COLUMNS[name]
            panel.plot([entry["step"] for entry in there], [entry[name] for entry in there], style, label=title, ms=4)
        if best_step is not None:
            panel.axvline(best_step, color="grey", linewidth=1, linestyle=":", label=f"kept: step {best_step}")
        panel.set(xlabel="optimizer step", ylabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if label == score:
            panel.set_ylim(0, 1)
        panel.grid(color="#DDDDDD")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8)
    figure.savefig(file, dpi=120)
