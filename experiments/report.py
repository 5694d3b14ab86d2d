"""The report of experiments: results.json, results.csv, runs.csv, results.md with its pictures, and report.html.
Markdown and HTML are made of the same blocks, and nothing in them depends on the day or the machine but the costs."""

import base64
import csv
import io
import json
import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments import pictures, tables
from experiments.answer import answer
from experiments.results import Results
from experiments.tables import Cell, Sheet, find_protocols
from foundation.figures import Picture
from foundation.words import cell
from training.arguments import DEMO_DIR


TEMPLATE = "report.html.jinja"
PICTURES_DIR = "pictures"
DEMO_NOTICE = (
    "These are the scores of synthetic sounds, to try software. No human speaks in them, and a generator made up the "
    "labels: nothing below means anything about emotion."
)


@dataclass
class Paragraph:
    text: str
    is_notice: bool = False
    kind = "paragraph"


@dataclass
class Code:
    text: str
    language: str = ""
    kind = "code"


@dataclass
class Image:
    """A picture that is saved, by its path from the folder of the report."""

    file: str
    content: bytes
    caption: str
    alt: str
    kind = "image"

    @property
    def data_uri(self) -> str:
        media_type = mimetypes.guess_type(self.file)[0] or "image/png"
        return f"data:{media_type};base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass
class Section:
    title: str
    blocks: list[Paragraph | Code | Image | Sheet]


def write_report(results: Results, folder: Path) -> None:
    """
    Write `results.json`, `results.csv` (one line for each system and protocol), `runs.csv`, `results.md` with its
    pictures in `pictures/`, and `report.html`, which needs no other file.

    Args:
        results ([`Results`]): All that the report says.
        folder (`Path`): Made if it isn't there; files of the same names are overwritten. Files of
            `results.attention` that aren't absolute are looked for in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(results.to_dict(), ensure_ascii=False, indent=2)
    (folder / "results.json").write_text(record + "\n", encoding="utf-8")
    (folder / "results.csv").write_text(records_csv(tables.system_records(results)), encoding="utf-8")
    (folder / "runs.csv").write_text(records_csv(tables.run_records(results)), encoding="utf-8")
    with pictures.writing(results):
        sections = report_sections(results, folder)
    (folder / "results.md").write_text(markdown_report(results.name, sections), encoding="utf-8")
    (folder / "report.html").write_text(html_report(results.name, sections), encoding="utf-8")


def records_csv(records: list[dict]) -> str:
    """Numbers in full, nothing where there is none."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def report_sections(results: Results, folder: Path) -> list[Section]:
    """All that the report shows, in its order; the pictures are saved on the way."""

    def each_protocol(*makers: Callable) -> list:
        """What each of them makes of each protocol: sheets, or pictures, which are saved."""
        made = [maker(results, protocol) for protocol in find_protocols(results) for maker in makers]
        return [save(block, folder) if isinstance(block, Picture) else block for block in made if block is not None]

    sections = [Section("In short", _summary(results))]
    overview = pictures.draw_scores(results)
    blocks = [] if overview is None else [save(overview, folder)]
    sections.append(Section("Scores", blocks + each_protocol(tables.scores_sheet)))
    if results.tables:
        sheets = [tables.paper_sheet(results, table) for table in results.tables]
        is_published = any(row.published is not None for table in results.tables for row in table.rows)
        sections.append(Section("The paper's tables" if is_published else "The plan's tables", sheets))
    blocks = each_protocol(pictures.draw_differences, tables.comparisons_sheet)
    sections.append(
        Section("Which differences are real", blocks or [Paragraph("There were no two systems to compare.")])
    )
    sections.append(Section("Classes", each_protocol(tables.classes_sheet, pictures.draw_confusion_matrices)))
    if results.flattery:
        blocks = [save(pictures.draw_flattery(results), folder), tables.flattery_sheet(results)]
        sections.append(Section("How much the paper's protocol flatters", blocks))
    sections.append(Section("Learning curves", each_protocol(pictures.draw_learning_curves)))
    sections.append(Section("Calibration", each_protocol(pictures.draw_reliability)))
    sections.append(Section("Attention", _attention(results, folder)))
    sections.append(Section("Cost", each_protocol(pictures.draw_cost, tables.cost_sheet)))
    sections += _reproduction(results)
    return [section for section in sections if section.blocks]


def _summary(results: Results) -> list:
    finished = sum(run.error is None for run in results.runs)
    failed = len(results.runs) - finished
    blocks = [Paragraph(results.description)] if results.description else []
    if Path(results.dataset).parts[-2:] == Path(DEMO_DIR).parts:
        blocks.append(Paragraph(DEMO_NOTICE, is_notice=True))
    blocks.append(
        Paragraph(
            f"Dataset {results.dataset}, {len(results.label_names)} classes: {', '.join(results.label_names)}. "
            f"{finished} of {len(results.runs)} runs finished, {failed} failed."
        )
    )
    blocks += map(Paragraph, answer(results))
    failures = tables.failures_sheet(results)
    return blocks if failures is None else [*blocks, failures]


def _attention(results: Results, folder: Path) -> list:
    """The pictures of systems with attention; one that isn't there is named."""
    blocks = []
    for number, (system, name) in enumerate(results.attention.items(), start=1):
        file = folder / name
        if not file.is_file():
            blocks.append(Paragraph(f"The picture of {system}, {name}, isn't there."))
            continue
        content = file.read_bytes()
        if file.resolve().is_relative_to(folder.resolve()):
            shown = file.resolve().relative_to(folder.resolve()).as_posix()
        else:
            shown = f"{PICTURES_DIR}/attention_{number}{file.suffix}"
            (folder / PICTURES_DIR).mkdir(exist_ok=True)
            (folder / shown).write_bytes(content)
        caption = f"{system}: the median attention weight of each feature, neutral utterances against the rest."
        blocks.append(Image(shown, content, caption, f"Curves of attention weights of {system}"))
    return blocks


def _reproduction(results: Results) -> list[Section]:
    """Every run, and the commands."""
    sections = []
    if results.runs:
        commands = "\n\n".join(f"# {run.name}\n{run.command}" for run in results.runs)
        sections.append(Section("Every run", [tables.runs_sheet(results)]))
        sections.append(Section("The command of every run", [Code(commands, "bash")]))
    blocks = [Code(results.command, "bash"), Paragraph("The plan:")]
    blocks.append(Code(json.dumps(results.plan, ensure_ascii=False, indent=2), "json"))
    if results.versions:
        blocks.append(tables.versions_sheet(results))
    return [*sections, Section("All of it again", blocks)]


def save(picture: Picture, folder: Path) -> Image:
    """Write a picture below the folder of the report."""
    file = f"{PICTURES_DIR}/{picture.name}.png"
    (folder / PICTURES_DIR).mkdir(exist_ok=True)
    pictures.render(picture.figure, folder / file)
    return Image(file, (folder / file).read_bytes(), picture.caption, picture.alt)


def html_report(title: str, sections: list[Section]) -> str:
    """One page that holds everything and asks nothing of the network."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(title=title, sections=sections) + "\n"


def markdown_report(title: str, sections: list[Section]) -> str:
    parts = [f"# {escape(title)}"]
    for section in sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_markdown_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Paragraph | Code | Image | Sheet) -> str:
    match block:
        case Paragraph():
            return f"> **{escape(block.text)}**" if block.is_notice else escape(block.text)
        case Code():
            # A fence is longer than any in the text.
            longest = max((len(list(run)) for mark, run in groupby(block.text) if mark == "`"), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{fence}{block.language}\n{block.text}\n{fence}"
        case Image():
            return f"![{escape(block.alt)}]({block.file})\n\n{escape(block.caption)}"
        case Sheet():
            return _markdown_table(block)


def _markdown_table(sheet: Sheet) -> str:
    lines = [f"**{escape(sheet.title)}**", "", f"| {' | '.join(cell(escape(name)) for name in sheet.head)} |"]
    lines.append(f"|{'|'.join('---:' if side == 'r' else '---' for side in sheet.alignment)}|")
    lines += [f"| {' | '.join(map(_markdown_cell, row))} |" for row in sheet.rows]
    for note in sheet.notes:
        lines += ["", escape(note)]
    return "\n".join(lines)


def _markdown_cell(shown: Cell) -> str:
    text = cell(escape(shown.text))
    text = f"**{text}**" if shown.is_marked and text else text
    return "<br>".join([text, *(cell(escape(line)) for line in shown.below)])


def escape(text: str) -> str:
    """Text as Markdown that shows it, without HTML, emphasis or code."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*])", r"\\\1", text)
