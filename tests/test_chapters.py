"""The form of every chapter (chapters/*.ipynb), and its recorded claims, also with each seed left out in turn.

What a chapter looks like; a notebook that departs from it fails here.

    cell (in this order)      kind      tags                          what
    # Title                   markdown                                the only H1; below it the question
    ## What you will see      markdown                                three bullets and the minutes it takes
    set-up                    code      setup                         installs d2l_utils when it is missing, from the
                                                                      address in _config.yml; imports; SEED = 0
    ## sections ...           markdown, code                          claim, short cell, what to notice
    live training             code      live                          trains in the cell; takes SEED from the set-up
    a class taught in full    code      taught                        the same syntax tree as in d2l_utils
    a long plotting cell      code      hide-input                    collapsed in the book
    explore(...)              code                                    one explorer a cell, render defined above or in it
    link to the CSV           markdown                                [data](../d2l_utils/recorded/NAME.csv) under each
                                                                      recorded figure
    recorded claims           code      recorded-claims               one cell; needs only d2l and plain Python
    ## Summary                markdown                                five lines
    ## Exercises              markdown
    ### Exercise 1: ...       markdown                                the task
    its check                 code      exercise-check                answer = None; an unanswered one prints
                                                                      "not answered yet" and passes
    its solution              code      solution, hide-cell           executed; metadata jupyter.source_hidden: true and
                                                                      cellView: "form" (`make notebooks` sets both)
    ## Further reading        markdown

Other tags: `nbval-check-output` (the only cells whose output is stored: shapes, counts, small seeded tables; run them,
save, then `make notebooks`), `raises-exception` (the lesson is the error). Plain CommonMark and $maths$: no MyST
directives, no image files. Cells of at most 25 lines (unless `taught`), median at most 4 (counted without blank lines
and comments); 1,500 to 3,000 words of prose. That every `render` works over its whole grid is the book build's to show:
there explore() makes every frame, and one that fails stops it.
"""

import ast
import re
import statistics
import sys
from pathlib import Path

import nbformat
import notebooks as tools
import pytest
from conftest import ROOT

import d2l_utils as d2l

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TAGS = {"setup", "live", "taught", "hide-input", "hide-cell", "recorded-claims", "exercise-check", "solution",
        "nbval-check-output", "raises-exception"}
MYST = r"^\s*(?:```|:::+|~~~)\s*\{|\{[\w:-]+\}`|^\([\w-]+\)=\s*$|^% |^\+\+\+|\[\]\(#?[\w-]*\)"
IMAGE = r"!\[|<img\b|<iframe\b|<video\b"


class Chapter:
    """A notebook's cells by kind and tag; `folder` is where its relative links start."""

    def __init__(self, book, folder):
        self.book, self.folder, self.cells = book, Path(folder), book.cells
        self.code = [cell for cell in self.cells if cell.cell_type == "code"]
        self.text = [re.sub(r"^```.*?^```", "", cell.source, flags=re.S | re.M)
                     for cell in self.cells if cell.cell_type == "markdown"]
        self.prose = "\n\n".join(self.text)

    def tagged(self, tag):
        return [cell for cell in self.code if tag in tags(cell)]

    def section(self, title):
        """The text from the heading `title` to the next heading."""
        match = re.search(rf"^#+ {title}[^\n]*\n(.*?)(?=^#|\Z)", self.prose, re.S | re.M)
        return match[1].strip() if match else ""


def tags(cell):
    return cell.metadata.get("tags", [])


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


def shown(cell):
    """A cell in a message: its first line."""
    return repr(cell.source.strip().split("\n")[0][:60])


def tree(cell):
    """The syntax tree of a cell, without IPython's commands."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.M))


def calls(chapter, name):
    """The calls of d2l.NAME in the chapter's code."""
    return [node for cell in chapter.code for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute) and node.func.attr == name
            and isinstance(node.func.value, ast.Name) and node.func.value.id == "d2l"]


# The rules: each yields what is wrong

def has_one_title_and_asks_a_question(chapter):
    if len(re.findall(r"^# ", chapter.prose, re.M)) != 1 or not chapter.prose.startswith("# "):
        yield "the first line must be the only H1"
    if "?" not in re.split(r"^## ", chapter.prose, flags=re.M)[0]:
        yield "the text before the first section must ask the chapter's question"


def has_the_skeleton(chapter):
    headings = re.findall(r"^## (.+)$", chapter.prose, re.M)
    if headings[:1] != ["What you will see"] or headings[-3:] != ["Summary", "Exercises", "Further reading"]:
        yield f"sections must be What you will see, ..., Summary, Exercises, Further reading, got {headings}"
    promise = chapter.section("What you will see")
    if len(re.findall(r"^[-*] ", promise, re.M)) != 3 or not re.search(r"\d+ minutes?", promise):
        yield "What you will see must have three bullets and say how many minutes"
    if len([line for line in chapter.section("Summary").splitlines() if line.strip()]) != 5:
        yield "Summary must have five lines"


def sets_up_from_the_repository(chapter):
    cells = chapter.tagged("setup")
    if len(cells) != 1 or cells[0] is not chapter.code[0]:
        yield "the first code cell, and no other, must be tagged setup"
    elif f"git+{tools.address()}" not in re.findall(r"git\+[^\s\"']+", cells[0].source):
        yield f"the set-up cell must install git+{tools.address()}"
    elif "import d2l_utils as d2l" not in cells[0].source or not re.search(r"^SEED = \d+", cells[0].source, re.M):
        yield "the set-up cell must import d2l_utils as d2l and set SEED"


def uses_known_tags(chapter):
    for cell in chapter.cells:
        if unknown := set(tags(cell)) - TAGS:
            yield f"unknown tags {sorted(unknown)} of {shown(cell)}"


def stores_outputs_only_where_they_are_compared(chapter):
    for cell in chapter.code:
        if "nbval-check-output" not in tags(cell):
            if cell.outputs or cell.execution_count:
                yield f"a stored output of {shown(cell)}"
        elif not cell.execution_count or not any("text" in output or "text/plain" in output.get("data", {})
                                                 for output in cell.outputs):
            yield f"no stored text to compare for {shown(cell)}: run it, save, make notebooks"


def is_plain_commonmark(chapter):
    for cell in chapter.cells:
        if cell.cell_type == "raw" or cell.get("attachments"):
            yield f"raw cells and attachments do not travel: {shown(cell)}"
        if cell.cell_type == "markdown":
            for pattern, what in [(MYST, "MyST syntax"), (IMAGE, "an image file")]:
                if match := re.search(pattern, cell.source, re.M):
                    yield f"{what} ({match[0].strip()!r}) in {shown(cell)}"


def is_short(chapter):
    for cell in chapter.code:
        if len(cell.source.splitlines()) > 25 and "taught" not in tags(cell):
            yield f"{len(cell.source.splitlines())} lines, more than 25, in {shown(cell)}"
    if (median := statistics.median(len(lines(cell)) for cell in chapter.code)) > 4:
        yield f"the median cell has {median:g} lines, more than 4"
    words = len(re.findall(r"\w[\w'.,-]*", re.sub(r"\]\([^)]*\)|\$+[^$]+\$+", " ", chapter.prose)))
    if not 1500 <= words <= 3000:
        yield f"{words} words of prose, not 1,500 to 3,000"


def lets_every_exercise_be_checked(chapter):
    exercises, current = {}, None
    for cell in chapter.cells:
        if cell.cell_type == "markdown" and (headings := re.findall(r"^#{1,3} (.+)$", cell.source, re.M)):
            current = headings[-1] if headings[-1].startswith("Exercise ") else None
            exercises |= {current: []} if current else {}
        for tag in {"exercise-check", "solution"} & set(tags(cell)):
            exercises.setdefault(current, []).append(tag)
    if not exercises:
        yield "no exercises (### Exercise 1: ...)"
    for title, found in exercises.items():
        if title is None or found != ["exercise-check", "solution"]:
            yield f"{title}: a cell tagged exercise-check, then one tagged solution, got {found}"
    for cell in chapter.tagged("exercise-check"):
        if "not answered yet" not in cell.source:
            yield f"an unanswered check must print 'not answered yet': {shown(cell)}"
    for cell in chapter.tagged("solution"):
        if "hide-cell" not in tags(cell) or not cell.metadata.get("jupyter", {}).get("source_hidden") \
                or cell.metadata.get("cellView") != "form":
            yield f"a solution that is not collapsed (make notebooks): {shown(cell)}"


def teaches_what_the_library_has(chapter):
    kinds = ast.ClassDef | ast.FunctionDef
    library = {node.name: ast.dump(node) for path in (ROOT / "d2l_utils").rglob("*.py")
               for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kinds)}
    for cell in chapter.tagged("taught"):
        defined = [node for node in tree(cell).body if isinstance(node, kinds)]
        if not defined:
            yield f"a taught cell defines no class or function: {shown(cell)}"
        for node in defined:
            if library.get(node.name) != ast.dump(node):
                yield f"{node.name} is not as in d2l_utils"


def makes_its_claims_from_the_record_alone(chapter):
    cells = chapter.tagged("recorded-claims")
    if calls(chapter, "recorded") and len(cells) != 1:
        yield f"one cell must be tagged recorded-claims, got {len(cells)}"
    for cell in cells:
        used = [name.name for node in ast.walk(tree(cell)) if isinstance(node, ast.Import) for name in node.names]
        used += [node.module for node in ast.walk(tree(cell)) if isinstance(node, ast.ImportFrom)]
        if foreign := [name for name in used if name.split(".")[0] not in {"d2l_utils", *sys.stdlib_module_names}]:
            yield f"recorded claims need only d2l and plain Python, not {foreign}"
        if "d2l.claim(" not in cell.source:
            yield "the cell tagged recorded-claims makes no claim"
    if not calls(chapter, "claim"):
        yield "no claim"


def takes_seeds_from_the_setup(chapter):
    for cell in chapter.tagged("live"):
        for node in ast.walk(tree(cell)):
            values = [word.value for word in getattr(node, "keywords", []) if word.arg == "seed"]
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "manual_seed":
                values += node.args
            if any(isinstance(value, ast.Constant) for value in values):
                yield f"a live cell must take SEED from the set-up cell: {shown(cell)}"


def links_to_what_exists(chapter):
    links = re.findall(r"\]\(([^)\s]+)\)", chapter.prose)
    for link in links:
        if not re.match(r"https?:|#", link) and not (chapter.folder / link.split("#")[0]).exists():
            yield f"a link to nothing: {link}"
    for call in calls(chapter, "recorded"):
        name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if not any(link.endswith(f"d2l_utils/recorded/{name}.csv") for link in links):
            yield f"no link to d2l_utils/recorded/{name}.csv"


def shows_progress_as_text(chapter):
    for cell in chapter.code:
        if re.search(r"tqdm\.(auto|notebook)|\bplt\.show\(|%matplotlib (widget|notebook)", cell.source):
            yield f"progress as tqdm's text bar and figures as d2l.show(fig, alt) or explore: {shown(cell)}"


RULES = [has_one_title_and_asks_a_question, has_the_skeleton, sets_up_from_the_repository, uses_known_tags,
         stores_outputs_only_where_they_are_compared, is_plain_commonmark, is_short, lets_every_exercise_be_checked,
         teaches_what_the_library_has, makes_its_claims_from_the_record_alone, takes_seeds_from_the_setup,
         links_to_what_exists, shows_progress_as_text]


def problems(book, folder):
    chapter = Chapter(book, folder)
    return [problem for rule in RULES for problem in rule(chapter)]


# The chapters

def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_keeps_the_rules(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert not problems(book, path.parent)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_make_notebooks_has_been_run(path):
    text = path.read_text(encoding="utf-8")
    assert tools.normal(text) == text, f"run `make notebooks`: {path.name} is not in the committed form"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_recorded_claims_hold_also_without_each_seed(path, monkeypatch):
    assert_claims_hold(Chapter(nbformat.read(path, as_version=4), path.parent), monkeypatch)


def assert_claims_hold(chapter, monkeypatch):
    """Run the recorded claims on all rows, then with each seed left out in turn."""
    recorded, seeds, left_out = d2l.recorded, set(), None

    def partly(name):
        table = recorded(name)
        seeds.update(table.seed)
        return table[table.seed != left_out].reset_index(drop=True)
    monkeypatch.setattr(d2l, "recorded", partly)
    for cell in chapter.tagged("recorded-claims"):
        left_out = None
        exec(cell.source, {"d2l": d2l})
        for left_out in sorted(seeds):
            try:
                exec(cell.source, {"d2l": d2l})
            except AssertionError as error:
                raise AssertionError(f"does not hold without seed {left_out}: {error}") from error
