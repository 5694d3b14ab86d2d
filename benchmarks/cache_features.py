"""
All ten fusions on cached features against two runs without, on the demo corpus: whole processes, from an empty cache.

```bash
python -m benchmarks.cache_features
```
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from configuration_rsa_cfn import FUSIONS
from prepare_dataset import prepare
from training.data import DEMO_DIR


REPOSITORY = Path(__file__).parents[1]


def seconds_of_run(folder: Path, name: str, *arguments: str) -> float:
    """Seconds that a process of run_classification.py takes, from its start to its end."""
    command = [sys.executable, REPOSITORY / "run_classification.py", "--output_dir", f"models/{name}", *arguments]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if finished.returncode:
        raise RuntimeError(f"{name} failed: {finished.stderr}")
    print(f"{name:<24} {seconds:7.1f} s", flush=True)
    return seconds


def main(argv: list[str] | None = None):
    argparse.ArgumentParser(description="Ten cached runs against two uncached ones.").parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        prepare("demo", None, folder / DEMO_DIR)
        # One before and one after, so that a machine that gets busier or calmer favours neither.
        uncached = seconds_of_run(folder, "uncached, first")
        cached = sum(
            seconds_of_run(folder, f"cached {fusion}", "--fusion", fusion, "--cache_features") for fusion in FUSIONS
        )
        uncached += seconds_of_run(folder, "uncached, second")
    print(f"two uncached runs {uncached:7.1f} s\nten cached runs   {cached:7.1f} s, {cached / uncached:.2f} of it")


if __name__ == "__main__":
    main()
