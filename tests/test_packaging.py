"""From the repository to a reader: the address, the Makefile, and a fresh environment like Google Colab's."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import address as tools
import nbformat
import pytest
import yaml
from conftest import ROOT
from nbclient import NotebookClient

CHAPTER = ROOT / "chapters" / "01_degradation.ipynb"
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", "_build", "build", "*.egg-info", "__pycache__", ".*_cache",
                                    ".hypothesis")


def call(*command, **options):
    """Run a command; its output as text."""
    return subprocess.run(list(map(str, command)), check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options).stdout


@pytest.fixture
def copy(tmp_path):
    """A copy of the source tree, in a path with a space in it."""
    return shutil.copytree(ROOT, tmp_path / "a copy", ignore=NOT_SOURCE)


# The address

def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_address_is_the_same_everywhere():
    address, slug = tools.address(), "/".join(tools.slug(tools.address()))
    read = {name: (ROOT / name).read_text() for name in ("pyproject.toml", "CITATION.cff", "README.md")}
    assert f'Repository = "{address}"' in read["pyproject.toml"]
    assert f'repository-code: "{address}"' in read["CITATION.cff"]
    assert f"{address}/actions/workflows/tests.yml" in read["README.md"]
    assert f"colab.research.google.com/github/{slug}/blob/main/chapters/" in read["README.md"]


def test_make_address_moves_all_of_it_and_back(copy):
    old, before = tools.address(copy), contents(copy)
    new = "https://github.com/3-people/a.book"
    assert "README.md" in call(sys.executable, copy / "tools" / "address.py", new)
    after = contents(copy)
    assert tools.address(copy) == new
    owner, name = map(str.encode, tools.slug(old))
    mention = re.compile(re.escape(owner) + rb"(/|\.github\.io/)" + re.escape(name))
    assert [path for path, content in after.items() if mention.search(content)] == []
    assert {path for path in before if before[path] != after[path]} == {
        path for path, content in before.items() if mention.search(content)}
    call(sys.executable, copy / "tools" / "address.py", f"{old}/")
    assert contents(copy) == before


@pytest.mark.parametrize("url", ["", "github.com/me/book", "https://example.org/me/book", "https://github.com/me"])
def test_bad_address_is_refused(url):
    with pytest.raises(ValueError, match=re.escape(f"URL must look like https://github.com/me/residual-networks, "
                                                   f"got {url!r}")):
        tools.move(url)


# The Makefile

def make(folder, *words, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, env=environment, **options)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_help_lists_what_a_reader_and_a_writer_need_and_is_the_default():
    listed = re.findall(r"^make (\w+) +\S", make(ROOT).stdout, re.M)
    assert set(listed) >= {"book", "serve", "check", "test", "notebooks", "address"}


def test_oldest_python_is_the_same_everywhere():
    """pyproject.toml says it to pip and, by inference, to ruff; the Makefile says it to a reader."""
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f"v < (3, {oldest})" in (ROOT / "Makefile").read_text()
    assert f'"3.{oldest}"' in (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def test_too_old_python_is_named_and_nothing_is_made(copy):
    old = script(copy / "python3.9", f'exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); '
                                     'exec(sys.argv[1])" "$2"')
    result = make(copy, "book", f"PYTHON=./{old.name}")
    assert "Python 3.10 or newer is needed, but ./python3.9 is 3.9" in result.stderr
    assert result.returncode
    assert not (copy / ".venv").exists()


def test_build_without_an_index_page_fails_and_one_with_it_says_where(copy):
    (copy / ".venv").mkdir()
    (copy / ".venv" / ".ready").touch()
    builder = script(copy / ".venv" / "bin" / "jupyter-book", "mkdir -p _build/html")
    result = make(copy, "book")
    assert "The build left no _build/html/index.html" in result.stderr
    assert result.returncode
    script(builder, "mkdir -p _build/html && touch _build/html/index.html")
    result = make(copy, "book")
    assert result.returncode == 0
    assert "Open _build/html/index.html, or run `make serve`" in result.stdout
    script(builder, "exit 1")
    assert make(copy, "book").returncode


def test_workflows_name_major_versions_and_run_what_a_reader_runs():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        assert yaml.safe_load(text)["jobs"]
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in re.findall(r"uses: (\S+)", text))
        assert re.search(r"run: (\.ci/run|make (test|book))$", text, re.M)


def test_pages_are_published_only_when_the_tests_of_a_push_have_passed():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    assert list(workflow[True]) == ["workflow_run"]                                      # YAML reads `on` as true
    assert workflow[True]["workflow_run"] == {"workflows": ["tests"], "branches": ["main"], "types": ["completed"]}
    for job in workflow["jobs"].values():
        assert "workflow_run.conclusion == 'success'" in job["if"]
        assert "workflow_run.event == 'push'" in job["if"]
        assert job["steps"][0]["with"]["ref"] == "${{ github.event.workflow_run.head_sha }}"


def test_readme_links_to_what_is_there_and_the_citation_is_complete():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme) + re.findall(r"^\| `([^`]+)` \|", readme, re.M)
    assert [link for link in links if not (ROOT / link).exists()] == []
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"


# A reader's environment

@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with a fresh environment: no d2l_utils, and Google Colab's versions over the packages that are here.
    Its `pip` reaches no network and finds this tree's files at the repository's address."""
    overlay = Path(sys.prefix) / "colab"
    if not (overlay / ".ready").is_file():
        pytest.fail("Colab's packages are not there: run `make .venv/colab/.ready` (as `make test` does) first.")
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    call(python, "-m", "pip", "uninstall", "-q", "-y", "setuptools")         # old Pythons bring an old one
    site = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "zz_packages.pth").write_text(f"{overlay}\n{sysconfig.get_path('purelib')}\n")
    source = shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    for words in (["init", "-q", "-b", "main"], ["add", "."],
                  ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "now"]):
        call("git", *words, cwd=source)
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python",
              "display_name": "reader", "env": {
                  "PATH": f"{python.parent}:{os.environ['PATH']}", "PIP_NO_INDEX": "1",
                  "PIP_NO_BUILD_ISOLATION": "0",                     # pip's way of saying "no isolation"
                  "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
                  "GIT_CONFIG_VALUE_0": tools.address()}}
    place = folder / "jupyter" / "kernels" / "reader" / "kernel.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(kernel))
    return folder


WIDGETS = """
import IPython, ipywidgets, pathlib, sys
import d2l_utils as d2l
assert pathlib.Path(d2l.__file__).is_relative_to(sys.prefix), d2l.__file__
assert (ipywidgets.__version__, IPython.__version__) == ("7.7.1", "7.34.0")
boxes = [w.children for w in ipywidgets.Widget.widgets.values() if isinstance(w, ipywidgets.Box)]
runs = [row for row in boxes if any(getattr(w, "description", "") == "Run" for w in row)]
lab = [w for row in boxes if any(getattr(w, "children", None) in runs for w in row) for w in row]
controls = [w for w in ipywidgets.Widget.widgets.values()
            if isinstance(w, (ipywidgets.SelectionSlider, ipywidgets.ToggleButtons)) and w not in lab]
pages = [w for w in ipywidgets.Widget.widgets.values() if isinstance(w, ipywidgets.HTML)]
changed = 0
for control in controls:
    for i in range(len(control.options)):
        before = [page.value for page in pages]
        control.index = i
        changed += before != [page.value for page in pages]
    control.index = 0
assert not [page.value for page in pages if page.value.startswith("<pre>")]
print(f"{len(controls)} controls, {changed} changes")
"""


def execute(book, folder, monkeypatch):
    """Run a notebook's cells in the reader's environment, in a folder of its own; the notebook with its outputs."""
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    (folder / "alone").mkdir(exist_ok=True)
    NotebookClient(book, timeout=120, kernel_name="reader", record_timing=False,
                   resources={"metadata": {"path": str(folder / "alone")}}).execute()
    return book


@pytest.mark.timeout(600)
def test_chapter_installs_itself_and_its_explorers_work_as_in_colab(reader, monkeypatch):
    book = nbformat.read(CHAPTER, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(WIDGETS))
    said = execute(book, reader, monkeypatch).cells[-1].outputs[-1].text
    controls, changes = map(int, re.findall(r"\d+", said))
    assert controls >= 2
    assert changes >= controls


def test_wheel_has_the_data_and_every_record_and_nothing_else(copy, tmp_path):
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path, copy)
    [wheel] = tmp_path.glob("*.whl")
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert there == {str(path.relative_to(copy)) for path in (copy / "d2l_utils").rglob("*")
                     if path.is_file() and not path.name.startswith(".")}
    assert {"d2l_utils/data.py", "d2l_utils/bundled/LICENSE", "d2l_utils/bundled/fashion_mnist_12k.npz"} <= there
