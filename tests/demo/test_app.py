"""The app: refusals in one line; and, where Gradio, selenium and Chromium are there, the page in a real browser."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from demo.app import load_recognizer, main, read_card
from demo.recognizer import in_korean
from foundation.errors import InputError
from processing_rsa_cfn import RsaCfnPipeline
from tests.browser import NO_BROWSER
from training.model import load_saved


REPOSITORY = Path(__file__).parents[2]
SPACE_README = (REPOSITORY / "demo" / "README.md").read_text(encoding="utf-8")
EXPLAINED_SKIPS = {
    "the page needs gradio, selenium, Chromium": "Heavy, and for the page only; all that it shows is tested without.",
    NO_BROWSER: "Heavy, and for the page only; all that it shows is tested without.",
}
PATIENCE = 120  # seconds
FIRST_PORT = "7960"  # the app takes the first free one from here on


def test_a_missing_model_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^--model models/rsa_cfn isn't there; train it with .*$"):
        load_recognizer("models/rsa_cfn", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="^--model empty can't be loaded; give .*$"):
        load_recognizer("empty", None)


def test_a_card_tells_what_a_model_is_for(checkpoint_dir, tmp_path):
    assert read_card(str(checkpoint_dir)) == {"language": ["ko"], "tags": ["synthetic"]}
    assert read_card(str(tmp_path)) == {}
    (tmp_path / "README.md").write_text("# No metadata\n")
    assert read_card(str(tmp_path)) == {}


def test_missing_gradio_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "demo.interface", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main([]) == 2
    assert capsys.readouterr().err == "demo: gradio isn't installed; pip install -r demo/requirements.txt\n"


def test_the_space_runs_the_gradio_that_is_tested():
    (version,) = re.findall(r"^gradio==(\S+)$", (REPOSITORY / "demo" / "requirements.txt").read_text(), re.MULTILINE)
    front_matter = SPACE_README.split("---\n")[1]
    assert f"sdk: gradio\nsdk_version: {version}\n" in front_matter
    assert "app_file: demo/app.py\n" in front_matter and "license: apache-2.0\n" in front_matter


def write_space(folder, checkpoint_dir):
    """The files that the README's line uploads."""
    (line,) = re.findall(r"^hf upload USER/NAME \. (.*)$", SPACE_README, re.MULTILINE)
    patterns = {"--include": [], "--exclude": [], "--repo-type": []}
    for word in shlex.split(line):
        if word in patterns:
            chosen = patterns[word]
        else:
            chosen.append(word)
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True)
    names = tracked.stdout.decode().splitlines()
    names = names or [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.py")]
    for name in filter_repo_objects(names, allow_patterns=patterns["--include"], ignore_patterns=patterns["--exclude"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
    shutil.copytree(checkpoint_dir, folder / "models" / "rsa_cfn")


@contextmanager
def served(folder):
    """The address of the app, which runs in a process of its own as a Space starts it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "RSA_CFN"))}
    environment = {"GRADIO_SERVER_PORT": FIRST_PORT, "PYTHONUNBUFFERED": "1", "GRADIO_TEMP_DIR": str(folder / "tmp")}
    process = subprocess.Popen(
        [sys.executable, "demo/app.py"],
        cwd=folder,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("wb"),
        text=True,
    )
    try:
        for line in process.stdout:
            if "Running on local URL" in line:
                break
        else:
            pytest.fail((folder / "stderr").read_text())
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@pytest.fixture
def gradio():
    return pytest.importorskip("gradio", reason="the page needs gradio, selenium, Chromium")


def test_the_page(gradio, browser, checkpoint_dir, tmp_path):
    """As a Space: an example is clicked, and its probabilities read; a bad file is uploaded, and the reason read."""
    from selenium.webdriver.support.ui import WebDriverWait

    def find(selector):
        return browser.find_elements("css selector", selector)

    def shown(name):
        meters = find(f"#without-{name} meter")
        return {meter.get_attribute("aria-label"): float(meter.get_attribute("value")) for meter in meters}

    wait = WebDriverWait(browser, PATIENCE)
    write_space(tmp_path / "space", checkpoint_dir)
    with served(tmp_path / "space") as address:
        browser.get(address)
        buttons = wait.until(lambda _: find("button.gallery-item"))
        assert len(buttons) == 7
        assert "Model: models/rsa_cfn · 언어 Language: 한국어 Korean" in find("body")[0].text
        _, text = buttons[2].text.split(": ", maxsplit=1)
        buttons[2].click()
        wait.until(lambda _: find("#explanation img"))
        wait.until(lambda _: len(shown("all")) == len(shown("text")) == len(shown("audio")) == 7)
        (box,) = find("textarea")
        assert box.get_attribute("value") == text
        pipe = RsaCfnPipeline(*load_saved(str(checkpoint_dir)), device="cpu")
        (audio,) = (tmp_path / "space" / "tmp").rglob("angry.wav")
        for name, inputs in {
            "all": {"audio": str(audio), "text": text},
            "text": {"audio": str(audio)},
            "audio": {"text": text},
        }.items():
            assert shown(name) == pytest.approx(
                {in_korean(entry["label"]): entry["score"] for entry in pipe(inputs)}, abs=1e-5
            )
        (tmp_path / "bad.wav").write_text("no audio", encoding="utf-8")
        find("button[aria-label=Clear]")[0].click()
        wait.until(lambda _: find("input[type=file]"))[0].send_keys(str(tmp_path / "bad.wav"))
        wait.until(lambda _: find("button[aria-label=Clear]"))
        find("#recognise")[0].click()
        (note,) = wait.until(lambda _: [note for note in find("#note") if note.text])
        assert note.text.startswith("Audio can't be read")
        assert not find("#explanation img") and not find("#timeline img")
        browser.set_window_size(390, 844)
        width = "return document.documentElement.scrollWidth"
        assert browser.execute_script(width) <= browser.execute_script("return window.innerWidth")
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert loaded and all(name.startswith((address, "data:", "blob:")) for name in loaded)
    assert "Traceback" not in (tmp_path / "space" / "stderr").read_text()
