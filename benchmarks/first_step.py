"""
From the start of `run_classification.py` to its first training step, on a prepared corpus of tiny backbones.

```bash
python -m benchmarks.first_step --utterances 10000 --repeats 3
```
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from corpora.demo import write_corpus
from prepare_dataset import prepare


REPOSITORY = Path(__file__).parents[1]
ARGUMENTS = "--fusion rsa_cfn --audio_model tiny --text_model tiny --max_steps 1 --do_eval false --do_predict false"


def first_step(dataset: Path, output_dir: Path) -> tuple[float, float]:
    """Seconds from the start of a run's process to its first step, and those that went into building the model."""
    command = [sys.executable, "run_classification.py", *ARGUMENTS.split(), "--disable_tqdm", "true"]
    command += ["--dataset_name", str(dataset), "--output_dir", str(output_dir)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    line = re.search(r"First training step after ([\d.]+) s, ([\d.]+) s of it for the model", finished.stderr)
    if line is None:
        raise RuntimeError(f"the run reached no step: {finished.stderr}")
    return float(line[1]), float(line[2])


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Seconds from the start of a run to its first training step.")
    parser.add_argument("--utterances", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_corpus(folder / "corpus", num_utterances=arguments.utterances)
        prepare("kemdy20", folder / "corpus", folder / "dataset")
        print(f"{arguments.utterances} utterances")
        for repeat in range(arguments.repeats):
            total, model = first_step(folder / "dataset", folder / f"run{repeat}")
            print(
                f"run {repeat + 1}: {total:5.1f} s, {model:4.1f} s of it for the model, {total - model:5.1f} s besides"
            )


if __name__ == "__main__":
    main()
