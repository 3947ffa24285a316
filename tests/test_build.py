"""What must make the book build fail does: each test builds a book of one page, with this book's own settings."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT
from notebooks import METADATA

START = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A page

Maths: $y = F(x) + x$.

```{code-cell} ipython3
import d2l_utils as d2l

def pictures(n):
    return f"<table><tr><td>{6 // (3 - n)}</td></tr></table>", f"Picture {n}."
```
"""
FINE = "d2l.claim('One is one.', 1 == 1)\nd2l.explore(pictures, n=[0, 1, 2])"


def build(folder, *cells, notebooks=(), names=(), tags=()):
    """Build a book of one page with these cells after the first, and of notebooks of one cell each, two at a time (with
    these file names, and tags of all their cells); return the exit status and all that was said."""
    for name in ("_ext", "_static", "_vendor"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "_config.yml", folder)
    pages = names or [f"page{i}" for i in range(len(notebooks))]
    for name, cell in zip(pages, notebooks, strict=True):
        cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell(cell)]
        cells[1].metadata.tags = list(tags)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=METADATA), folder / f"{name}.ipynb")
    chapters = {"chapters": [{"file": name} for name in pages]} if pages else {}
    (folder / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "index"} | chapters))
    (folder / "index.md").write_text(START + "".join(f"\n```{{code-cell}} ipython3\n{cell}\n```\n" for cell in cells))
    command = [Path(sys.executable).parent / "jupyter-book", "build", ".", "-W", "-n", "--keep-going"]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"D2L_JOBS": "2"}, capture_output=True, text=True,
                          timeout=250)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)


def test_a_book_without_fault_is_built_with_its_explorer_and_local_maths(tmp_path):
    status, said = build(tmp_path, FINE)
    assert status == 0, said
    page = (tmp_path / "_build" / "html" / "index.html").read_text()
    assert '<figure class="explorer" id="pictures">' in page
    assert "katex/katex.min.js" in page
    assert not re.search("sphinx-thebe|THEBE_JS_URL", page)
    preview = dict(re.findall('<meta property="og:([a-z]+)" content="([^"]*)">', page))
    address = re.match("https://[^/]+/[^/]+/", preview["url"])[0]
    assert (preview["title"], preview["url"]) == ("A page", f"{address}index.html")
    assert preview["description"].startswith("Maths: ")
    assert preview["image"] == f"{address}previews/index.png"
    assert (tmp_path / "_build" / "html" / "previews" / "index.png").is_file()
    lost = (tmp_path / "_build" / "html" / "404.html").read_text()
    assert f'<base href="/{address.split("/")[3]}/">' in lost
    assert 'href="index.html"' in lost


@pytest.mark.parametrize(("cells", "reason"), [
    (["undefined_name"], "NameError"),
    (["d2l.claim('One is two.', 1 == 2)"], "AssertionError: One is two."),
    (["d2l.explore(pictures, n=[0, 1, 2, 3])"], "pictures(n=3) failed: ZeroDivisionError"),
    ([FINE, "d2l.explore(pictures, n=[1, 2])"], "2 things are named 'pictures'")],
    ids=["a broken cell", "a false claim", "a failing render", "two explorers of one name"])
def test_a_faulty_book_is_not_built(tmp_path, cells, reason):
    status, said = build(tmp_path, *cells)
    assert status != 0, said
    assert reason in said


def test_pages_are_numbered_by_their_files_and_their_set_up_is_folded(tmp_path):
    names = ["07_late", "11_eleven", "B_more", "about"]                # 1 to 6 are not written yet, 8 to 10 neither
    status, said = build(tmp_path, FINE, notebooks=["SEED = 0"] * 4, names=names, tags=["setup"])
    assert status == 0, said
    titles = ["7. A page", "11. A page", "B. A page", "A page"]
    for i, name in enumerate(names):
        page = BeautifulSoup((tmp_path / "_build" / "html" / f"{name}.html").read_text(), "html.parser")
        assert page.h1.find(string=True) == titles[i]
        assert page.title.text.startswith(f"{titles[i]} — ")
        assert [link.text.strip() for link in page.select(".bd-sidebar-primary li a")] == ["A page", *titles]
        assert [link.select_one(".prev-next-title").text for link in page.select(".prev-next-area a")] == [
            "A page", *titles][i:i + 3:2]
        assert page.select_one(".tag_setup > details").summary.text.split("\n")[1:3] == ["Show the set-up",
                                                                                        "Hide the set-up"]
        assert page.select_one(".tag_setup > details .cell_input").text.strip() == "SEED = 0"


MEET = """import pathlib, time
with open("{0}.txt", "a") as file:
    file.write("here ")
end = time.monotonic() + 60
while not pathlib.Path("{1}.txt").exists():
    assert time.monotonic() < end, "the other notebook has not started"
    time.sleep(0.05)
print("We", "met.")"""


def test_notebooks_are_executed_two_at_a_time_and_once(tmp_path):
    status, said = build(tmp_path, FINE, notebooks=[MEET.format("a", "b"), MEET.format("b", "a")])
    assert status == 0, said
    for i, name in enumerate("ab"):
        assert (tmp_path / f"{name}.txt").read_text() == "here "
        assert "We met." in (tmp_path / "_build" / "html" / f"page{i}.html").read_text()


def test_all_notebooks_that_fail_are_named(tmp_path):
    status, said = build(tmp_path, FINE, notebooks=["undefined_name", "1 + 1", "1 / 0"])
    assert status != 0, said
    assert re.search(r"page0\.ipynb: [^§]*NameError[^§]*page2\.ipynb: [^§]*ZeroDivisionError", said)
    assert "page1.ipynb: An error" not in said


def test_the_outputs_are_made_anew_when_the_helpers_change(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "_ext")
    import book
    package = tmp_path / "d2l_utils"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("D2L_COLAB", "")
    keys = [book.cache_key(package)]
    (package / "recorded.csv").write_text("depth\n20\n")
    keys.append(book.cache_key(package))
    (package / "recorded.csv").write_text("depth\n56\n")
    keys.append(book.cache_key(package))
    assert len(set(keys)) == 3
    assert book.cache_key(package) == keys[2]
