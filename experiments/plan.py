"""A plan of experiments: a JSON file → systems, and the cells that train and score each of them."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from textwrap import shorten

from configuration_rsa_cfn import FUSIONS
from corpora.folds import NUM_FOLDS
from experiments.published import published_weighted_f1
from experiments.results import ENSEMBLE, MAJORITY, PAPER, SESSION, SINGLE_MODALITIES, System, Table, TableRow
from foundation.errors import InputError
from foundation.files import find_recipe, read_json
from foundation.words import writable
from training.arguments import TINY, DataArguments, ModelArguments
from training.checkpoints import LAST
from training.parsing import as_command_line, parse_arguments


# The arguments that make a protocol. Both keep the best epoch: the paper's by the score it reports, on the reported
# rows; the fair one on sessions that are neither trained on nor reported.
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
PLAN_FIELDS = ("description", "arguments", "protocols", "tables", "ensembles")
BLOCK_FIELDS = ("fusions", "backbones", "variants")
BACKBONES = ("audio_model", "text_model")
# These follow from the plan's protocols and tables, so that its arguments may not have them.
OF_THE_PLAN = ("fusion", *BACKBONES, "seed", "num_folds", "fold", "output_dir", "resume_from_checkpoint")
OF_THE_PLAN += tuple(dict.fromkeys(name for given in PROTOCOLS.values() for name in given))
# A cell prints to a file, where progress bars would only be in the way.
OF_A_CELL = ["--disable_tqdm", "true", "--resume_from_checkpoint", LAST]
MOST_FOLDS = 1000
# Of a folder's name, which file systems hold to 255; pictures have it in theirs.
MOST_BYTES = 200


@dataclass
class Cell:
    """One run of run_classification.py."""

    name: str  # its folder below that of the experiments
    system: str
    protocol: str
    fold: int | None
    seed: int
    arguments: list[str]  # what run_classification.py is given, without --output_dir
    is_first: bool = False  # of its system


@dataclass
class Plan:
    """What is compared, and how."""

    name: str
    description: str
    given: dict  # the JSON file as it was read
    overrides: list[str]  # arguments of run_classification.py that win over those of the plan
    systems: list[System] = field(default_factory=list)  # in the plan's order; added baselines come last
    tables: list[Table] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)  # one for each protocol, system, fold and seed
    ensembles: dict[str, list[str]] = field(default_factory=dict)  # the systems that are joined, by the name of each


@dataclass(frozen=True)
class _Choice:
    """A fusion, its backbones and a variant, before the systems of a plan are told apart by a name."""

    fusion: str
    audio_model: str | None
    text_model: str | None
    variant: str | None
    of_the_variant: tuple[str, ...]

    def with_fusion(self, fusion: str) -> "_Choice":
        """With its own backbones only: a model of one modality is the same whatever the other backbone is."""
        if fusion not in SINGLE_MODALITIES:
            return replace(self, fusion=fusion)
        own, other = BACKBONES if fusion == "audio" else reversed(BACKBONES)
        # A tiny backbone goes with tiny ones only.
        return replace(self, fusion=fusion, **{other: TINY if getattr(self, own) == TINY else None})

    @property
    def arguments(self) -> list[str]:
        models = {name: getattr(self, name) for name in BACKBONES}
        return [*self.of_the_variant, *as_command_line({"fusion": self.fusion} | models)]


def read_plan(file: str | Path, overrides: list[str] = ()) -> Plan:
    """Read and check a plan, whose fields are in recipes/README.md; the overrides win over its arguments. It is an
    `InputError` too if run_classification.py would refuse one of the cells."""
    file = find_recipe(file)
    try:
        given = read_json(file)
        json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_named_once)
        return _read_plan(file, given, overrides)
    except RecursionError as error:
        raise InputError(f"{file} is nested too deeply; see recipes/README.md") from error


def _named_once(pairs: list[tuple[str, object]]) -> None:
    """Refuse a name that an object has twice, of which JSON would keep the last."""
    (name, times), *_ = [*Counter(name for name, _ in pairs).most_common(1), ("", 0)]
    if times > 1:
        raise InputError(f"the plan has {name!r} {times} times in one object; give different names")


def _read_plan(file: Path, given: dict, overrides: list[str]) -> Plan:
    _check_fields(str(file), given, PLAN_FIELDS, needed=("protocols", "tables"))
    description = given.get("description", "")
    _check(isinstance(description, str), f"{file}: description", description, "a sentence for the report")
    common = _read_arguments(f"{file}: arguments", given.get("arguments", {}))
    for override in overrides:
        if override.removeprefix("--").split("=")[0] in OF_THE_PLAN and override.startswith("--"):
            raise InputError(f"{override.split('=')[0]} is for the plan to say; change it in a copy of {file}")
    for name, legal in (("protocols", f"{' or '.join(PROTOCOLS)}, or both"), ("tables", "lists of blocks by title")):
        is_filled = isinstance(given[name], dict) and len(given[name]) > 0
        _check(is_filled, f"{file}: {name}", given[name], f"a JSON object of {legal}; see recipes/README.md")
    protocols = {name: _read_protocol(file, name, spec) for name, spec in given["protocols"].items()}
    tables = {}
    for title, blocks in given["tables"].items():
        where, legal = f"{file}: table {title!r}", f"a list of blocks, JSON objects of {', '.join(BLOCK_FIELDS)}"
        _check(isinstance(blocks, list) and len(blocks) > 0, where, blocks, legal)
        tables[title] = [choice for block in blocks for choice in _read_block(where, block)]
    listed = list(dict.fromkeys(choice for choices in tables.values() for choice in choices))
    plan = Plan(writable(file.stem), writable(" ".join(description.split())), given, list(overrides))
    row_of, names = {}, _names(listed + _missing_baselines(listed))
    folders = _folders(list(names.values()))
    for choice, name in names.items():
        arguments = [*common, *choice.arguments, *overrides]
        cells, model_args, data_args = _make_cells(name, folders[name], arguments, protocols)
        row_of[choice] = TableRow(name, published_weighted_f1(model_args, data_args.ties == "transform"))
        is_baseline = choice.fusion in SINGLE_MODALITIES
        system = System(name, choice.fusion, variant=choice.variant, is_baseline=is_baseline)
        # Only the backbones that the model has.
        system.audio_model = None if choice.fusion == "text" else writable(model_args.audio_model)
        system.text_model = None if choice.fusion == "audio" else writable(model_args.text_model)
        plan.systems.append(system)
        plan.cells += cells
    plan.cells.sort(key=lambda cell: (list(protocols).index(cell.protocol), cell.seed, cell.fold or 0))
    for first in {cell.system: cell for cell in reversed(plan.cells)}.values():
        first.is_first = True
    plan.systems.append(System(MAJORITY, MAJORITY, is_baseline=True))
    plan.tables = [Table(writable(title), [row_of[choice] for choice in chosen]) for title, chosen in tables.items()]
    plan.ensembles = _read_ensembles(f"{file}: ensembles", given.get("ensembles", {}), plan.systems)
    plan.systems += [System(name, ENSEMBLE, variant=name) for name in plan.ensembles]
    if plan.ensembles:
        plan.tables.append(Table("Ensembles", [TableRow(name) for name in plan.ensembles]))
    return plan


def _read_ensembles(where: str, given: object, systems: list[System]) -> dict[str, list[str]]:
    _check(isinstance(given, dict), where, given, "a JSON object of lists of systems by the name of their ensemble")
    names = [system.name for system in systems if system.fusion != MAJORITY]
    for name, members in given.items():
        is_new = bool(name.strip()) and name not in [system.name for system in systems]
        _check(is_new, f"{where}: a name", name, "one that no system has")
        _check_list(
            f"{where}: {name}", members, names.__contains__, f"different systems of the plan: {', '.join(names)}"
        )
    return {writable(name): members for name, members in given.items()}


def _make_cells(
    name: str, folder: str, arguments: list[str], protocols: dict[str, dict]
) -> tuple[list[Cell], ModelArguments, DataArguments]:
    """A system's cells, model and data. Parsing the first cell of each protocol checks all but fold and seed."""
    cells = []
    for protocol, spec in protocols.items():
        of_protocol = []
        for seed, fold in product(spec["seeds"], spec["folds"] or [None]):
            told = {"seed": seed} if fold is None else {"num_folds": spec["num_folds"], "fold": fold, "seed": seed}
            where = f"seed{seed}" if fold is None else f"fold{fold}-seed{seed}"
            given = [*arguments, *as_command_line(PROTOCOLS[protocol] | told)]
            of_protocol.append(Cell(f"{protocol}/{folder}/{where}", name, protocol, fold, seed, given))
        first = of_protocol[0]
        try:
            given = [*first.arguments, *OF_A_CELL, "--output_dir", f"results/{first.name}"]
            model_args, data_args, _ = parse_arguments(given)
        except InputError as error:
            raise InputError(f"{name}, protocol {protocol}: {error}") from error
        modalities = data_args.eval_modalities
        for cell in of_protocol:
            # The report needs the scores with both modalities, whatever else is scored.
            if "both" not in modalities:
                cell.arguments += ["--eval_modalities", "both", *modalities]
            cell.arguments += OF_A_CELL
        cells += of_protocol
    return cells, model_args, data_args


def _folders(names: list[str]) -> dict[str, str]:
    """A folder for each system, by its name. Where that is too long, or another's before it would be the same to a file
    system that tells neither case nor forms of Unicode apart, it ends in a digest of the name."""
    folders, taken = {}, set()
    for name in names:
        folder = re.sub(r"[^\w.-]+", "-", name).rstrip(".")
        same = unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder).casefold())
        if same in taken or len(folder.encode()) > MOST_BYTES:
            start = folder.encode()[: MOST_BYTES // 2].decode(errors="ignore")
            folder = f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        taken.add(same)
        folders[name] = folder
    return folders


def _read_protocol(file: Path, name: str, spec: dict) -> dict:
    where = f"{file}: protocol {name}"
    if name not in PROTOCOLS:
        raise InputError(f"{where} is unknown; give {' or '.join(PROTOCOLS)}")
    _check_fields(where, spec, ("seeds", "folds", "num_folds") if name == SESSION else ("seeds",), needed=("seeds",))
    num_folds = spec.get("num_folds", NUM_FOLDS)
    legal = f"a whole number, 2 or more, up to {MOST_FOLDS}"
    _check(_is_whole(num_folds) and 1 < num_folds <= MOST_FOLDS, f"{where}: num_folds", num_folds, legal)
    folds = spec.get("folds", list(range(1, num_folds + 1)))
    for field_name, numbers in (("seeds", spec["seeds"]), ("folds", folds)):
        _check_list(f"{where}: {field_name}", numbers, _is_whole, "whole numbers, 0 or more")
    if wrong := [fold for fold in folds if not 1 <= fold <= num_folds]:
        raise InputError(f"{where}: there is no fold {wrong[0]} of {num_folds}; give 1 to {num_folds}")
    return {"seeds": spec["seeds"], "folds": folds if name == SESSION else [], "num_folds": num_folds}


def _read_block(where: str, block: dict) -> list[_Choice]:
    """Every combination of a block's fusions, backbones and variants."""
    _check_fields(where, block, BLOCK_FIELDS, needed=("fusions",))
    fusions, backbones = block["fusions"], block.get("backbones", [{}])
    _check_list(f"{where}: fusions", fusions, lambda name: isinstance(name, str), f"names: {', '.join(FUSIONS)}")
    if unknown := [fusion for fusion in fusions if fusion not in FUSIONS]:
        raise InputError(f"{where}: fusion {unknown[0]!r} is unknown; give one of {', '.join(FUSIONS)}")
    legal = "JSON objects of audio_model and text_model, Hub ids or folders, or leave it out"
    _check_list(f"{where}: backbones", backbones, _is_backbones, legal)
    variants = block.get("variants", {None: {}})
    legal = "a JSON object of variants by name, each an object of arguments, or leave it out"
    _check(isinstance(variants, dict) and len(variants) > 0, f"{where}: variants", variants, legal)
    choices = []
    for fusion, backbone, (variant, given) in product(fusions, backbones, variants.items()):
        arguments = _read_arguments(f"{where}: variant {variant!r}", given)
        named = None if variant is None else writable(variant)
        choice = _Choice(fusion, *(backbone.get(name) for name in BACKBONES), named, tuple(arguments))
        choices.append(choice.with_fusion(fusion))
    return choices


def _missing_baselines(choices: list[_Choice]) -> list[_Choice]:
    """Audio alone and text alone where the plan lacks them, trained like the first system that has their backbone."""
    single = [choice for choice in choices if choice.fusion in SINGLE_MODALITIES]
    there, added = {(choice.fusion, getattr(choice, f"{choice.fusion}_model")) for choice in single}, []
    for choice, modality in product(choices, SINGLE_MODALITIES):
        baseline = (modality, getattr(choice, f"{modality}_model"))
        if choice.fusion not in SINGLE_MODALITIES and baseline not in there:
            added.append(choice.with_fusion(modality))
            there.add(baseline)
    return added


def _names(choices: list[_Choice]) -> dict[_Choice, str]:
    """A name for each: the fusion, and after it what tells it from the others with that fusion."""
    names = {}
    for choice in choices:
        alike = [other for other in choices if other.fusion == choice.fusion]
        parts = [choice.fusion]
        for told in (*BACKBONES, "variant"):
            if len({getattr(other, told) for other in alike}) > 1:
                parts.append(getattr(choice, told) or "default")
        name = writable(" · ".join(parts))
        if name in names.values():
            raise InputError(f"the plan has two different systems called {name!r}; give their variants other names")
        names[choice] = name
    return names


def _read_arguments(where: str, given: dict) -> list[str]:
    """A JSON object of arguments → a command line, with `--cache_features` where both backbones are frozen."""
    _check(isinstance(given, dict), where, given, "a JSON object of argument names and values")
    if reserved := [name for name in given if name in OF_THE_PLAN]:
        raise InputError(f"{where} have {reserved[0]}, which follows from protocols and tables; leave it out")
    is_on = {name for name, value in given.items() if value in (True, "true", "True")}
    if {"freeze_audio_encoder", "freeze_text_encoder"} <= is_on and "use_weighted_layer_sum" not in is_on:
        # Frozen backbones give a row the same features each time, so that all cells can share them.
        given = {"cache_features": True, **given}
    return as_command_line(given)


def _is_whole(number: int) -> bool:
    """Whether it can be a seed; JSON's `true` would pass for 1."""
    return type(number) is int and 0 <= number < 2**32


def _is_backbones(given: dict) -> bool:
    is_object = isinstance(given, dict) and set(given) <= set(BACKBONES)
    return is_object and all(model is None or isinstance(model, str) and model for model in given.values())


def _check(is_legal: bool, where: str, given: object, legal: str) -> None:
    if not is_legal:
        shown = shorten(json.dumps(given, ensure_ascii=False), 300, placeholder=" …")
        raise InputError(f"{where} is {shown}; give {legal}")


def _check_list(where: str, given: list, is_legal: Callable, items: str) -> None:
    is_right = isinstance(given, list) and len(given) > 0 and all(map(is_legal, given))
    is_right = is_right and len({json.dumps(item, sort_keys=True) for item in given}) == len(given)
    _check(is_right, where, given, f"a list of different {items}")


def _check_fields(where: str, given: dict, legal: tuple[str, ...], needed: tuple[str, ...] = ()) -> None:
    _check(isinstance(given, dict), where, given, f"a JSON object of {', '.join(legal)}")
    if unknown := [name for name in given if name not in legal]:
        raise InputError(f"{where} has an unknown field {unknown[0]!r}; give {', '.join(legal)}")
    if lacking := [name for name in needed if name not in given]:
        raise InputError(f"{where} lacks {lacking[0]!r}; give {', '.join(legal)}")
