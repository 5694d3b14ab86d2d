"""The report of experiments: results.json, results.csv, runs.csv, results.md with its pictures, and report.html.
Markdown and HTML are made of the same blocks, and nothing in them depends on the day or the machine but the costs and
the versions."""

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import matplotlib

from experiments import charts, sheets
from experiments.answer import answer
from experiments.records import run_frame, system_frame
from experiments.results import Results
from foundation.figures import Picture
from foundation.files import write_csv, write_json, write_whole
from foundation.templates import fill_template
from foundation.words import writable
from training.arguments import DEMO_DIR


PICTURES_DIR = "pictures"
ATTENTION = "the median attention weight of each feature, neutral utterances against the rest."
DEMO_NOTICE = (
    "These are the scores of synthetic sounds, to try software. No human speaks in them, and a generator made up the "
    "labels: nothing below means anything about emotion."
)


@dataclass
class Paragraph:
    text: str
    is_notice: bool = False
    is_headline: bool = False
    kind = "paragraph"


@dataclass
class Code:
    text: str
    language: str
    kind = "code"

    @property
    def fence(self) -> str:
        """Longer than any in the text."""
        longest = max((len(list(run)) for mark, run in groupby(self.text) if mark == "`"), default=0)
        return "`" * max(3, longest + 1)


@dataclass
class Image:
    """A picture that was saved as `file` in the folder of the report."""

    folder: Path
    file: str
    caption: str
    alt: str
    kind = "image"

    @property
    def data_uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode((self.folder / self.file).read_bytes()).decode('ascii')}"


def write_report(results: Results, folder: Path) -> None:
    """
    Write all files of the report, over those of the same names. The files of `results.attention` are there already;
    report.html needs no other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", asdict(results))
    write_csv(folder / "results.csv", system_frame(results))
    write_csv(folder / "runs.csv", run_frame(results))
    with matplotlib.rc_context(charts.STYLE):
        sections = report_sections(results, folder)
    for name in ("results.md", "report.html"):
        template = Path(__file__).with_name(f"{name}.jinja")
        text = fill_template(template, title=results.name, made=_made(results), sections=sections)
        write_whole(folder / name, text)


def report_sections(results: Results, folder: Path) -> dict[str, list]:
    """All that the report shows, in its order: blocks by the title of their section. Pictures are saved on the way."""

    def shown(*blocks) -> list:
        """Pictures as they were saved, without what there is none of."""
        return [save(block, folder) if isinstance(block, Picture) else block for block in blocks if block is not None]

    def each_protocol(*makers: Callable) -> list:
        return shown(*(maker(results, protocol) for protocol in results.protocols for maker in makers))

    is_published = any(row.published is not None for table in results.tables for row in table.rows)
    differences = each_protocol(charts.draw_differences, sheets.comparisons_sheet)
    commands = Code("\n\n".join(f"# {run.name}\n{run.command}" for run in results.runs), "bash")
    sections = {
        "In short": shown(*_summary(results), sheets.failures_sheet(results)),
        "Scores": shown(charts.draw_scores(results)) + each_protocol(sheets.scores_sheet),
        "The paper's tables" if is_published else "The plan's tables": [
            sheets.paper_sheet(results, table) for table in results.tables
        ],
        "Which differences are real": differences or [Paragraph("There were no two systems to compare.")],
        "Classes": each_protocol(sheets.classes_sheet, charts.draw_confusion_matrices, sheets.conditions_sheet),
        "How much the paper's protocol flatters": shown(sheets.flattery_sheet(results)),
        "Calibration": each_protocol(charts.draw_reliability),
        "Attention": [
            Image(folder, file, f"{system}: {ATTENTION}", f"Curves of attention weights of {system}")
            for system, file in results.attention.items()
        ],
        "Cost": each_protocol(sheets.cost_sheet),
        "Every run": [Paragraph("What each run scored and took is in runs.csv; these run it again."), commands],
        "All of it again": shown(
            Code(results.command, "bash"),
            Paragraph("The plan:"),
            Code(json.dumps(results.plan, ensure_ascii=False, indent=2), "json"),
            sheets.versions_sheet(results),
        ),
    }
    return {title: blocks for title, blocks in sections.items() if blocks}


def _made(results: Results) -> str:
    """The day and the versions that matter most; all of them end the report."""
    told = {"date": "", "commit": "commit ", "rsa-cfn": "rsa-cfn ", "torch": "torch ", "transformers": "transformers "}
    return ", ".join(label + results.versions[name] for name, label in told.items() if name in results.versions)


def _summary(results: Results) -> list[Paragraph]:
    finished = sum(run.error is None for run in results.runs)
    headline, *rest = answer(results)
    blocks = [Paragraph(headline, is_headline=True)]
    if Path(results.dataset).parts[-2:] == Path(DEMO_DIR).parts:
        blocks.append(Paragraph(DEMO_NOTICE, is_notice=True))
    counts = (
        f"Dataset {writable(results.dataset)}, {len(results.label_names)} classes: {', '.join(results.label_names)}. "
        f"{finished} of {len(results.runs)} runs finished, {len(results.runs) - finished} failed."
    )
    return [*blocks, *map(Paragraph, filter(None, [*rest, results.description, counts]))]


def save(picture: Picture, folder: Path) -> Image:
    """Write a picture below the folder of the report."""
    file = f"{PICTURES_DIR}/{picture.name}.png"
    (folder / PICTURES_DIR).mkdir(exist_ok=True)
    picture.figure.savefig(folder / file, dpi=charts.DPI, facecolor="white")
    return Image(folder, file, picture.caption, picture.alt)
