"""`make lint`: the form of every chapter (chapters/*.ipynb), and of index.md where it has code. A chapter is

    cell (in this order)     kind            tags                     what
    # Title                  markdown                                 the only H1; below it the question
    ## What you will see     markdown                                 three bullets and the minutes it takes
    set-up                   code            setup                    installs d2l_utils when it is missing, from the
                                                                      address in _config.yml; imports; SEED = 0
    ## sections ...          markdown, code                           question, short cell, what to notice, claim
    live training            code            live                     trains in the cell; takes SEED from the set-up
    code taught in full      code            taught                   the same syntax tree as in d2l_utils/ or
                                                                      experiments/ (lines may break elsewhere)
    a cell that only draws   code            hide-input               folded in the book
    explore(...)             code                                     one explorer a cell, render above or in it
    link to the CSV          code                                     d2l.source("NAME") under each recorded figure, or
                                                                      [data](../d2l_utils/recorded/NAME.csv) in the text
    recorded claims          code            recorded-claims          near their figure; together, in one namespace,
                                                                      they need only d2l and plain Python
    ## Summary               markdown                                 five lines
    ## Exercises             markdown
    ### Exercise 1: ...      markdown                                 the task
    its checker              code            exercise-check,          check_NAME(answer), which returns
                                             hide-input               "not answered yet" for None, a sentence that
                                                                      begins with "Right" for a right answer only, and
                                                                      else a hint that does not give the answer away;
                                                                      needs no more than the set-up's imports
    the reader's cell        code            exercise                 answer = None; print(check_NAME(answer))
    its solution             code            solution, hide-cell      executed; last line print(check_NAME(solution))
    ## Further reading       markdown

| limit | |
| --- | --- |
| lines of code, also in prose and on the index | 76 columns (what a page shows without scrolling) |
| lines in a cell | 25, unless it is `taught`; the median is at most 4, without blank lines and comments |
| words of prose | 1,500 to 3,000, or what WORDS says |
| a recorded claim | one statement: not "this and that" |
| outputs | stored in cells tagged `nbval-check-output` only (run them, save, `make notebooks`) |
| language | plain CommonMark and $maths$: no MyST directives, no image files |

Another tag: `raises-exception` (the lesson is the error). That every `render` works over its whole grid is the book
build's to show: there explore() makes every frame, and one that fails stops it.
"""

import ast
import copy
import re
import statistics
import sys
from pathlib import Path

import nbformat
from address import address
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import normal

ROOT = Path(__file__).parent.parent
COLUMNS, LINES, MEDIAN = 76, 25, 4
WORDS = {"default": (1500, 3000), "01_degradation": (1500, 2200), "05_training": (1500, 2500),
         "06_gradients": (1500, 2500), "07_without_shortcuts": (1500, 2500), "08_inside": (1500, 2500),
         "09_super_resolution": (1500, 2200), "10_pretrained": (1500, 2200), "11_thousand_layers": (1000, 1500),
         "A_fair_race": (1000, 2000), "B_speed": (1000, 2000), "C_scaling_out": (600, 1200)}
TAGS = {"setup", "live", "taught", "hide-input", "hide-cell", "recorded-claims", "exercise-check", "exercise",
        "solution", "nbval-check-output", "raises-exception"}
MYST = r"^\s*(?:```|:::+|~~~)\s*\{|\{[\w:-]+\}`|^\([\w-]+\)=\s*$|^% |^\+\+\+|\[\]\(#?[\w-]*\)"
IMAGE = r"!\[|<img\b|<iframe\b|<video\b"
# Pages that do not keep a rule yet. A page that keeps it must leave the list: test_chapters.py sees to that.
NOT_YET = {
    "fits_the_column": set(),
    "makes_one_statement_a_claim": set(),
}


class Chapter:
    """A notebook's cells by kind and tag; `path` is where its relative links start."""

    def __init__(self, book, path):
        self.name, self.folder, self.cells = path.stem, path.parent, book.cells
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


def calls(cells, name):
    """The calls of d2l.NAME in these cells."""
    return [node for cell in cells for node in ast.walk(tree(cell)) if isinstance(node, ast.Call)
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
    elif f"git+{address()}" not in re.findall(r"git\+[^\s\"']+", cells[0].source):
        yield f"the set-up cell must install git+{address()}"
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
        if len(cell.source.splitlines()) > LINES and "taught" not in tags(cell):
            yield f"{len(cell.source.splitlines())} lines, more than {LINES}, in {shown(cell)}"
    if (median := statistics.median(len(lines(cell)) for cell in chapter.code)) > MEDIAN:
        yield f"the median cell has {median:g} lines, more than {MEDIAN}"
    words = len(re.findall(r"\w[\w'.,-]*", re.sub(r"\]\([^)]*\)|\$+[^$]+\$+", " ", chapter.prose)))
    least, most = WORDS.get(chapter.name, WORDS["default"])
    if not least <= words <= most:
        yield f"{words} words of prose, not {least:,} to {most:,}"


def fits_the_column(chapter):
    for cell in chapter.cells:
        code = cell.source.splitlines() if cell.cell_type == "code" else re.findall(r"^    .*$", cell.source, re.M)
        for line in code:
            if len(line) > COLUMNS:
                yield f"{len(line)} columns of code, more than {COLUMNS}: {line.strip()[:60]!r}"


def lets_every_exercise_be_checked(chapter):
    exercises, current = {}, None
    for cell in chapter.cells:
        if cell.cell_type == "markdown" and (headings := re.findall(r"^#{1,3} (.+)$", cell.source, re.M)):
            current = headings[-1] if headings[-1].startswith("Exercise ") else None
            exercises |= {current: []} if current else {}
        if {"exercise-check", "exercise", "solution"} & set(tags(cell)):
            exercises.setdefault(current, []).append(cell)
    if not exercises:
        yield "no exercises (### Exercise 1: ...)"
    for title, cells in exercises.items():
        found = [next(tag for tag in tags(cell) if tag in ("exercise-check", "exercise", "solution")) for cell in cells]
        if title is None or found != ["exercise-check", "exercise", "solution"]:
            yield f"{title}: a cell tagged exercise-check, one tagged exercise, one tagged solution, got {found}"
        else:
            yield from (f"{title}: {problem}" for problem in exercise_problems(*cells))
            for name in functions(cells[:1]) & functions(cell for cell in chapter.code if cell is not cells[0]):
                yield f"{title}: its checker's cell defines {name} anew"


def functions(cells):
    """The names of the functions that these cells define."""
    return {node.name for cell in cells for node in tree(cell).body if isinstance(node, ast.FunctionDef)}


def exercise_problems(check, exercise, solution):
    """What is wrong with an exercise's three cells."""
    names = [name for name in functions([check]) if name.startswith("check_")]
    if len(names) != 1 or "not answered yet" not in check.source:
        yield f"its checker must define one check_NAME that knows 'not answered yet', got {names}"
        return
    if not exercise.source.startswith("answer = None") or f"{names[0]}(answer)" not in exercise.source:
        yield f"the reader's cell must start with answer = None and show {names[0]}(answer)"
    last = ast.unparse(tree(solution).body[-1])
    if not last.startswith(f"print({names[0]}("):
        yield f"the solution's last line must be print({names[0]}(...)), got {last[:60]!r}"
    for cell in (check, solution):
        if not cell.metadata.get("jupyter", {}).get("source_hidden") or cell.metadata.get("cellView") != "form":
            yield f"a cell that is not folded (make notebooks): {shown(cell)}"


def said_alike(node):
    """A class or function in a form in which two can be compared: docstrings may be broken elsewhere."""
    node = copy.deepcopy(node)
    for part in ast.walk(node):
        if isinstance(part, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(part)):
            part.body[0].value.value = " ".join(text.split())
    return ast.dump(node)


def teaches_what_the_library_has(chapter):
    kinds, library = ast.ClassDef | ast.FunctionDef, {}
    for path in [*(ROOT / "d2l_utils").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, kinds):
                library.setdefault(node.name, []).append(said_alike(node))
    for cell in chapter.tagged("taught"):
        defined = [node for node in tree(cell).body if isinstance(node, kinds)]
        if not defined:
            yield f"a taught cell defines no class or function: {shown(cell)}"
        for node in defined:
            if said_alike(node) not in library.get(node.name, []):
                yield f"{node.name} is not as in d2l_utils or experiments"


def makes_its_claims_from_the_record_alone(chapter):
    cells = chapter.tagged("recorded-claims")
    if calls(chapter.code, "recorded") and not calls(cells, "claim"):
        yield "no claim in a cell tagged recorded-claims"
    for cell in cells:
        used = [name.name for node in ast.walk(tree(cell)) if isinstance(node, ast.Import) for name in node.names]
        used += [node.module for node in ast.walk(tree(cell)) if isinstance(node, ast.ImportFrom)]
        if foreign := [name for name in used if name.split(".")[0] not in {"d2l_utils", *sys.stdlib_module_names}]:
            yield f"recorded claims need only d2l and plain Python, not {foreign}"
    if not calls(chapter.code, "claim"):
        yield "no claim"


def makes_one_statement_a_claim(chapter):
    for call in calls(chapter.tagged("recorded-claims"), "claim"):
        holds = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "holds")]
        if any(isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And) for node in holds):
            yield f"two statements in one claim: {ast.unparse(call)[:60]!r}"
    for call in calls(chapter.code, "claim"):
        if isinstance(call.args[0], (ast.Constant, ast.JoinedStr)) and ast.unparse(call.args[0])[-2] != ".":
            yield f"a claim is a sentence, with its full stop: {ast.unparse(call)[:60]!r}"


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
    linked = {Path(link).stem for link in links if link.endswith(".csv") and "d2l_utils/recorded/" in link}
    linked |= {call.args[0].value for call in calls(chapter.code, "source") if isinstance(call.args[0], ast.Constant)}
    for call in calls(chapter.code, "recorded"):
        name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if name not in linked:
            yield f"no d2l.source({name!r}) and no link to d2l_utils/recorded/{name}.csv"


def shows_progress_as_text(chapter):
    for cell in chapter.code:
        if re.search(r"tqdm\.(auto|notebook)|\bplt\.show\(|%matplotlib (widget|notebook)", cell.source):
            yield f"progress as tqdm's text bar and figures as d2l.show(fig, alt) or explore: {shown(cell)}"


RULES = [has_one_title_and_asks_a_question, has_the_skeleton, sets_up_from_the_repository, uses_known_tags,
         stores_outputs_only_where_they_are_compared, is_plain_commonmark, is_short, fits_the_column,
         lets_every_exercise_be_checked, teaches_what_the_library_has, makes_its_claims_from_the_record_alone,
         makes_one_statement_a_claim, takes_seeds_from_the_setup, links_to_what_exists, shows_progress_as_text]
INDEX_RULES = [fits_the_column]


def broken(book, path, rules=RULES):
    """{rule's name: what is wrong} for the notebook `book` that stands at `path`."""
    chapter = Chapter(book, path)
    found = {rule.__name__: list(rule(chapter)) for rule in rules}
    return {name: wrong for name, wrong in found.items() if wrong}


def page(path):
    """What is wrong with one page by rule, and its notebook: a chapter's, or the code cells of a MyST page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", text, re.S | re.M)
        return broken(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path, INDEX_RULES)
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    found = broken(book, path)
    if normal(text) != text:
        found["is_in_the_committed_form"] = ["run `make notebooks`"]
    return found


def pages(root=ROOT):
    """The pages that have code: the index and every chapter."""
    return [root / "index.md", *sorted((root / "chapters").glob("*.ipynb"))]


def problems(root=ROOT):
    """What is wrong with the book's pages, a sentence each; also a page that stands in NOT_YET without need."""
    said, found = [], {path.stem: page(path) for path in pages(root)}
    for name, by_rule in found.items():
        said += [f"{name}: {wrong}" for rule, all_wrong in by_rule.items() for wrong in all_wrong
                 if name not in NOT_YET.get(rule, ())]
    said += [f"{name} keeps {rule} now: take it off NOT_YET" for rule, names in NOT_YET.items()
             for name in sorted(names) if rule not in found.get(name, ())]
    return said


if __name__ == "__main__":
    if found := problems():
        sys.exit("\n".join(found))
