"""What the tests share: the repository's root, the built site, the browser; property tests draw the same each time."""

import gc
import shutil
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
BROWSERS = "chromium", "chromium-browser", "google-chrome"
sys.path.insert(0, str(ROOT / "tools"))                      # the book's own tools are tested too
settings.register_profile("book", deadline=None, derandomize=True, database=None)
settings.load_profile("book")


def collect_sockets():
    """Collect the sockets that torch and torchvision leave behind after a failed download: here, and not in the midst
    of a later test, which would fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def no_book(monkeypatch):
    """Tests start outside a book build and with the bundled data, whatever the shell says."""
    for name in ("D2L_BOOK", "D2L_DATA", "D2L_COLAB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def site():
    """The built book's folder; fails where there is none."""
    folder = ROOT / "_build" / "html"
    if not (folder / "index.html").is_file():
        pytest.fail("There is no built book: run `make book` first.")
    return folder


@pytest.fixture(scope="session")
def chromium():
    """The path of Chromium or Chrome, None for Playwright's own; fails where there is no browser."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        if not Path(playwright.chromium.executable_path).is_file():
            pytest.fail("There is no browser. On Debian and Ubuntu: apt-get install chromium; elsewhere: "
                        ".venv/bin/playwright install chromium")
