"""
Memory and time of `prepare_dataset.py` as the corpus grows, against reading the same recordings with soundfile.

```bash
python -m benchmarks.prepare --utterances 1000 10000 --num_proc 1 2
python -m benchmarks.prepare --seconds 5.9
python -m benchmarks.prepare --corpus_dir KEMDy20_v1_1
```
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import psutil
import soundfile


MEBIBYTE = 2**20
SCRIPT = Path(__file__).resolve().parents[1] / "prepare_dataset.py"
SECONDS_BETWEEN_SAMPLES = 0.1


@dataclasses.dataclass
class Conversion:
    """One run of `prepare_dataset.py`: seconds from start to exit, peak bytes of its largest process and of all."""

    rows: int
    seconds: float
    largest_process: int
    all_processes: int


def write_demo_corpus(folder: Path, utterances: int, sessions: int, seconds: float | None) -> None:
    """A generated corpus; its recordings are repeated until they last `seconds` on average."""
    # Imported in a process of its own: a child's peak memory is never less than its parent's when it was started.
    from corpora.demo import write_corpus

    write_corpus(folder, utterances, sessions)
    if seconds is None:
        return
    files = sorted(folder.glob("wav/*/*.wav"))
    factor = seconds * len(files) / sum(soundfile.info(file).duration for file in files)
    for file in files:
        samples, rate = soundfile.read(file, dtype="int16")
        # As the corpus has it: the plain header of 44 bytes.
        with wave.open(str(file), "wb") as wav:
            wav.setparams((1, 2, rate, 0, "NONE", None))
            wav.writeframes(np.resize(samples, round(factor * len(samples))).tobytes())


def convert(corpus_dir: Path, num_proc: int, samples_memory: bool) -> Conversion:
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        output_dir = Path(folder) / "dataset"
        command = [SCRIPT, "--corpus_dir", corpus_dir, "--output_dir", output_dir, "--num_proc", num_proc]
        all_processes, start = 0, time.perf_counter()
        with open(Path(folder) / "messages", "w+") as messages:
            process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL, stderr=messages)
            while samples_memory and not ended(process.pid):
                all_processes = max(all_processes, proportional_bytes(process.pid))
                time.sleep(SECONDS_BETWEEN_SAMPLES)
            # Not `process.wait`, which would throw the peak memory away.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                messages.seek(0)
                sys.exit(messages.read())
        report = json.loads((output_dir / "conversion_report.json").read_text(encoding="utf-8"))
    return Conversion(report["rows_written"], seconds, 1024 * usage.ru_maxrss, all_processes)


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def proportional_bytes(pid: int) -> int:
    """Memory of a process and those it started; a page that several of them share is counted once."""
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        pass  # ended in between
    return total


def seconds_with_soundfile(files: list[Path]) -> float:
    start = time.perf_counter()
    for file in files:
        soundfile.read(file)
    return time.perf_counter() - start


def measure(corpus_dir: Path, num_procs: list[int], repeats: int) -> tuple[float, dict[int, Conversion]]:
    """Seconds with soundfile, and a conversion per number of processes: medians of runs that take turns."""
    files = sorted(corpus_dir.glob("wav/*/*"))
    # Nobody has to wait for the disk.
    for file in files:
        file.read_bytes()
    wavs = [file for file in files if file.suffix == ".wav"]
    reading, runs = [], {num_proc: [] for num_proc in num_procs}
    for _ in range(repeats):
        reading.append(seconds_with_soundfile(wavs))
        for num_proc in num_procs:
            runs[num_proc].append(convert(corpus_dir, num_proc, samples_memory=False))
    for num_proc, timed in runs.items():
        # In a run of its own, because a process waits while it is asked for its memory.
        run = convert(corpus_dir, num_proc, samples_memory=True)
        runs[num_proc] = dataclasses.replace(run, seconds=statistics.median(run.seconds for run in timed))
    return statistics.median(reading), runs


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Memory and time of prepare_dataset.py as the corpus grows.")
    parser.add_argument("--utterances", type=int, nargs="+", default=[1000, 10000], help="sizes of generated corpora")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--seconds", type=float, help="mean length of a recording (default: as generated)")
    parser.add_argument("--corpus_dir", type=Path, nargs="+", help="KEMDy20 folders, instead of generated ones")
    parser.add_argument("--num_proc", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="corpora-") as folder:
        corpora = list(arguments.corpus_dir or [])
        for utterances in [] if arguments.corpus_dir else arguments.utterances:
            corpora.append(Path(folder) / str(utterances))
            job = (corpora[-1], utterances, arguments.sessions, arguments.seconds)
            process = multiprocessing.get_context("spawn").Process(target=write_demo_corpus, args=job)
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(1)
        report([measure(corpus_dir, arguments.num_proc, arguments.repeats) for corpus_dir in corpora])


def report(measured: list[tuple[float, dict[int, Conversion]]]) -> None:
    print("processes    rows  largest process  all processes     seconds  soundfile  ratio")
    for reading, conversions in measured:
        for num_proc, run in conversions.items():
            print(
                f"{num_proc:9}  {run.rows:6}  {run.largest_process / MEBIBYTE:11.0f} MiB  "
                f"{run.all_processes / MEBIBYTE:9.0f} MiB  {run.seconds:8.2f} s  {reading:7.2f} s  "
                f"{run.seconds / reading:5.2f}"
            )
    (first_reading, first), (last_reading, last) = measured[0], measured[-1]
    for num_proc, small in first.items():
        large = last[num_proc]
        if large.rows == small.rows:
            continue
        # Both runs start alike, so what the larger takes longer is spent on its further rows.
        row = (large.seconds - small.seconds) / (large.rows - small.rows)
        reading_row = (last_reading - first_reading) / (large.rows - small.rows)
        print(
            f"{num_proc} processes, {small.rows} -> {large.rows} rows: "
            f"largest process {large.largest_process / small.largest_process - 1:+.1%}, "
            f"all processes {large.all_processes / small.all_processes - 1:+.1%}; "
            f"{1e6 * row:.0f} us a further row, {1e6 * reading_row:.0f} us with soundfile, "
            f"and {small.seconds - row * small.rows:.2f} s before the first"
        )


if __name__ == "__main__":
    main()
