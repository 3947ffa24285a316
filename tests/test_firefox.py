"""The built book in Firefox, once a week (`pytest -m firefox`): what test_browser.py asks of Chromium, on three pages.

Firefox is spoken to by its own remote protocol, Marionette: messages "LENGTH:JSON" on a socket, no driver in between.
"""

import json
import shutil
import socket
import subprocess
import time

import pytest
from conftest import Server

pytestmark = pytest.mark.firefox
SETTINGS = {"marionette.port": 0, "app.update.disabledForTesting": True, "browser.shell.checkDefaultBrowser": False,
            "datareporting.policy.dataSubmissionEnabled": False, "toolkit.telemetry.reportingpolicy.firstRun": False}
KEYS = {"ArrowRight": "\ue014", "ArrowUp": "\ue013", "End": "\ue010", "Home": "\ue011"}


class Firefox:
    """A headless Firefox with a profile of its own in `folder`."""

    def __init__(self, folder):
        path = shutil.which("firefox-esr") or shutil.which("firefox")
        if not path:
            pytest.fail("There is no Firefox. On Debian: apt-get install firefox-esr")
        (folder / "user.js").write_text("".join(f'user_pref("{name}", {json.dumps(value)});\n'
                                                for name, value in SETTINGS.items()))
        self.process = subprocess.Popen([path, "--headless", "--no-remote", "--profile", folder, "--marionette",
                                         "--remote-allow-system-access"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.socket = socket.create_connection(("127.0.0.1", self.port(folder / "MarionetteActivePort")), timeout=120)
        self.file, self.count = self.socket.makefile("rb"), 0
        self.answer()                                                     # its greeting
        self.ask("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})

    def port(self, file):
        """The port that Firefox has chosen, when it is ready."""
        while self.process.poll() is None:
            if file.is_file() and (text := file.read_text()).strip():
                return int(text)
            time.sleep(0.1)
        pytest.fail(f"Firefox ended with {self.process.returncode} before it could be asked anything")

    def answer(self):
        length = b""
        while not length.endswith(b":"):
            length += self.file.read(1)
        return json.loads(self.file.read(int(length[:-1])))

    def ask(self, command, **parameters):
        """The value of a WebDriver command; RuntimeError with Firefox's words where it fails."""
        self.count += 1
        words = json.dumps([0, self.count, command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(words), words))
        _, _, error, result = self.answer()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return result.get("value", result) if isinstance(result, dict) else result

    def run(self, script, *args):
        """What a script returns that runs in the page."""
        return self.ask("WebDriver:ExecuteScript", script=f"return ({script})(...arguments)", args=list(args))

    def find(self, selector):
        return next(iter(self.ask("WebDriver:FindElement", using="css selector", value=selector).values()))

    def click(self, selector):
        self.ask("WebDriver:ElementClick", id=self.find(selector))

    def press(self, selector, key):
        self.ask("WebDriver:ElementSendKeys", id=self.find(selector), text=KEYS[key])

    def errors(self, address):
        """What the console says of scripts and styles from `address`; it is empty afterwards."""
        self.ask("Marionette:SetContext", value="chrome")
        said = self.run("""(address) => {
            const all = Services.console.getMessageArray().filter((m) => m instanceof Ci.nsIScriptError);
            Services.console.reset();
            return all.filter((m) => m.sourceName.startsWith(address) && !(m.flags & Ci.nsIScriptError.warningFlag))
                .map((m) => `${m.sourceName}:${m.lineNumber} ${m.errorMessage}`);
        }""", address)
        self.ask("Marionette:SetContext", value="content")
        return said

    def stop(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    started = Firefox(tmp_path_factory.mktemp("firefox"))
    yield started
    started.stop()


@pytest.fixture(params=["index", "chapters/01_degradation", "chapters/03_residual_block"])
def page(request, firefox, site):
    """A page, opened by a reader who has never been here; a script's error fails the test."""
    server = Server(site)
    firefox.ask("WebDriver:SetWindowRect", width=1280, height=900)
    firefox.ask("WebDriver:Navigate", url=f"{server.address}{request.param}.html")
    yield firefox
    wrong = firefox.errors(server.address)
    server.stop()
    assert wrong == []


def texts(page, selector):
    return page.run("(name) => [...document.querySelectorAll(name)].map((e) => e.textContent.trim())", selector)


def test_predictions_cover_are_committed_to_and_uncover(page):
    names = page.run("() => [...document.querySelectorAll('form.predict')].map((form) => form.id)")
    assert names
    for name in names:
        form, hidden = f"[id='{name}']", """(name) => document.getElementById(name).dataset.covers.split(" ").map(
            (id) => getComputedStyle(document.getElementById(id)).visibility === "hidden")"""
        assert all(page.run(hidden, name)), name
        assert texts(page, f"{form} .predict-covers")[0].startswith("Covered until you have guessed")
        for point in page.run("""(name) => [...document.querySelectorAll(`[id='${name}'] :is(circle, [type=range])`)]
                .map((e, i) => (e.id ||= `${name}-point-${i}`))""", name):
            page.press(f"[id='{point}']", "ArrowRight")
        if page.run("(form) => document.querySelectorAll(`${form} [type=radio]`).length", form):
            page.click(f"{form} [type=radio]")
        page.click(f"{form} [type=submit]")
        assert not any(page.run(hidden, name)), name
        assert "easured: " in texts(page, f"{form} .predict-reply")[0]
    assert texts(page, ".predict-tally p")[0].startswith("You were right in ")


def test_every_control_moves_picture_and_caption(page):
    page.run("() => document.querySelectorAll('.predict-show').forEach((button) => button.click())")
    controls = page.run("""() => [...document.querySelectorAll(`figure.explorer :is(input,
        button[aria-pressed=false])`)].map((e, i) => (e.id ||= `control-${i}`))""")
    assert controls
    state = """(id) => {
        const figure = document.getElementById(id).closest("figure");
        return [figure.querySelector("figcaption").textContent, figure.querySelector(".explorer-frame").innerHTML,
                document.documentElement.scrollHeight, location.hash];
    }"""
    for control in controls:
        before = page.run(state, control)
        if page.run("(id) => document.getElementById(id).type === 'range'", control):
            at_start = page.run("(id) => document.getElementById(id).value === '0'", control)
            page.press(f"#{control}", "End" if at_start else "Home")
        else:
            page.click(f"#{control}")
        after = page.run(state, control)
        assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True, False], control


def test_quizzes_answer_toys_can_be_played_with_and_the_trainer_is_able(page):
    for name in page.run("() => [...document.querySelectorAll('form.quiz')].map((form) => form.id)"):
        page.run("""(name) => document.getElementById(name).querySelectorAll("fieldset :first-child > [type=radio]")
            .forEach((input) => input.click())""", name)
        page.click(f"#{name} [type=submit]")
        assert texts(page, f"#{name} > output")[0]
    for name in page.run("() => [...document.querySelectorAll('figure.toy')].map((toy) => toy.id)"):
        before = texts(page, f"#{name} figcaption")
        page.click(f"#{name} .toy-body button")
        assert texts(page, f"#{name} figcaption") != before
    assert not page.run("() => [...document.querySelectorAll('figure.trainer')].some((lab) => lab.hidden)")


def test_narrow_and_wide_nothing_lies_past_the_edge(page):
    for width in (500, 1280, 1920):
        page.ask("WebDriver:SetWindowRect", width=width, height=900)
        assert page.run("() => document.documentElement.scrollWidth - innerWidth") <= 0
        assert not page.run("""() => [...document.querySelectorAll(`figure :is(svg, figcaption, button, input)`)]
            .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map((e) => e.outerHTML.slice(0, 80))""")
