"""A headless Chromium, where selenium, chromium and chromedriver are installed."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest


NO_BROWSER = "a browser needs selenium, Chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1400,1200"
)


@contextmanager
def open_browser(folder: Path):
    """
    A driver of selenium, whose `get_log("browser")` has what the page writes to its console.

    Args:
        folder (`Path`): For what the browser stores.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason=NO_BROWSER)
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(NO_BROWSER)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS.split(), f"--user-data-dir={folder}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()
