"""Turns a corpus of emotional speech into an Arrow dataset on disk.

python prepare_dataset.py --corpus_dir KEMDy20_v1_1 --output_dir data/kemdy20
python prepare_dataset.py --corpus csv --metadata speech/metadata.csv --output_dir data/speech
python prepare_dataset.py --corpus demo --output_dir data/another_demo
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

from corpora.catalogue import CORPORA
from corpora.conversion import REPORT_FILE, conversion_report, format_report, skipped_table
from corpora.output import check_output_dir, describe_source, find_damage, incomplete_folder, publish, read_source
from corpora.shards import write_shards
from foundation.errors import InputError, OneLineParser, PushError, complain, run_script
from foundation.words import writable


PROGRAM = "prepare_dataset.py"
EXIT_CODES = """
exit codes: 0 the dataset is there, with all that was asked for; 1 it can't be made, written, drawn or uploaded;
2 an argument, the corpus or the folder is refused, and nothing was written; 130 interrupted"""


class NothingToWriteError(RuntimeError):
    """Not a single row of the corpus can be used."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    summary, _, examples = __doc__.partition("\n\n")
    parser = OneLineParser(
        prog=PROGRAM,
        description=summary,
        epilog=f"examples:\n{examples}{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [f"{name} ({known.hint})" if known.hint else name for name, known in CORPORA.items()]
    parser.add_argument("--corpus", default="kemdy20", help=f"{', '.join(names[:-1])}, or {names[-1]}")
    dir_help = (
        "the corpus's folder, for kemdy20 and kemdy19 the one that holds annotation/ and wav/; for csv where its paths "
        "start (default: the csv's folder), or, without --metadata, one with metadata.csv or a folder for each class; "
        "for demo where to keep the generated corpus (default: nowhere)"
    )
    parser.add_argument("--corpus_dir", help=dir_help)
    metadata_help = "for csv: a csv, tsv or jsonl with path, label, and maybe text, speaker, session, split"
    parser.add_argument("--metadata", help=metadata_help)
    parser.add_argument("--output_dir", required=True, help="folder for the dataset: new, or of an earlier conversion")
    parser.add_argument("--asr_model", help="speech recogniser that writes a column asr_text, as openai/whisper-small")
    parser.add_argument("--asr_language", help="what it hears, such as ko; left out, Whisper guesses it each time")
    report_help = "also draw the dataset: pictures and one page, in OUTPUT_DIR/report"
    parser.add_argument("--report", action="store_true", help=report_help)
    push_help = "also upload the dataset to the Hugging Face Hub, privately"
    parser.add_argument("--push_to_hub", metavar="USER/NAME", help=push_help)
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core, at most 8)")
    return parser.parse_args(arguments)


def prepare(
    corpus: str,
    corpus_dir: str | Path | None,
    output_dir: str | Path,
    num_proc: int | None = None,
    metadata_file: str | Path | None = None,
    then: Callable[[dict], None] = lambda report: None,
    asr_model: str | None = None,
    asr_language: str | None = None,
) -> dict:
    """Converts one of `CORPORA` into a `DatasetDict`, rows in the order of the annotation files; gives its report.

    The arguments are those of the command line. `output_dir` may be the dataset that an earlier conversion of the same
    corpus made: it is left alone if nothing has changed since, and replaced otherwise. A new dataset appears when
    everything is written. `then` is called with the report while no other run may write to `output_dir`.
    """
    _check_arguments(corpus, corpus_dir, num_proc, metadata_file)
    if asr_language is not None and asr_model is None:
        raise InputError("--asr_language has no use without --asr_model; give it, or leave it out")
    corpus_dir = None if corpus_dir is None else Path(corpus_dir).expanduser()
    metadata_file = None if metadata_file is None else Path(metadata_file).expanduser()
    # Read before anything is made, so that a folder of another shape is refused at once.
    read = CORPORA[corpus].read
    try:
        found = read(corpus_dir, metadata_file) if read is not None else None
    except OSError as error:
        where, reason = error.filename or metadata_file or corpus_dir, error.strerror or error
        raise InputError(f"{where} can't be read ({reason}): make it readable, or take it out of the corpus") from None
    asr = None if asr_model is None else [asr_model, asr_language]
    source = describe_source(corpus, metadata_file or corpus_dir, found, asr)
    output_dir = check_output_dir(output_dir, corpus_dir, source)
    with incomplete_folder(output_dir) as folder:
        check_output_dir(output_dir, corpus_dir, source)  # again, as a killed run may have had its name
        if read_source(output_dir) == source and find_damage(output_dir) is None:
            print(writable(f"Nothing has changed since {output_dir} was made, it is left as it is."), file=sys.stderr)
            report = json.loads((output_dir / REPORT_FILE).read_text(encoding="utf-8"))
            then(report)
            return report
        if asr_model is not None:
            from training.transcription import Transcriber, write_asr_text

            transcriber = Transcriber(asr_model, None, asr_language)
        if found is None:
            if corpus_dir is not None and (corpus_dir.is_file() or corpus_dir.is_dir() and any(corpus_dir.iterdir())):
                raise InputError(
                    f"--corpus_dir {corpus_dir} is not an empty folder, but the demo corpus is generated into a new "
                    "one: give a new folder, or leave out --corpus demo to convert what is there"
                )
            from corpora.demo import write_corpus

            corpus_dir = corpus_dir or folder / "demo_corpus"
            write_corpus(corpus_dir)
            found = CORPORA["kemdy20"].read(corpus_dir, None)
        num_proc = num_proc or min(os.cpu_count(), 8)
        shards = write_shards(found, folder / "shards", min(num_proc, max(1, len(found.shards))))
        report = conversion_report(found, shards)
        if not report["rows_written"]:
            reasons = ", ".join(f"{kind} {len(names)}" for kind, names in report["skipped"].items())
            raise NothingToWriteError(
                f"none of the {report['rows_read']} rows in {metadata_file or corpus_dir} can be used "
                f"({reasons or 'no rows'}): check that annotation and recordings belong together"
            )
        from corpora.arrow import assemble_dataset  # see `write_shards`

        assembled = folder / ("dataset" if asr_model is None else "without_asr_text")
        report["fingerprint"] = assemble_dataset(found, folder / "shards", shards, assembled)
        if asr_model is not None:
            report["asr_text"] = write_asr_text(transcriber, assembled, folder / "dataset")
        publish(folder, report, skipped_table(shards), source, output_dir)
        then(report)
    return report


def _check_arguments(
    corpus: str, corpus_dir: str | Path | None, num_proc: int | None, metadata_file: str | Path | None
) -> None:
    if corpus not in CORPORA:
        raise InputError(f"--corpus {corpus} is unknown: give one of {', '.join(CORPORA)}")
    if num_proc is not None and num_proc < 1:
        raise InputError(f"--num_proc {num_proc} is less than one process: give 1 or more")
    known = CORPORA[corpus]
    if known.needs == "corpus_dir" and corpus_dir is None:
        raise InputError(f"--corpus_dir is missing: give the {known.pretty_name} folder, or try --corpus demo")
    if known.needs == "metadata" and metadata_file is None and corpus_dir is None:
        raise InputError(
            "--metadata is missing: give a csv with the columns path, text and label, or --corpus_dir with a folder of "
            "recordings for each class"
        )
    if known.needs != "metadata" and metadata_file is not None:
        raise InputError(f"--metadata has no use with --corpus {corpus}: give --corpus csv, or leave it out")


def main(arguments: list[str] | None = None) -> int:
    given = parse_arguments(arguments)
    output_dir, left = Path(given.output_dir).expanduser(), "nothing was written"

    def finish(report: dict) -> None:
        nonlocal left
        left = f"the dataset in {output_dir} is complete and kept"
        print(format_report(report, output_dir))
        if given.report:
            # The pictures and the Hub's client are imported by who asks for them: they take seconds.
            from datasets import load_from_disk

            from corpora.overview import draw_report

            title = f"{given.corpus}: {output_dir.name}"
            *_, page = draw_report(load_from_disk(output_dir), output_dir / "report", title)
            print(f"Pictures in {writable(str(page))}")
        if given.push_to_hub is not None:
            from corpora.hub import push_dataset

            written = sys.argv[1:] if arguments is None else arguments
            print(f"Uploaded to {push_dataset(output_dir, given.push_to_hub, given.corpus, written)}")

    try:
        if given.push_to_hub is not None:
            _check_arguments(given.corpus, given.corpus_dir, given.num_proc, given.metadata)
            from corpora.hub import check_destination

            check_destination(given.push_to_hub)
        asr = (given.asr_model, given.asr_language)
        prepare(given.corpus, given.corpus_dir, output_dir, given.num_proc, given.metadata, finish, *asr)
        return 0
    except InputError as error:
        complain(PROGRAM, error)
        return 2
    except (NothingToWriteError, PushError) as error:
        complain(PROGRAM, f"{error} ({left})")
    except BrokenExecutor:
        complain(PROGRAM, f"a process was killed, perhaps for want of memory, {left}: free some, or give --num_proc 1")
    except OSError as error:
        where, reason = error.filename or output_dir, error.strerror or error
        complain(PROGRAM, f"{where} can't be written ({reason}), {left}: make room, or give another folder")
    except KeyboardInterrupt:
        complain(PROGRAM, f"interrupted, {left}")
        return 130
    return 1


if __name__ == "__main__":
    run_script(PROGRAM, main)
