"""
Memory and time of `prepare_dataset.py` as the corpus grows, against reading the same recordings with soundfile.

```bash
python -m benchmarks.prepare --utterances 1000 10000 --num_proc 1 2
python -m benchmarks.prepare --corpus_dir KEMDy20_v1_1
```
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile


MEBIBYTE = 2**20
REPOSITORY = Path(__file__).resolve().parents[1]


def convert(corpus_dir: Path, num_proc: int) -> tuple[int, float, int]:
    """One run of `prepare_dataset.py`: rows, seconds from start to exit, and peak bytes of its largest process."""
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        output_dir, start = Path(folder) / "dataset", time.perf_counter()
        command = [sys.executable, REPOSITORY / "prepare_dataset.py", "--corpus_dir", corpus_dir]
        command += ["--output_dir", output_dir, "--num_proc", f"{num_proc}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Not `process.wait`, which would throw the peak memory away.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{corpus_dir} can't be converted; prepare_dataset.py says why")
        report = json.loads((output_dir / "conversion_report.json").read_text(encoding="utf-8"))
    return report["rows_written"], seconds, 1024 * usage.ru_maxrss


def measure(corpus_dir: Path, num_procs: list[int], repeats: int) -> None:
    """Print medians of runs that take turns."""
    files = sorted(corpus_dir.glob("wav/*/*"))
    # Nobody has to wait for the disk.
    for file in files:
        file.read_bytes()
    reading, runs = [], {num_proc: [] for num_proc in num_procs}
    for _ in range(repeats):
        start = time.perf_counter()
        for file in files:
            if file.suffix == ".wav":
                soundfile.read(file)
        reading.append(time.perf_counter() - start)
        for num_proc, timed in runs.items():
            timed.append(convert(corpus_dir, num_proc))
    for num_proc, timed in runs.items():
        rows, seconds, peak_bytes = map(statistics.median, zip(*timed))
        print(
            f"{num_proc:9}  {rows:6.0f}  {peak_bytes / MEBIBYTE:11.0f} MiB  {seconds:8.2f} s  "
            f"{statistics.median(reading):7.2f} s",
            flush=True,
        )


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Memory and time of prepare_dataset.py as the corpus grows.")
    parser.add_argument("--utterances", type=int, nargs="+", default=[1000, 10000], help="sizes of generated corpora")
    parser.add_argument("--corpus_dir", type=Path, nargs="+", help="KEMDy20 folders, instead of generated ones")
    parser.add_argument("--num_proc", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="corpora-") as folder:
        corpora = arguments.corpus_dir or [Path(folder) / f"{number}" for number in arguments.utterances]
        for corpus_dir in [] if arguments.corpus_dir else corpora:
            # In a process of its own: a child's peak memory is never less than its parent's when it was started.
            code = f"from corpora.demo import write_corpus; write_corpus({str(corpus_dir)!r}, {corpus_dir.name})"
            subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
        print("processes    rows  largest process     seconds  soundfile")
        for corpus_dir in corpora:
            measure(corpus_dir, arguments.num_proc, arguments.repeats)


if __name__ == "__main__":
    main()
