"""The installed package, in which this is `rsa_cfn/__init__.py`: the three scripts as commands. Importing it makes the
folders beside it importable under their own names, so that `python -m rsa_cfn.scripts.explain` and the like work."""

import runpy
import sys
from pathlib import Path


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def prepare() -> None:
    runpy.run_path(str(HERE / "prepare_dataset.py"), run_name="__main__")


def train() -> None:
    runpy.run_path(str(HERE / "run_classification.py"), run_name="__main__")


def experiments() -> None:
    runpy.run_path(str(HERE / "run_experiments.py"), run_name="__main__")
