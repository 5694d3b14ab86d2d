"""A plan: which cells it stands for, what each is told, and one line for what is wrong with it."""

import json
import os
import random
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest

from configuration_rsa_cfn import FUSIONS
from experiments.plan import read_plan
from experiments.published import WEIGHTED_F1
from foundation.errors import InputError
from tests.slow import mostly_slow
from training.parsing import parse_arguments


PLANS = Path(__file__).parents[2] / "recipes" / "experiments"
TINY = {"audio_model": "tiny", "text_model": "tiny"}


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan_file(**fields):
    """The file of a small plan, with fields replaced."""
    plan = {
        "protocols": {"session": {"folds": [1, 3], "seeds": [7, 8]}, "paper": {"seeds": [7]}},
        "tables": {"Fusions": [{"fusions": ["early_fusion"], "backbones": [TINY]}]},
    }
    file = Path("small.json")
    file.write_text(json.dumps({name: value for name, value in (plan | fields).items() if value is not None}))
    return file


@cache
def plan_here(name):
    """A plan of recipes/experiments."""
    return read_plan(PLANS / f"{name}.json")


def parse(cell):
    model_args, data_args, training_args = parse_arguments([*cell.arguments, "--output_dir", "out"])
    return vars(model_args) | vars(data_args) | training_args.to_dict()


def test_cells_are_systems_by_protocols_folds_and_seeds():
    plan = read_plan(plan_file())
    # The baselines come by themselves.
    assert [(system.name, system.is_baseline) for system in plan.systems] == [
        ("early_fusion", False),
        ("audio", True),
        ("text", True),
        ("majority", True),
    ]
    cells = {(cell.system, cell.protocol, cell.fold, cell.seed) for cell in plan.cells}
    assert len(plan.cells) == len(cells) == len({cell.name for cell in plan.cells}) == 3 * 5
    assert {cell[1:] for cell in cells} == {
        ("session", 1, 7),
        ("session", 1, 8),
        ("session", 3, 7),
        ("session", 3, 8),
        ("paper", None, 7),
    }
    for cell in plan.cells:
        given = parse(cell)
        assert (given["fusion"], given["fold"], given["seed"]) == (cell.system, cell.fold, cell.seed)
        assert (given["split"], given["load_best_model_at_end"]) == (cell.protocol, True)
        # The paper's protocol picks by the score it reports, on the rows it reports; the other one on neither.
        chosen = {"paper": ("test", "weighted_f1"), "session": ("validation", "macro_f1")}[cell.protocol]
        assert (given["compare_epochs_on"], given["metric_for_best_model"]) == chosen


def test_arguments_of_the_plan_of_a_variant_and_of_the_command_line():
    variants = {"slow": {"learning_rate": 0.1}, "fast": {"learning_rate": 0.2, "label_smoothing": 0.1}}
    block = {"fusions": ["rsa", "text"], "backbones": [TINY], "variants": variants}
    file = plan_file(arguments={"num_train_epochs": 2, "weight_decay": 0.5}, tables={"Rates": [block]})
    plan = read_plan(file, ["--num_train_epochs", "3"])
    given = {cell.system: parse(cell) for cell in plan.cells}
    assert {name: (run["learning_rate"], run["label_smoothing"]) for name, run in given.items()} == {
        "rsa · slow": (0.1, 0.0),
        "rsa · fast": (0.2, 0.1),
        "text · slow": (0.1, 0.0),
        "text · fast": (0.2, 0.1),
        # Trained as the first that it is a baseline of.
        "audio": (0.1, 0.0),
    }
    assert all((run["num_train_epochs"], run["weight_decay"]) == (3, 0.5) for run in given.values())
    assert [row.system for row in plan.tables[0].rows] == ["rsa · slow", "rsa · fast", "text · slow", "text · fast"]


def test_a_model_of_one_modality_is_trained_once_for_all_backbones_of_the_other():
    backbones = [{"audio_model": "A", "text_model": text} for text in ("B", "C")]
    plan = read_plan(plan_file(tables={"T": [{"fusions": ["late_fusion"], "backbones": backbones}]}))
    systems = {(system.name, system.audio_model, system.text_model) for system in plan.systems}
    assert systems == {
        ("late_fusion · B", "A", "B"),
        ("late_fusion · C", "A", "C"),
        ("audio", "A", None),
        ("text · B", None, "B"),
        ("text · C", None, "C"),
        ("majority", None, None),
    }


def test_a_system_of_two_tables_is_one_system():
    block = {"fusions": ["rsa", "audio", "text"], "backbones": [TINY]}
    plan = read_plan(plan_file(tables={"One": [block], "Other": [block, {**block, "fusions": ["stack"]}]}))
    assert [system.name for system in plan.systems] == ["rsa", "audio", "text", "stack", "majority"]
    assert len(plan.cells) == 4 * 5


def test_ensembles_are_systems_without_runs_of_their_own():
    block = {"fusions": ["rsa", "stack"], "backbones": [TINY]}
    given = {"both": ["rsa", "stack"], "seeds": ["rsa"]}
    plan = read_plan(plan_file(tables={"One": [block]}, ensembles=given))
    assert plan.ensembles == given and [table.title for table in plan.tables] == ["One", "Ensembles"]
    assert [(system.fusion, system.variant) for system in plan.systems[-2:]] == [
        ("ensemble", "both"),
        ("ensemble", "seeds"),
    ]
    assert {cell.system for cell in plan.cells} == {"rsa", "stack", "audio", "text"}
    for wrong, told in (
        ({"both": ["rsa", "late_fusion"]}, "give .*different systems of the plan: rsa, stack, audio, text"),
        ({"both": ["rsa", "rsa"]}, "different systems"),
        ({"rsa": ["stack"]}, "one that no system has"),
        (["rsa"], "a JSON object of lists of systems"),
    ):
        with pytest.raises(InputError, match=told):
            read_plan(plan_file(tables={"One": [block]}, ensembles=wrong))


def test_frozen_backbones_are_run_once():
    frozen = {"freeze_audio_encoder": True, "freeze_text_encoder": True}
    for arguments, are_cached in (
        (frozen, True),
        (frozen | {"freeze_text_encoder": "false"}, False),
        (frozen | {"use_weighted_layer_sum": True}, False),
    ):
        plan = read_plan(plan_file(arguments=arguments, protocols={"paper": {"seeds": [7]}}))
        assert {parse(cell)["cache_features"] for cell in plan.cells} == {are_cached}


@pytest.mark.parametrize("name", [file.stem for file in PLANS.glob("*.json")])
def test_the_plans_that_are_here(name):
    plan = plan_here(name)
    assert plan.description and plan.cells
    assert {"audio", "text", "majority"} <= {system.fusion for system in plan.systems if system.is_baseline}
    if name not in ("paper_backbones", "kemdy20_2026"):
        assert set(FUSIONS) - {"cross_attention"} <= {system.fusion for system in plan.systems}


def test_the_paper_s_tables_have_every_published_number_once():
    fusions, backbones = plan_here("paper").tables
    assert [row.published for row in fusions.rows] == [
        value for (_, text_model, _), value in WEIGHTED_F1.items() if text_model != "xlm-roberta-base"
    ]
    assert [row.published for row in backbones.rows] == [0.89043, 0.89254]
    # Systems have longer names where there are more that are alike.
    assert fusions.rows[0].system == "audio"
    assert fusions.rows[-2].system == "rsa_cfn · klue/roberta-base · label transform"
    for name, table in (("paper_fusions", fusions), ("paper_backbones", backbones)):
        (single,) = plan_here(name).tables
        assert [row.published for row in single.rows] == [row.published for row in table.rows]


def test_published_numbers_are_those_of_the_recipes():
    recipes = PLANS.parent
    listed = {
        line.split("`")[1]: float(line.split("|")[2])
        for line in (recipes / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `") and line.split("|")[2].strip().startswith(".8")
    }
    assert len(listed) == len(WEIGHTED_F1)
    for file, value in listed.items():
        recipe = json.loads((recipes / file).read_text())
        text_model = None if recipe["fusion"] == "audio" else recipe["text_model"]
        assert WEIGHTED_F1[recipe["fusion"], text_model, recipe["label_transform"]] == value


def test_the_plans_train_as_the_recipes_do():
    """A cell of the paper's protocol is the recipe of its number, but for the choice of the epoch and where it is."""
    chosen = {"compare_epochs_on", "eval_strategy", "save_strategy", "save_total_limit", "load_best_model_at_end"}
    of_the_cell = {"metric_for_best_model", "output_dir", "resume_from_checkpoint", "disable_tqdm", "greater_is_better"}
    plan = plan_here("paper")
    for name in ("audio", "rsa_cfn", "rsa_cfn_no_label_transform", "rsa_cfn_xlm_roberta", "mlp_mixer"):
        model_args, data_args, training_args = parse_arguments([str(PLANS.parent / f"{name}.json")])
        recipe = vars(model_args) | vars(data_args) | training_args.to_dict()
        cells = [parse(cell) for cell in plan.cells if cell.protocol == "paper"]
        same = ("fusion", "text_model", "ties") if name != "audio" else ("fusion", "ties")
        (cell,) = [cell for cell in cells if all(cell[field] == recipe[field] for field in same)]
        assert {field for field in recipe if recipe[field] != cell[field]} <= chosen | of_the_cell


def of_seeds(**spec):
    return {"protocols": {"session": {"seeds": [1], **spec}}}


def of_block(**block):
    return {"tables": {"T": [{"fusions": ["rsa"], **block}]}}


WRONG = [
    # Fields that there are none of, or too few.
    ({"tabels": {}}, "unknown field 'tabels'; give description, arguments, protocols, tables"),
    ({"tables": None}, "lacks 'tables'"),
    ({"protocols": {"random": {"seeds": [1]}}}, "protocol random is unknown; give session or paper"),
    ({"protocols": {"paper": {"seeds": [1], "folds": [1]}}}, "unknown field 'folds'; give seeds"),
    ({"tables": {"T": [{"fusion": ["rsa"]}]}}, "unknown field 'fusion'; give fusions, backbones, variants"),
    (of_block(fusions=["sum"]), "table 'T': fusion 'sum' is unknown; give one of audio, text"),
    # Objects, lists and texts that are something else, or empty.
    ({"description": ["Two", "lines"]}, r'description is \["Two", "lines"\]; give a sentence for the report'),
    ({"arguments": ["fp16"]}, r'arguments is \["fp16"\]; give a JSON object of argument names and values'),
    ({"protocols": ["session"]}, r'protocols is \["session"\]; give a JSON object of session or paper, or both'),
    ({"protocols": {"paper": [1, 2]}}, r"protocol paper is \[1, 2\]; give a JSON object of seeds"),
    ({"tables": {}}, "tables is {}; give a JSON object of lists of blocks by title"),
    ({"tables": {"T": {}}}, "table 'T' is {}; give a list of blocks, JSON objects of fusions, backbones, variants"),
    ({"tables": {"T": []}}, r"table 'T' is \[\]; give a list of blocks"),
    ({"tables": {"T": ["rsa"]}}, "table 'T' is \"rsa\"; give a JSON object of fusions, backbones, variants"),
    (of_block(fusions=3), "fusions is 3; give a list of different names: audio, text, early_fusion"),
    (of_block(fusions="rsa"), 'fusions is "rsa"; give a list of different names'),
    (of_block(fusions=[]), r"fusions is \[\]; give a list of different names"),
    (of_block(fusions=["rsa", 3]), r'fusions is \["rsa", 3\]; give a list of different names'),
    (of_block(fusions=["rsa", "rsa"]), r'fusions is \["rsa", "rsa"\]; give a list of different names'),
    (
        of_block(backbones=TINY),
        "backbones is {.*}; give a list of different JSON objects of audio_model and",
    ),
    (of_block(backbones=["tiny"]), r'backbones is \["tiny"\]; give a list of different JSON objects of audio_model'),
    (of_block(backbones=[{"audio": "tiny"}]), 'backbones is .*"audio".*; give a list of different JSON objects of'),
    (of_block(backbones=[{"text_model": 5}]), r"backbones is \[{\"text_model\": 5}\]; give a list"),
    (of_block(backbones=[TINY, TINY]), "backbones is .*; give a list of different JSON objects"),
    (of_block(backbones=[]), r"backbones is \[\]; give a list of .*, or leave it out"),
    (of_block(variants=[{"fp16": True}]), r'variants is \[{"fp16": true}\]; give a JSON object of variants by name'),
    (of_block(variants={}), "variants is {}; give a JSON object of variants by name, .*, or leave it out"),
    (of_block(variants={"v": None}), "variant 'v' is null; give a JSON object of argument names and values"),
    (
        {"tables": {name: [{"fusions": ["rsa"], "variants": {"v": {"seed_all": name}}}] for name in "AB"}},
        "two different systems called 'rsa'; give their variants other",
    ),
    # Numbers.
    (of_seeds(seeds=7), "seeds is 7; give a list of different whole numbers"),
    (of_seeds(seeds=[]), r"seeds is \[\]; give a list of different whole numbers"),
    (of_seeds(seeds=[1, 1]), r"seeds is \[1, 1\]; give a list of different whole numbers"),
    (of_seeds(seeds=["1"]), r'seeds is \["1"\]; give a list of different whole numbers, 0 or more'),
    (of_seeds(seeds=[True]), r"seeds is \[true\]; give a list of different whole numbers"),
    (of_seeds(seeds=[1.5]), r"seeds is \[1.5\]; give a list of different whole numbers"),
    (of_seeds(seeds=[-1]), r"seeds is \[-1\]; give a list of different whole numbers, 0 or more"),
    (of_seeds(folds=None), "folds is null; give a list of different whole numbers"),
    (of_seeds(folds=[6]), "there is no fold 6 of 5; give 1 to 5"),
    (of_seeds(num_folds="5"), 'num_folds is "5"; give a whole number, 2 or more'),
    (of_seeds(num_folds=True), "num_folds is true; give a whole number, 2 or more"),
    (of_seeds(num_folds=1), "num_folds is 1; give a whole number, 2 or more"),
    # What run_classification.py would say.
    ({"arguments": {"seed": 3}}, "have seed, which follows from protocols and tables; leave it out"),
    ({"arguments": {"learning_rat": 3}}, "early_fusion, protocol session: unknown arguments: --learning_rat 3"),
    ({"arguments": {"num_train_epochs": True}}, "early_fusion, protocol session: .*num_train_epochs.*true"),
]


@pytest.mark.parametrize("fields, message", WRONG)
def test_what_is_wrong_is_said_in_one_line(fields, message):
    with pytest.raises(InputError, match=message) as raised:
        read_plan(plan_file(**fields))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (("--sed", "7"), "unknown arguments: --sed 7"),
        (("--seed", "7"), "--seed is for the plan to say; change it in a copy of small.json"),
        (("--max_audio_seconds", "0"), "--max_audio_seconds 0.0 is out of range"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_said_in_one_line(overrides, message):
    with pytest.raises(InputError, match=message):
        read_plan(plan_file(), list(overrides))


@pytest.mark.parametrize("given", ["plan", "command line"])
def test_both_modalities_are_always_scored(given):
    """The report is of these scores."""
    protocols = {"session": {"seeds": [1], "folds": [1, 2]}}
    overrides = ["--eval_modalities", "audio", "text"] if given == "command line" else []
    arguments = {} if overrides else {"eval_modalities": ["audio", "text"]}
    for cell in read_plan(plan_file(arguments=arguments, protocols=protocols), overrides).cells:
        assert parse(cell)["eval_modalities"] == ["both", "audio", "text"]


def test_a_file_that_is_no_plan():
    with pytest.raises(InputError, match="nowhere.json can't be read as JSON"):
        read_plan("nowhere.json")


def test_systems_of_different_names_have_different_folders():
    """Also where a file system doesn't tell case or forms of Unicode apart."""
    names = ["weight decay >0", "weight decay =0", "A", "a", "가", unicodedata.normalize("NFD", "가"), "..", "한" * 300]
    variants = {name: {"learning_rate": 0.1 + place} for place, name in enumerate([*names, "plain", "x\n\x1b[31m$|"])}
    block = {"fusions": ["text"], "backbones": [TINY], "variants": variants}
    plan = read_plan(plan_file(protocols={"paper": {"seeds": [7]}}, tables={"Rates": [block]}))
    folders = [cell.name.split("/")[1] for cell in plan.cells]
    seen_alike = {unicodedata.normalize("NFD", name).casefold().rstrip(".") for name in folders}
    assert len(plan.cells) == len(variants) == len(seen_alike)
    assert all(len(name.encode()) <= 200 for name in folders)
    # A plan that has been run finds its folders again.
    assert folders[:3] == ["text-weight-decay-0", folders[1], "text-A"] and "text-plain" in folders
    assert re.fullmatch("text-weight-decay-0-[0-9a-f]{8}", folders[1])
    assert plan.systems[-2].name == r"text · x\n\x1b[31m$|"


EXTREMES = (None, True, -1, 0, 1.5, 2**31, 10**30, float("nan"), float("inf"), "", "rsa", "a\0b", "\ud800", "-" * 9999)
EXTREMES += ([], {}, [[]], [None], {"": {}}, ["text", "text"], {"session": {"seeds": [1]}})


def mutate(chance, given):
    """A copy with one to three of its values, names or items replaced, lost, doubled or wrapped."""
    given = json.loads(json.dumps(given))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = [(None, None)]
        for inside, place in places:
            value = given if inside is None else inside[place]
            if isinstance(value, (dict, list)):
                places += [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
        inside, place = chance.choice(places[1:] or [({"": given}, "")])
        kind = chance.choice(("replace", "replace", "lose", "wrap", "deepen", "name", "take"))
        if kind == "lose":
            del inside[place]
        elif kind in ("wrap", "deepen"):
            for _ in range(1 if kind == "wrap" else 150):
                inside[place] = chance.choice(([inside[place]], {"x": inside[place]}))
        elif kind == "name" and isinstance(inside, dict):
            inside[chance.choice(("", "seeds", "fp16", "x" * 300, "weight_decay", "\u2028"))] = inside.pop(place)
        else:
            other, key = chance.choice(places[1:] or [({"": given}, "")])
            inside[place] = chance.choice(EXTREMES) if kind == "replace" else json.loads(json.dumps(other[key]))
    return given


@pytest.mark.parametrize("number", mostly_slow([10, int(os.environ.get("RSA_CFN_MUTATIONS", 300))], 10))
def test_a_damaged_plan_is_read_or_refused_in_one_line(number):
    chance, refused = random.Random(number), 0
    arguments = {"num_train_epochs": 2, "weight_decay": 0.1, "eval_modalities": ["text"], "dataset_name": "data"}
    block = {"fusions": ["text", "rsa"], "backbones": [TINY], "variants": {"on": {"fp16": True}, "off": {}}}
    protocols = {"session": {"folds": [1], "num_folds": 2, "seeds": [1]}, "paper": {"seeds": [7]}}
    whole = {"description": "A plan.", "arguments": arguments, "protocols": protocols, "tables": {"T": [block]}}
    file = Path("small.json")
    for _ in range(number):
        text = json.dumps(mutate(chance, whole), ensure_ascii=chance.random() < 0.5)
        content = text.encode(errors="surrogatepass")
        if chance.random() < 0.1:
            content = content[: chance.randrange(len(content))] + chance.randbytes(chance.randrange(3))
        file.write_bytes(content)
        try:
            plan = read_plan(file)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 11_000, content
        except Exception as error:
            raise AssertionError(content) from error
        else:
            assert len({cell.name for cell in plan.cells}) == len(plan.cells) > 0, content
    assert number / 2 < refused < number


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "can't be read as JSON"),
        (b"\xff\xfe", "can't be read as JSON"),
        (b"[" * 10**5, "can't be read as JSON"),
        (
            b'{"protocols": ' + b"[" * 950 + b"]" * 950 + b', "tables": 1}',
            "nested too deeply|recursion depth|protocols is",
        ),
        (b'{"tables": {"T": [1], "T": [2]}}', "the plan has 'T' 2 times in one object"),
        (b'{"protocols": {"session": {"seeds": [1], "num_folds": 9999999}}, "tables": {"T": []}}', "up to 1000"),
    ],
)
def test_a_file_that_holds_no_plan(content, message):
    os.mkfifo("plan.json") if content is None else Path("plan.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_plan("plan.json")


def test_the_page_lists_each_plan_with_the_number_of_its_runs():
    page = (PLANS.parent / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)\.json` \| (\d+) \|", page, re.M))
    assert listed == {file.stem: str(len(plan_here(file.stem).cells)) for file in PLANS.glob("*.json")}
