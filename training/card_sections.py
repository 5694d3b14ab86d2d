"""The sections of a model's card, each from what the run knows; `card` puts them together."""

import json
import platform
import shlex
from typing import TYPE_CHECKING

import torch

from corpora.folds import find_groups
from foundation.versions import package_versions
from foundation.words import cell, counted, first_names, with_share, without_folders
from metrics.intervals import FEW_GROUPS, NUM_RESAMPLES
from metrics.scores import SCORES
from training.curves import COLUMNS
from training.hub import CURVE_FILE
from training.report import ScoredPart


if TYPE_CHECKING:
    from training.card import TrainedModel


# A longer log is thinned out; the picture has all of it.
ROWS_OF_LOG = 30
IMBALANCE = 3


def loading_section(trained: "TrainedModel", revision: str) -> str:
    """Six lines of Python."""
    name = trained.repo_id or without_folders(trained.training_args.output_dir)
    pin = f', revision="{revision}"' if trained.repo_id is not None else ""
    processor = trained.processor
    given = {"audio": 'audio="speech.wav"', "text": 'text="정말 고마워요"'}
    fusion = trained.model.config.fusion
    inputs = given.get(fusion, ", ".join(given.values()))
    about = "`trust_remote_code=True` runs the model's code, which lies beside its weights."
    if trained.repo_id is not None:
        about += (
            " `revision` pins both: code that somebody changes later is not run. Give a commit's hash from the history "
            "of this repository."
            if revision == "main"
            else " `revision` pins both to the commit that this card describes: what is changed later is not run."
        )
    return f"""```python
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("{name}"{pin}, trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{name}"{pin}, trust_remote_code=True)
inputs = processor({inputs}, return_tensors="pt")
logits = model(**inputs).logits
print(model.config.id2label[logits.argmax().item()])
```

{about} Audio of any rate is resampled to {processor.feature_extractor.sampling_rate} Hz, and clips over \
{processor.max_audio_seconds:g} s are cropped."""


def model_section(trained: "TrainedModel") -> str:
    """Fusion, size, backbones and licences."""
    config, model = trained.model.config, trained.model
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    lines = [
        f"Fusion `{config.fusion}`, {model.num_parameters():,} parameters, {trainable:,} of them trained; hidden "
        f"states are pooled by their {config.pooling_mode}"
        + ("." if config.mask_padding else ", padding included, as in the original code."),
        "",
        "| | backbone | type | licence | |",
        "|---|---|---|---|---|",
    ]
    for backbone in trained.backbones:
        kind = getattr(config, f"{backbone.modality}_config").model_type
        name = (
            f"[`{backbone.name}`](https://huggingface.co/{backbone.name})"
            if backbone.is_on_hub
            else (f"`{without_folders(backbone.name)}`")
        )
        lines.append(f"| {backbone.modality} | {name} | {kind} | {backbone.licence} | {backbone.source} |")
    lines += [
        "",
        "The code is Apache-2.0. Whoever passes these weights on has to meet the licences of code, backbones and data.",
    ]
    return "\n".join(lines)


def data_section(trained: "TrainedModel") -> str:
    """The corpus and its terms, the split, rows of each class in each part, and what the parts share."""
    record, facts = trained.splits.record, trained.facts
    name = record["dataset"]["name"]
    title = facts.pretty_name or f"`{without_folders(name)}`"
    lines = [f"{title} (`{without_folders(name)}`). {facts.description} {facts.terms}", ""]
    lines += [f"Split `{record['split']}`: {record['description']}.", ""]
    parts = record["parts"]
    lines += [f"| class | {' | '.join(parts)} |", f"|---|{'---:|' * len(parts)}"]
    for label in trained.splits.label_names:
        cells = [with_share(part["classes"][label], part["rows"]) for part in parts.values()]
        lines.append(f"| {cell(label)} | {' | '.join(cells)} |")
    lines += [f"| rows | {' | '.join(format(part['rows'], ',') for part in parts.values())} |", ""]
    for overlap in record["overlaps"]:
        first, second = overlap["parts"]
        rows = overlap[f"rows_of_{second}"]
        shared = counted(overlap["count"], overlap["kind"])
        lines.append(f"- {first} and {second} share {shared}, in {counted(rows, 'rows')} of {second}.")
    if not record["overlaps"]:
        lines.append("- As far as its columns tell, no session, speaker or transcript is in two of the parts.")
    lines += [f"- {warning[0].upper()}{warning[1:]}." for warning in record["warnings"]]
    return "\n".join(lines)


def results_section(trained: "TrainedModel") -> str:
    """Scores with intervals beside the majority class, then each class, then what is left with a modality missing."""
    if not trained.scores:
        return "This run was not scored."
    scored = trained.scores[0]
    given = {"both": "audio and text", "audio": "audio alone", "text": "text alone"}
    if trained.model.config.fusion in given:
        given["both"] = given[trained.model.config.fusion]
    suffix = scored.prefix.removeprefix("eval")
    lines = [
        f"On {scored.metrics[f'{scored.prefix}_rows']:,} held-out rows, with {given[scored.modality]}. Read macro F1 "
        "first: where one class is frequent, the others can be missed at hardly any cost to the last two.",
        "",
        *scores_table(trained, scored),
        "",
        *classes_table(trained, scored),
        "",
        intervals_text(scored),
        "",
        f"![Confusion matrix: true classes in rows, predicted ones in columns](confusion_matrix{suffix}.png)",
    ]
    if len(trained.scores) > 1:
        lines += ["", "| given | macro F1 | unweighted average recall |", "|---|---:|---:|"]
        for part in trained.scores:
            pair = (part.metrics[f"{part.prefix}_{name}"] for name in ("macro_f1", "unweighted_average_recall"))
            lines.append(f"| {given[part.modality]} | {' | '.join(f'{score:.3f}' for score in pair)} |")
    if "validation_macro_f1" in trained.validation:
        lines += [
            "",
            f"On the {trained.validation['validation_rows']:,} rows that settings may be chosen by, macro F1 is "
            f"{trained.validation['validation_macro_f1']:.3f}.",
        ]
    return "\n".join(lines)


def scores_table(trained: "TrainedModel", scored: ScoredPart) -> list[str]:
    """One line per score, and a sentence on the raters where there are any."""
    metrics, prefix = scored.metrics, scored.prefix
    lines = ["| | this model | 95 % interval | always the most frequent class |", "|---|---:|---:|---:|"]
    for name, kind in SCORES.items():
        score, majority = metrics[f"{prefix}_{name}"], metrics[f"{prefix}_majority_{name}"]
        lines.append(f"| {kind.title} | {score:.3f} | {interval(trained, name)} | {majority:.3f} |")
    if f"{prefix}_kl_to_raters" in metrics:
        prior = metrics.get(f"{prefix}_prior_kl_to_raters")
        lines += ["", f"Divergence from the raters' votes: {metrics[f'{prefix}_kl_to_raters']:.3f} nats"]
        lines[-1] += "." if prior is None else f"; always answering the mean of the training votes has {prior:.3f}."
    return lines


def classes_table(trained: "TrainedModel", scored: ScoredPart) -> list[str]:
    """One line per class."""
    lines = ["| class | F1 | 95 % interval | recall | rows | predicted |", "|---|---:|---:|---:|---:|---:|"]
    for label in trained.splits.label_names:
        names = ("f1", "recall", "count", "predicted_count")
        f1, recall, rows, predicted = (scored.metrics[f"{scored.prefix}_{name}_{label}"] for name in names)
        ends = interval(trained, f"f1_{label}")
        lines.append(f"| {cell(label)} | {f1:.3f} | {ends} | {recall:.3f} | {rows:,} | {predicted:,} |")
    return lines


def interval(trained: "TrainedModel", name: str) -> str:
    """Both ends; nothing where there is a single group."""
    if name not in trained.intervals:
        return ""
    low, high = trained.intervals[name]
    return f"{low:.3f} to {high:.3f}"


def intervals_text(scored: ScoredPart) -> str:
    """How the intervals were computed."""
    groups = find_groups(scored.table)
    resamples = f"Intervals are expanded percentiles (Hesterberg 2015) of {NUM_RESAMPLES:,} bootstrap resamples of the"
    if groups is None:
        return f"{resamples} held-out rows. If several are of one speaker, the true ones are wider."
    name, values = groups
    number = len(set(values))
    text = f"{resamples} {number} held-out {name}s, drawn whole, since utterances of one {name} are alike."
    return text if number >= FEW_GROUPS else f"{text} With so few {name}s the true intervals are wider."


def training_section(trained: "TrainedModel", steps: list[dict]) -> str:
    """How long, on what, and the log with its picture."""
    if trained.state is None:
        return f"Not trained in this run, which scored `{without_folders(str(trained.model_args.model_name_or_path))}`."
    args, state = trained.training_args, trained.state
    summary = next((entry for entry in reversed(state["log_history"]) if "train_runtime" in entry), {})
    lines = [
        f"{counted(state['global_step'], 'optimizer steps')} in {counted(round(state['epoch'], 2), 'epochs')}, "
        f"{counted(rows_per_step(trained), 'rows')} a step"
        + (f", {summary['train_runtime'] / 60:.1f} minutes" if summary else "")
        + f", in {precision(args)}, on {device(args)}. Seed {args.seed}"
        + (f", of the order of rows {args.data_seed}" if args.data_seed is not None else "")
        + ".",
    ]
    if state["best_global_step"]:
        part = {"validation": "the validation part", "test": "the reported rows"}[trained.splits.compare_epochs_on]
        lines[0] += f" The weights are those of step {state['best_global_step']:,}, the best on {part}."
    if steps:
        names = [name for name in COLUMNS if any(name in entry for entry in steps)]
        shown = steps if len(steps) <= ROWS_OF_LOG else steps[:: -(-len(steps) // ROWS_OF_LOG)]
        lines += ["", f"![Loss and scores in the course of training]({CURVE_FILE})", ""]
        lines += [
            f"| step | epoch | {' | '.join(COLUMNS[name] for name in names)} |",
            f"|---:|---:|{'---:|' * len(names)}",
        ]
        for entry in shown:
            cells = [f"{entry[name]:.4g}" if name in entry else "" for name in names]
            lines.append(f"| {entry['step']:,} | {entry['epoch']:.4g} | {' | '.join(cells)} |")
        if len(shown) < len(steps):
            lines += ["", f"{len(shown)} of {len(steps)} entries of the log, evenly spaced."]
    versions = ", ".join(f"{package} {version}" for package, version in package_versions().items())
    return "\n".join([*lines, "", f"Python {platform.python_version()}, {versions}."])


def rows_per_step(trained: "TrainedModel") -> int:
    args = trained.training_args
    return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size


def precision(args) -> str:
    return "float16" if args.fp16 else "bfloat16" if args.bf16 else "float32"


def device(args) -> str:
    """The kind of device, without the name of the machine."""
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type.upper()
    return name if args.world_size == 1 else f"{args.world_size} processes ({name})"


def command_section(trained: "TrainedModel") -> str:
    """The command as it was given, and all that it stood for as a recipe."""
    command = shlex.join(["run_classification.py", *map(without_folders, trained.command or ["recipe.json"])])
    recipe = json.dumps(trained.recipe, ensure_ascii=False, indent=2)
    launch = "accelerate launch"
    if trained.training_args.world_size > 1:
        launch += f" --num_processes {trained.training_args.world_size}"
    return f"""In the RSA-CFN repository:

```bash
{launch} {command}
```

<details><summary>All its arguments, as a recipe to save and give instead: run_classification.py recipe.json</summary>

```json
{recipe}
```

</details>"""


def limits_section(trained: "TrainedModel") -> str:
    """Whom and what the model has heard, and what it is not for."""
    train, facts = trained.splits.tables["train"], trained.facts
    heard = [
        f"{len({value for value in train[name][:] if value is not None}):,} {name}s"
        for name in ("speaker", "session")
        if name in train.column_names
    ]
    speakers = (
        f"trained on {' in '.join(heard)}" if heard else "nobody knows how many speakers are in its training rows"
    )
    classes = trained.splits.record["parts"]["train"]["classes"]
    total = max(sum(classes.values()), 1)
    frequent, rare = max(classes, key=classes.get), min(classes, key=classes.get)
    korean = "ko" in (facts.metadata.get("language") or [])
    language = "Korean only; other languages were never tried." if korean else "That of its training rows only."
    missing = [label for label, count in classes.items() if not count]
    imbalance = (
        f"{classes[frequent] / total:.1%} of the training rows are {frequent}, {classes[rare] / total:.1%} {rare}."
        + (" Rare classes are the ones to expect mistakes in." if classes[frequent] > IMBALANCE * classes[rare] else "")
        + (f" It has never seen {first_names(missing)}." if missing else "")
    )
    return "\n".join(
        [
            f"- **Speakers**: {speakers}. Other ages, accents and voices may be answered worse; it wasn't measured.",
            f"- **Language**: {language} The transcripts of a speech recogniser hold mistakes that these may not.",
            f"- **Register**: that of its corpus, and of its microphones. {facts.description}",
            f"- **Classes**: {imbalance}",
            "- **Labels** are what others heard in a clip, not what its speaker felt.",
            "- **Not for** clinical use, surveillance, hiring, lie detection, or any decision about a person.",
        ]
    )
