"""The report as its readers have it: complete, the same every time, one page that needs nothing, in a real browser."""

import base64
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.pages import write_report
from experiments.records import run_frame, system_frame
from tests.browser import NO_BROWSER
from tests.made_results import FAILED, LABELS, make_few, make_smallest
from tests.markdown import table


EXPLAINED_SKIPS = {NO_BROWSER: "Heavy; what the page holds is read without."}
REPOSITORY = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """The words of a page, its elements, and every address in it; elements have to be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.elements, self.addresses = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def results():
    return make_few()


@pytest.fixture(scope="module")
def report_dir(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "experiments"
    write_report(results, folder)
    return folder


@pytest.fixture(scope="module")
def page(report_dir):
    return Page((report_dir / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def markdown(report_dir):
    text = (report_dir / "results.md").read_text(encoding="utf-8")
    # As it is shown.
    text = re.sub(r"\\([\\`*|$_~(#>])", r"\1", text).replace("&lt;", "<").replace("&amp;", "&")
    return " ".join(text.split())


@pytest.mark.parametrize("form", ["page", "markdown"])
def test_everything_is_told(form, results, request):
    told = request.getfixturevalue(form)
    told = told if form == "markdown" else told.text
    for system in results.systems:
        assert system.name in told
    for run in results.runs:
        assert run.name in told and run.command in told
    for label in LABELS:
        assert label in told
    for row in [*results.tables[0].rows, *results.tables[1].rows]:
        assert f"{row.published}".removeprefix("0") in told
    for words in (results.name, results.description, results.command, *results.versions.values()):
        assert words in told
    assert " ".join(FAILED.split()) in told
    assert "58 of 60 runs finished, 2 failed" in told
    assert " ".join(json.dumps(results.plan, indent=2).split()) in told
    for heading in ("In short", "The paper's tables", "How much the paper's protocol flatters", "Cost"):
        assert heading in told


def test_the_page_needs_nothing_else(page, report_dir):
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "i", "b"})
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    style = page.words[page.words.index(next(words for words in page.words if "box-sizing" in words))]
    assert "url(" not in style and "@import" not in style
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {address[1:] for address in page.addresses if address.startswith("#")} == ids
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    files = {file.read_bytes() for file in (report_dir / "pictures").iterdir()}
    assert {base64.b64decode(image["src"].partition(",")[2]) for image in images} == files and len(files) == 7
    assert all(image["alt"] for image in images)


def test_markdown_refers_to_its_pictures(report_dir):
    text = (report_dir / "results.md").read_text(encoding="utf-8")
    targets = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(targets) == sorted(f"pictures/{file.name}" for file in (report_dir / "pictures").iterdir())
    assert "<script" not in text
    rows = table(text, "system", "classes predicted")
    assert [row[0].partition("<br>")[0] for row in rows][-3:] == ["text", "audio", "majority"]
    assert rows[-2][1] == "**2 of 7**" and all(len(row) == 9 for row in rows)


def test_tables_read_back_as_they_were(results, report_dir):
    for name, frame in (("results.csv", system_frame(results)), ("runs.csv", run_frame(results))):
        with (report_dir / name).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        for line, record in zip(lines, frame.to_dict("records"), strict=True):
            assert list(line) == list(record)
            for column, value in record.items():
                is_number = isinstance(value, float)
                assert (
                    float(line[column]) == value if is_number else line[column] == ("" if value is None else str(value))
                )
    assert json.loads((report_dir / "results.json").read_text(encoding="utf-8")) == asdict(results)


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(report_dir, tmp_path):
    code = (
        "import pathlib; from experiments.pages import write_report; from tests.made_results import make_few\n"
        f"write_report(make_few(), pathlib.Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True)
    for file in report_dir.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(report_dir)).read_bytes() == file.read_bytes(), file.name


def test_attention_pictures_are_taken_along(tmp_path):
    results = make_smallest()
    results.attention = {"text": "pictures/attention-text.png"}
    (tmp_path / "pictures").mkdir()
    Figure().savefig(tmp_path / "pictures" / "attention-text.png")
    write_report(results, tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "text: the median attention weight of each feature" in page.text
    content = base64.b64encode((tmp_path / "pictures" / "attention-text.png").read_bytes()).decode()
    assert f"data:image/png;base64,{content}" in page.addresses
    assert "(pictures/attention-text.png)" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_what_is_not_there_has_no_section(tmp_path):
    results = make_smallest()
    write_report(results, tmp_path)
    told = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "nothing below means anything about emotion" in told
    assert "There were no two systems to compare." in told
    for heading in ("The paper's tables", "flatters", "Calibration", "Attention", "Cost"):
        assert heading not in told
    results.scores, results.dataset, results.runs[0].error = [], "data/kemdy20", "it broke"
    write_report(results, tmp_path)
    told = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "No run has finished" in told and "0 of 1 runs finished, 1 failed" in told and "it broke" in told
    assert "about emotion" not in told


def test_fences_hold_commands_with_fences(tmp_path):
    results = make_smallest()
    results.runs[0].command = shlex.join(["run_classification.py", "```"])
    write_report(results, tmp_path)
    assert f"````bash\n# runs/text\n{results.runs[0].command}\n````" in (tmp_path / "results.md").read_text()


def test_the_page_in_a_browser_without_network(browser, report_dir):
    """On a desk, on a phone and printed: pictures are there, and only boxes scroll sideways."""

    def set_width(width):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def overflow():
        return browser.execute_script(
            "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
        )

    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get((report_dir / "report.html").as_uri())
    widths = browser.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(widths) == 9 and all(width > 600 for width in widths)
    wide = "return [...document.querySelectorAll('.box')].filter(box => box.scrollWidth > box.clientWidth).length"
    for width in (1200, 400):
        set_width(width)
        assert overflow() == 0
        assert width == 1200 or browser.execute_script(wide) > 5
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    set_width(720)  # an A4 page between its margins
    assert overflow() == 0
    cut = "return [...document.querySelectorAll('.box')].filter(box => box.scrollHeight > box.clientHeight + 1).length"
    assert browser.execute_script(cut) == 0
    assert browser.get_log("browser") == []
