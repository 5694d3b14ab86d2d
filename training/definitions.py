"""What arguments are made of, from the source of modules whose import takes seconds: no --help needs more."""

import ast
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from transformers.utils import ExplicitEnum, logging
from transformers.utils.import_utils import is_torch_greater_or_equal


HERE, THERE = Path(__file__).parent, Path(find_spec("transformers").origin).parent
OF_THE_MODEL = "Fusion FUSIONS PoolingMode POOLING_MODES"
OF_THE_TRAINING = "log_levels trainer_log_levels DebugOption OptimizerNames IntervalStrategy SaveStrategy HubStrategy"
OF_THE_TRAINING += " SchedulerType TrainingArguments _ours RsaCfnTrainingArguments"


def define(names: str, files: list[Path], **scope) -> dict:
    """What the top level of files defines by these names; of dataclasses only the fields."""
    for node in [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]:
        name = getattr(node, "name", None) or getattr(getattr(node, "targets", [None])[0], "id", None)
        if name in names.split():
            if getattr(node, "decorator_list", None):
                node.body = [member for member in node.body if isinstance(member, ast.AnnAssign)]
            exec(compile(ast.Module([node], []), name, "exec"), scope)
    return scope


def training_fields() -> type:
    """The fields of [`RsaCfnTrainingArguments`], as a dataclass."""
    files = [THERE / "debug_utils.py", THERE / "trainer_utils.py", THERE / "training_args.py"]
    scope = dict(Any=Any, ExplicitEnum=ExplicitEnum, Literal=Literal, dataclass=dataclass, field=field, logging=logging)
    scope["ParallelismConfig"] = type("ParallelismConfig", (), {})  # which no word on a command line makes
    scope["default_optim"] = "adamw_torch_fused" if is_torch_greater_or_equal("2.8") else "adamw_torch"
    try:
        return define(OF_THE_TRAINING, [*files, HERE / "training_arguments.py"], **scope)["RsaCfnTrainingArguments"]
    except Exception:  # a version of transformers that defines them in another way
        from training.arguments import RsaCfnTrainingArguments

        return RsaCfnTrainingArguments


_source = Path(find_spec("configuration_rsa_cfn").origin)
_of_the_model = define(OF_THE_MODEL, [_source], Literal=Literal, get_args=get_args)
Fusion, FUSIONS, PoolingMode, POOLING_MODES = map(_of_the_model.get, OF_THE_MODEL.split())
