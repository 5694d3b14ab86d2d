"""Turns a KEMDy20 folder, or a generated demo corpus of the same shape, into an Arrow dataset on disk.

python prepare_dataset.py --corpus_dir KEMDy20_v1_1 --output_dir data/kemdy20 --num_proc 4
python prepare_dataset.py --corpus demo --output_dir data/demo
"""

import argparse
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NoReturn

from corpora import CorpusError
from corpora.arrow import assemble_dataset, check_output_dir, incomplete_folder, publish, write_sessions
from corpora.kemdy20 import read_corpus
from corpora.report import conversion_report, format_report


CORPORA = ("kemdy20", "demo")


class NothingToWriteError(RuntimeError):
    """Not a single row of the corpus can be used."""


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage that would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    summary, _, examples = __doc__.partition("\n\n")
    parser = OneLineParser(
        prog="prepare_dataset.py",
        description=summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    corpus_help = "kemdy20 (default), or demo: synthetic speech that is generated first"
    parser.add_argument("--corpus", default="kemdy20", help=corpus_help)
    dir_help = "folder that holds annotation/ and wav/; for demo where to keep the generated corpus (default: nowhere)"
    parser.add_argument("--corpus_dir", help=dir_help)
    parser.add_argument("--output_dir", required=True, help="new folder for the dataset")
    parser.add_argument("--num_proc", type=_whole_number, help="number of processes, at most one per session")
    return parser.parse_args(arguments)


def _whole_number(argument: str) -> int:
    try:
        return int(argument)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{argument!r} is not a whole number, give 1 or more") from None


def prepare(corpus: str, corpus_dir: str | Path | None, output_dir: str | Path, num_proc: int | None = None) -> dict:
    """Converts a corpus into a `DatasetDict` with the split `train`, rows in the order of the annotation files.

    Args:
        corpus: one of `CORPORA`.
        corpus_dir: the KEMDy20 folder; for `"demo"` None, or a new folder that keeps the generated corpus.
        output_dir: a folder that does not exist yet or is empty. It appears when everything is written.
        num_proc: number of processes, at most one per session.

    Returns:
        The report that is also stored as `conversion_report.json` in `output_dir`.

    Raises:
        CorpusError: an argument or the shape of the corpus is wrong; nothing was written.
        NothingToWriteError: no row can be used; nothing was written.
    """
    _check_arguments(corpus, corpus_dir, num_proc)
    corpus_dir = None if corpus_dir is None else Path(corpus_dir).expanduser()
    # Read before anything is made, so that a folder of another shape is refused at once.
    found = None if corpus == "demo" else read_corpus(corpus_dir)
    output_dir = check_output_dir(output_dir, corpus_dir)
    with incomplete_folder(output_dir) as folder:
        if found is None:
            # Imported here: only this corpus needs its generator.
            from corpora.demo import write_corpus

            corpus_dir = corpus_dir or folder / "demo_corpus"
            write_corpus(corpus_dir)
            found = read_corpus(corpus_dir)
        sessions = write_sessions(found.sessions, folder / "shards", min(num_proc or 1, len(found.sessions)))
        report = conversion_report(found, sessions)
        if not report["rows_written"]:
            reasons = ", ".join(f"{kind} {len(names)}" for kind, names in report["skipped"].items())
            raise NothingToWriteError(
                f"none of the {report['rows_read']} rows in {corpus_dir} can be used ({reasons or 'no rows'}): "
                "check that annotation/ and wav/ belong together"
            )
        report["fingerprint"] = assemble_dataset(folder / "shards", sessions, folder / "dataset")
        publish(folder / "dataset", report, output_dir)
    return report


def _check_arguments(corpus: str, corpus_dir: str | Path | None, num_proc: int | None) -> None:
    if corpus not in CORPORA:
        raise CorpusError(f"--corpus {corpus} is unknown: give one of {', '.join(CORPORA)}")
    if num_proc is not None and num_proc < 1:
        raise CorpusError(f"--num_proc {num_proc} is less than one process: give 1 or more")
    if corpus == "kemdy20":
        if corpus_dir is None:
            raise CorpusError("--corpus_dir is missing: give the KEMDy20 folder, or --corpus demo to try without one")
    elif corpus_dir is not None and Path(corpus_dir).expanduser().exists():
        folder = Path(corpus_dir).expanduser()
        if not folder.is_dir() or any(folder.iterdir()):
            raise CorpusError(
                f"--corpus_dir {corpus_dir} is not an empty folder, but the demo corpus is generated into a new one: "
                "give a new folder, or leave out --corpus demo to convert what is there"
            )


def main(arguments: list[str] | None = None) -> int:
    given = parse_arguments(arguments)
    try:
        report = prepare(given.corpus, given.corpus_dir, given.output_dir, given.num_proc)
    except CorpusError as error:
        print(f"prepare_dataset.py: {error}", file=sys.stderr)
        return 2
    except (NothingToWriteError, BrokenExecutor, OSError) as error:
        print(f"prepare_dataset.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_dataset.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    print(format_report(report, Path(given.output_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
