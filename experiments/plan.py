"""A plan of experiments: a JSON file → systems, and the cells that train and score each of them."""

import json
import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from configuration_rsa_cfn import FUSIONS
from corpora.folds import NUM_FOLDS
from experiments.published import published_weighted_f1
from experiments.results import MAJORITY, PAPER, SESSION, System, Table, TableRow
from foundation.errors import InputError
from training.arguments import TINY, DataArguments, ModelArguments
from training.checkpoints import LAST
from training.parsing import as_command_line, parse_arguments, read_json


# What a protocol says to run_classification.py. Both keep the best epoch: the paper's of the reported rows, by the
# score it reports; the fair one of sessions that neither train nor are reported.
_BEST_EPOCH = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
}
PROTOCOLS = {
    SESSION: {"split": "session", **_BEST_EPOCH, "metric_for_best_model": "macro_f1"},
    PAPER: {"split": "paper", "compare_epochs_on": "test", **_BEST_EPOCH, "metric_for_best_model": "weighted_f1"},
}
UNIMODAL = ("audio", "text")
PLAN_FIELDS = ("description", "arguments", "protocols", "tables")
BLOCK_FIELDS = ("fusions", "backbones", "variants")
# What tells cells from each other, and where they are written: no other arguments may say it.
OF_THE_PLAN = ("fusion", "audio_model", "text_model", "seed", "num_folds", "fold", "output_dir")
OF_THE_PLAN += ("resume_from_checkpoint", *dict.fromkeys(name for given in PROTOCOLS.values() for name in given))
# Whatever a cell prints goes to a file.
OF_A_CELL = ["--disable_tqdm", "true", "--resume_from_checkpoint", LAST]


@dataclass
class Cell:
    """
    One run of run_classification.py.

    Args:
        name (`str`): Its folder below that of the experiments.
        system, protocol (`str`), fold (`int`, *optional*), seed (`int`): What it is.
        arguments (`list[str]`): What run_classification.py is given, but where it writes.
    """

    name: str
    system: str
    protocol: str
    fold: int | None
    seed: int
    arguments: list[str]


@dataclass
class Plan:
    """
    What is compared, and how.

    Args:
        name, description (`str`): For the reader.
        given (`dict`): The JSON file as it was read.
        overrides (`list[str]`): Arguments of run_classification.py that win over those of the plan.
        systems (`list[System]`): In their order, the baselines that it doesn't name at the end.
        tables (`list[Table]`): Which systems stand together.
        cells (`list[Cell]`): One for each protocol, system, fold and seed.
    """

    name: str
    description: str
    given: dict
    overrides: list[str]
    systems: list[System] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)


@dataclass(frozen=True)
class _Choice:
    """A fusion, its backbones and a variant, before the systems of a plan are told apart by a name."""

    fusion: str
    audio_model: str | None
    text_model: str | None
    variant: str | None
    arguments: tuple[str, ...]


def read_plan(file: str | Path, overrides: list[str] = ()) -> Plan:
    """
    Read and check a plan: each of its cells is one that run_classification.py takes.

    Args:
        file (`str` or `Path`): A JSON object of `description`; `arguments` of run_classification.py, common to all;
            `protocols`, by name with `seeds` and, for `session`, `folds` and `num_folds`; and `tables`, by title a list
            of blocks. A block is every combination of its `fusions`, `backbones` (objects of `audio_model` and
            `text_model`) and `variants` (by name an object of further arguments).
        overrides (`list[str]`): Arguments of run_classification.py that win over those of the plan.

    Raises:
        InputError: The plan, or what run_classification.py would say to one of its cells.
    """
    file = Path(file)
    given = read_json(file)
    _check_fields(str(file), given, PLAN_FIELDS, needed=("protocols", "tables"))
    common = _arguments(f"{file}: arguments", given.get("arguments", {}))
    for override in overrides:
        if override.removeprefix("--").split("=")[0] in OF_THE_PLAN and override.startswith("--"):
            raise InputError(f"{override.split('=')[0]} is for the plan to say; change it in a copy of {file}")
    protocols = {name: _read_protocol(file, name, spec) for name, spec in _object(file, given, "protocols").items()}
    tables = {
        title: [choice for block in blocks for choice in _read_block(f"{file}: table {title!r}", block)]
        for title, blocks in _object(file, given, "tables").items()
    }
    listed = list(dict.fromkeys(choice for choices in tables.values() for choice in choices))
    if not listed:
        raise InputError(f"{file} names no fusion; give one of {', '.join(FUSIONS)}")
    choices = listed + _missing_baselines(listed)
    names = _names(choices)
    plan = Plan(file.stem, given.get("description", ""), given, list(overrides))
    row_of = {}
    for choice, name in names.items():
        arguments = [*as_command_line(common), *choice.arguments, *overrides]
        cells, model_args, data_args = _make_cells(name, arguments, protocols)
        row_of[choice] = TableRow(name, published_weighted_f1(model_args, data_args.ties == "transform"))
        system = System(name, choice.fusion, variant=choice.variant, is_baseline=choice.fusion in UNIMODAL)
        # Those of the model's own modalities.
        system.audio_model = None if choice.fusion == "text" else model_args.audio_model
        system.text_model = None if choice.fusion == "audio" else model_args.text_model
        plan.systems.append(system)
        plan.cells += cells
    plan.cells.sort(key=lambda cell: (list(protocols).index(cell.protocol), cell.seed, cell.fold or 0))
    plan.systems.append(System(MAJORITY, MAJORITY, is_baseline=True))
    plan.tables = [Table(title, [row_of[choice] for choice in chosen]) for title, chosen in tables.items()]
    return plan


def _make_cells(
    name: str, arguments: list[str], protocols: dict[str, dict]
) -> tuple[list[Cell], ModelArguments, DataArguments]:
    """
    The cells of a system, and its model and data. The first cell of each protocol is parsed: all but fold and seed is
    checked by that.
    """
    cells = []
    for protocol, spec in protocols.items():
        folds = spec["folds"] or [None]
        for seed, fold in product(spec["seeds"], folds):
            told = {"seed": seed} if fold is None else {"num_folds": spec["num_folds"], "fold": fold, "seed": seed}
            cell_arguments = [*arguments, *as_command_line(PROTOCOLS[protocol] | told), *OF_A_CELL]
            where = f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}"
            slug = re.sub(r"[^\w.-]+", "-", name)
            cells.append(Cell(f"{protocol}/{slug}/{where}", name, protocol, fold, seed, cell_arguments))
    for protocol in protocols:
        cell = next(cell for cell in cells if cell.protocol == protocol)
        try:
            model_args, data_args, _ = parse_arguments([*cell.arguments, "--output_dir", f"results/{cell.name}"])
        except InputError as error:
            raise InputError(f"{name}, protocol {protocol}: {error}") from error
    return cells, model_args, data_args


def _read_protocol(file: Path, name: str, spec: dict) -> dict:
    where = f"{file}: protocol {name}"
    if name not in PROTOCOLS:
        raise InputError(f"{where} is unknown; give {' or '.join(PROTOCOLS)}")
    _check_fields(where, spec, ("seeds", "folds", "num_folds") if name == SESSION else ("seeds",), needed=("seeds",))
    num_folds = spec.get("num_folds", NUM_FOLDS)
    folds = spec.get("folds", list(range(1, num_folds + 1))) if name == SESSION else []
    for field_name, numbers in (("seeds", spec["seeds"]), ("folds", folds)):
        are_numbers = isinstance(numbers, list) and all(type(number) is int for number in numbers)
        if not are_numbers or len(set(numbers)) < len(numbers) or (not numbers and field_name == "seeds"):
            raise InputError(f"{where}: {field_name} is {json.dumps(numbers)}; give a list of different whole numbers")
    if name == SESSION and not folds:
        raise InputError(f"{where}: folds is empty; give numbers from 1 to {num_folds}")
    wrong = [fold for fold in folds if not 1 <= fold <= num_folds]
    if wrong:
        raise InputError(f"{where}: there is no fold {wrong[0]} of {num_folds}; give 1 to {num_folds}")
    return {"seeds": spec["seeds"], "folds": folds, "num_folds": num_folds}


def _read_block(where: str, block: dict) -> list[_Choice]:
    """Every combination of a block's fusions, backbones and variants."""
    _check_fields(where, block, BLOCK_FIELDS, needed=("fusions",))
    unknown = [fusion for fusion in block["fusions"] if fusion not in FUSIONS]
    if unknown:
        raise InputError(f"{where}: fusion {unknown[0]!r} is unknown; give one of {', '.join(FUSIONS)}")
    for backbone in block.get("backbones", []):
        _check_fields(f"{where}: backbones", backbone, ("audio_model", "text_model"))
    variants = {
        name: _arguments(f"{where}: variant {name!r}", given) for name, given in block.get("variants", {}).items()
    }
    choices = []
    for fusion, backbone, (variant, arguments) in product(
        block["fusions"], block.get("backbones") or [{}], (variants or {None: {}}).items()
    ):
        models = _models(fusion, backbone.get("audio_model"), backbone.get("text_model"))
        command = as_command_line(arguments | {"fusion": fusion} | models)
        choices.append(_Choice(fusion, **models, variant=variant, arguments=tuple(command)))
    return choices


def _models(fusion: str, audio_model: str | None, text_model: str | None) -> dict[str, str | None]:
    """The backbones that are given. A model of one modality is the same whatever the other backbone is."""
    models = {"audio_model": audio_model, "text_model": text_model}
    own = models.get(f"{fusion}_model")
    # A tiny backbone goes with tiny ones only.
    other = TINY if own == TINY else None
    return {
        name: model if fusion not in UNIMODAL or name == f"{fusion}_model" else other for name, model in models.items()
    }


def _missing_baselines(choices: list[_Choice]) -> list[_Choice]:
    """Audio alone and text alone, for each backbone that no such model of the plan has."""
    added: list[_Choice] = []
    for choice, modality in product(choices, UNIMODAL):
        model = getattr(choice, f"{modality}_model")
        is_there = any(
            other.fusion == modality and getattr(other, f"{modality}_model") == model for other in [*choices, *added]
        )
        if choice.fusion in UNIMODAL or is_there:
            continue
        models = _models(modality, choice.audio_model, choice.text_model)
        given = list(choice.arguments)
        # Trained as the first that it is a baseline of.
        for name, value in {"fusion": modality, **models}.items():
            if f"--{name}" in given:
                place = given.index(f"--{name}")
                given[place : place + 2] = [] if value is None else [f"--{name}", value]
        added.append(_Choice(modality, **models, variant=choice.variant, arguments=tuple(given)))
    return added


def _names(choices: list[_Choice]) -> dict[_Choice, str]:
    """A name for each: the fusion, and after it what tells it from the others with that fusion."""
    names = {}
    for choice in choices:
        alike = [other for other in choices if other.fusion == choice.fusion]
        parts = [choice.fusion]
        for told in ("audio_model", "text_model", "variant"):
            if len({getattr(other, told) for other in alike}) > 1:
                parts.append(getattr(choice, told) or "default")
        names[choice] = " · ".join(parts)
    twice = [name for name in names.values() if list(names.values()).count(name) > 1]
    if twice:
        raise InputError(f"the plan has two different systems called {twice[0]!r}; give their variants names")
    return names


def _arguments(where: str, given: dict) -> dict:
    """Arguments of run_classification.py, those for frozen backbones as `cache_features`."""
    if not isinstance(given, dict):
        raise InputError(f"{where} are no JSON object; give one of argument names and values")
    reserved = [name for name in given if name in OF_THE_PLAN]
    if reserved:
        raise InputError(f"{where} have {reserved[0]}, which follows from protocols and tables; leave it out")
    are_frozen = given.get("freeze_audio_encoder") and given.get("freeze_text_encoder")
    if are_frozen and not given.get("use_weighted_layer_sum"):
        # Frozen backbones make the same of a row each time: computed once, for all cells.
        given = {"cache_features": True, **given}
    return given


def _object(file: Path, given: dict, name: str) -> dict:
    if not isinstance(given[name], dict) or not given[name]:
        raise InputError(f"{file}: {name} is no JSON object with something in it; see recipes/README.md")
    return given[name]


def _check_fields(where: str, given: dict, legal: tuple[str, ...], needed: tuple[str, ...] = ()) -> None:
    if not isinstance(given, dict):
        raise InputError(f"{where} is no JSON object; give one of {', '.join(legal)}")
    unknown = [name for name in given if name not in legal]
    if unknown:
        raise InputError(f"{where} has an unknown field {unknown[0]!r}; give {', '.join(legal)}")
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise InputError(f"{where} lacks {lacking[0]!r}; give {', '.join(legal)}")
