"""What the tests share: the repository's root, one thread, a server, the built site, the browser; property tests draw
the same each time."""

import functools
import gc
import http.server
import shutil
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent
BROWSERS = "chromium", "chromium-browser", "google-chrome"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "_ext")]     # the tools of the book are tested too
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


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The nets of the tests are small: a second thread costs more than it brings, much more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Answer(http.server.SimpleHTTPRequestHandler):
    """One file of the server's folder, or what its fault makes of it."""

    def do_GET(self):
        self.server.asked.append(self.path)
        fault = self.server.fault if self.path.startswith(self.server.faulty) else None
        if fault is None:
            super().do_GET()
        elif fault == "missing":
            self.send_error(404)
        else:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write({"cut": content[:len(content) // 2],
                              "altered": content[:-1] + bytes([content[-1] ^ 1])}[fault])

    def log_message(self, *arguments):
        """Silent."""


class Server(http.server.ThreadingHTTPServer):
    """Serves `folder` at `address` on this machine until `stop()`; `asked` lists the paths that were asked for.
    `fault` "missing", "cut" (half of a file) or "altered" (in its last byte) is what files whose path starts with
    `faulty` meet; both may be changed as it runs."""

    def __init__(self, folder, fault=None, faulty="/"):
        super().__init__(("127.0.0.1", 0), functools.partial(Answer, directory=str(folder)))
        self.fault, self.faulty, self.asked = fault, faulty, []
        self.address = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


@pytest.fixture
def serve():
    """serve(folder, fault=None, faulty="/") starts a Server; they stop when the test is over."""
    servers = []

    def start(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


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


@pytest.fixture
def no_home(monkeypatch):
    """A user without a home folder, as in `docker run --user 12345`."""
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


@pytest.fixture(scope="module")
def browser(chromium):
    """Chromium, started; it asks nobody on its own."""
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """open_page(body, head=(), fragment="", init="", **settings) opens a page with this body and head, tags or paths of
    styles and scripts, after the script `init`; its errors fail the test."""
    contexts, wrong = [], []

    def tag(part):
        if isinstance(part, str):
            return part
        script = f'<script src="{part.as_uri()}"></script>'
        return script if part.suffix == ".js" else f'<link rel="stylesheet" href="{part.as_uri()}">'

    def open_page(body, head=(), fragment="", init="", **settings):
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(f'<!DOCTYPE html><html lang="en" data-theme="{settings.get("color_scheme", "light")}"><head>'
                        '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>A page</title>'
                        f'{"".join(map(tag, head))}</head><body>{body}</body></html>')
        contexts.append(browser.new_context(**settings))
        contexts[-1].add_init_script(init)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(file.as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def shown(monkeypatch):
    """What the book's modules display, in order."""
    seen = []
    for name in [name for name in sys.modules if name.startswith("d2l_utils.book.")]:
        if hasattr(sys.modules[name], "display"):
            monkeypatch.setattr(sys.modules[name], "display", seen.append)
    return seen


def axe(page):
    """What axe finds on a page with all its folds open: (rule, HTML, what is wrong) of each."""
    from axe_playwright_python.sync_playwright import Axe
    page.add_style_tag(content="*, ::before, ::after { animation: none !important; transition: none !important; }")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    options = {"preload": False, "resultTypes": ["violations"]}               # a third of the time of all results
    found = Axe().run(page, options=options).response["violations"]
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = false; })")
    return [(rule["id"], node["html"][:200], node.get("failureSummary")) for rule in found for node in rule["nodes"]]
