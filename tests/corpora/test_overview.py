"""The page of pictures: what is drawn for which corpus, whether its numbers are right and all of it can be read."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value, load_from_disk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from corpora.columns import read_table
from corpora.overview import PICTURES, draw_durations, draw_labels, draw_report, draw_sessions


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text of its captions."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.captions, self.inside = [], [], None
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "figcaption":
            self.captions[-1] += data

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def demo(prepared_dir):
    return load_from_disk(prepared_dir)


@pytest.fixture(scope="module")
def many(own_dataset):
    """500 rows in 250 sessions and 25 classes with long names."""
    classes = ClassLabel(names=[f"a class with a long name, number {index}" for index in range(25)])
    part = own_dataset["train"].remove_columns("audio").select([0] * 500)
    part = part.remove_columns("label").add_column("label", [index % 25 for index in range(500)], feature=classes)
    return DatasetDict(train=part.add_column("session", [index // 2 for index in range(500)], feature=Value("int32")))


def test_the_page_holds_every_picture_and_needs_nothing_else(demo, tmp_path):
    *files, index = draw_report(demo, tmp_path / "new" / "report", "A title with <b>")
    names = ["labels", "durations", "votes_entropy", "sessions"]
    assert [file.name for file in files] == [f"{name}.png" for name in names] and index.name == "index.html"
    page = Page(index)
    images = page.images()
    assert len(images) == len(page.captions) == len(files)
    for image, file in zip(images, files, strict=True):
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) == file.read_bytes()
        assert image["alt"]
        Image.open(io.BytesIO(file.read_bytes())).verify()
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "b"}
    assert not re.search(r"https?:|@import|url\(", index.read_text(encoding="utf-8"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [tag for _, tag in page.tags]


def test_what_a_corpus_lacks_is_left_out(own_dataset, tmp_path):
    *files, index = draw_report(own_dataset, tmp_path, "mine")
    assert [file.name for file in files] == ["labels.png", "durations.png"]
    labels, durations = Page(index).captions
    assert "train: calm 2 (66.7%), happy 0 (0.0%), up|set <b> 1 (33.3%), (no label)  0 (0.0%)" in labels
    assert "test: calm 0 (0.0%), happy 1 (50.0%), up|set <b> 0 (0.0%), (no label)  1 (50.0%)" in labels
    assert "5 clips of 1.00 to 7.00 s" in durations and "1 (20.0%) are longer than 6 s" in durations


def test_numbers_are_those_of_the_dataset(demo):
    rows, part = read_table(demo), demo["train"]
    names = part.features["label"].names
    labels, winners = part["label"][:], [[names[index] for index in row] for row in part["emotions"]]
    ties = [emotions for emotions in winners if len(emotions) > 1]
    counted = dict(re.findall(r"(\S+) +(\d+) \(", draw_labels(rows).caption))
    assert counted == {name: str(labels.count(index)) for index, name in enumerate(names)} | {"(tie)": str(len(ties))}
    assert "6 of 10 rows each" in draw_sessions(rows).caption


def test_a_few_long_clips_do_not_squeeze_the_others(demo):
    rows = read_table(demo)
    rows.loc[0, "duration"] = 3600.0
    picture = draw_durations(rows)
    bars = [bar.get_height() for bar in picture.figure.axes[0].patches]
    assert sum(bars) == len(rows) and sum(bar > 0 for bar in bars) > 5
    assert "1 longer than" in picture.caption


def test_an_emotion_has_one_colour(demo, own_dataset):
    def colors(dataset):
        axes = draw_labels(read_table(dataset)).figure.axes[0]
        names = [label.get_text() for label in axes.get_yticklabels()]
        return {name: (bar.get_facecolor(), bar.get_hatch()) for name, bar in zip(names, axes.patches, strict=True)}

    of_demo, of_own = colors(demo), colors(own_dataset)
    assert of_demo["happy"] == of_own["happy"]
    for styles in (of_demo, of_own):
        assert len(set(styles.values())) == len(styles)


@pytest.mark.parametrize("which", ["demo", "three rows", "own_dataset", "many"])
def test_nothing_is_cut_off_or_printed_over(which, demo, own_dataset, many):
    tiny = DatasetDict(train=demo["train"].select(range(3)))
    rows = read_table({"demo": demo, "three rows": tiny, "own_dataset": own_dataset, "many": many}[which])
    for picture in [picture for draw in PICTURES if (picture := draw(rows)) is not None]:
        canvas = FigureCanvasAgg(picture.figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        frame = [pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]]
        assert all((side == 255).all() for side in frame), f"{picture.name} has something on its edge"
        for axes in picture.figure.axes:
            low, high = sorted(axes.get_ylim())
            ticks = [tick for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high and axes.axison]
            labels = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_visible()]
            assert not any(one.overlaps(next_one) for one, next_one in zip(labels, labels[1:])), picture.name


def test_labels_of_any_kind_and_number_are_drawn(tmp_path):
    names = [
        "$\\frac$",
        "_x",
        "<script>",
        "(tie)",
        "(no label)",
        "x" * 300,
        "x" * 301,
        *(f"label {n}" for n in range(60)),
    ]
    columns = {"label": list(range(len(names))), "segment_id": names, "session": names}
    rows = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=names))
    *_, index = draw_report(DatasetDict({"train": rows}), tmp_path, "<b>")
    labels, sessions = Page(index).captions
    assert "$\\frac$ 1 (1.5%), _x 1 (1.5%), <script> 1 (1.5%), (tie) 1 (1.5%), (no label) 1 (1.5%)" in labels
    assert f"{'x' * 40} ... 5 1 (1.5%), {'x' * 40} ... 6 1" in labels and f"({len(names) - 50} other labels)" in labels
