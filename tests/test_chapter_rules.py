"""tools/: a small chapter keeps every chapter rule, and each way to break one is seen; `make notebooks`."""

import chapter_rules
import nbformat
import notebooks
import pytest
from address import address
from chapter_rules import RULES, Chapter, broken, tags
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_chapters import assert_claims_hold

import d2l_utils as d2l


def markdown(text):
    return new_markdown_cell(text)


def code(text, *tags):
    return new_code_cell(text, metadata={"tags": list(tags)} if tags else {})


TAUGHT = '''class Half(Module):
    """Half of what is positive in X:
    (N, C) -> (N, C)."""

    def forward(self, X):
        return relu(X) / 2'''
CHECK = '''def check_two(answer):
    if answer is None:
        return "not answered yet"
    return "Right." if answer == 2 else "No: more."'''


def sample():
    """A chapter that keeps every rule."""
    summary = "\n".join(f"- line {i}" for i in range(5))
    shapes = code("print(1 + 1)", "nbval-check-output")
    shapes.outputs, shapes.execution_count = [new_output("stream", name="stdout", text="2\n")], 1
    book = new_notebook(cells=[
        markdown("# A title\n\nWhy?"), markdown("## What you will see\n\n- a\n- b\n- c\n\nAbout 5 minutes."),
        code(f"try:\n    import d2l_utils as d2l\nexcept ImportError:\n    %pip install -q git+{address()}\n"
             "    import d2l_utils as d2l\nSEED = 0", "setup"),
        markdown("## A section\n\n" + "word " * 1600), code(TAUGHT, "taught"), shapes,
        code("d2l.fit(net, data, 1, seed=SEED)", "live"),
        markdown("[The runs](../d2l_utils/recorded/sample.csv)"),
        code('runs = d2l.recorded("sample")\nd2l.claim("Errors fall.", (runs.error < 1).all())', "recorded-claims"),
        code('d2l.claim("Or rise.", (runs.error > 0).all())', "recorded-claims"),
        markdown(f"## Summary\n\n{summary}"), markdown("## Exercises\n\n### Exercise 1: more\n\nDo it."),
        code(CHECK, "exercise-check"), code("answer = None\nprint(check_two(answer))", "exercise"),
        code("print(check_two(2))", "solution"), markdown("## Further reading\n\n- a paper")])
    return nbformat.reads(notebooks.normal(nbformat.writes(book)), as_version=4)


def said(book, folder):
    """What is wrong with a chapter, in one line."""
    return " | ".join(text for wrong in broken(book, folder / "sample.ipynb").values() for text in wrong)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the sample stands: beside it, the record it links to, the code it teaches, and other code of that name."""
    monkeypatch.setattr(chapter_rules, "ROOT", tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "half.py").write_text(TAUGHT.replace(":\n    (N", ": (N"))
    (tmp_path / "d2l_utils" / "recorded").mkdir(parents=True)
    (tmp_path / "d2l_utils" / "recorded" / "sample.csv").write_text("seed,error\n0,0.1\n1,0.2\n")
    (tmp_path / "d2l_utils" / "other.py").write_text("class Half:\n    pass\n")
    (tmp_path / "chapters").mkdir()
    return tmp_path / "chapters"


def cell_of(book, tag):
    return next(cell for cell in book.cells if tag in tags(cell))


def replace(old, new):
    """A way to break a chapter: `new` in place of `old` wherever it stands."""
    def breaks(book):
        assert any(old in cell.source for cell in book.cells)
        for cell in book.cells:
            cell.source = cell.source.replace(old, new)
    return breaks


def drop(tag):
    return lambda book: book.cells.remove(cell_of(book, tag))


def add(text, *tags):
    return lambda book: book.cells.insert(5, code(text, *tags))


def untag(tag):
    return lambda book: cell_of(book, tag).metadata.tags.remove(tag)


def no_exercises(book):
    replace("### Exercise 1: more", "")(book)
    for tag in ("exercise-check", "exercise", "solution"):
        drop(tag)(book)


def drop_claims(book):
    for cell in [cell for cell in book.cells if "recorded-claims" in tags(cell)]:
        cell.metadata.tags.remove("recorded-claims")


def set_(tag, **values):
    return lambda book: cell_of(book, tag).update(values)


def unfold(tag):
    def breaks(book):
        del cell_of(book, tag).metadata["cellView"]
    return breaks


BREAKING = [
    (replace("# A title", "A title"), "only H1"), (replace("## A section", "# A section"), "only H1"),
    (replace("Why?", "Why."), "question"), (replace("- c\n", ""), "three bullets"),
    (replace("5 minutes", "a while"), "how many minutes"), (replace("## Summary", "## The end"), "sections must be"),
    (replace("- line 4", ""), "Summary must have five lines"), (untag("setup"), "tagged setup"),
    (replace("git+https", "git+http"), "must install git+"), (replace("SEED = 0", ""), "set SEED"),
    (add("1", "solutoin"), "unknown tags ['solutoin']"),
    (set_("live", outputs=[new_output("stream", text="1")]), "a stored output"),
    (set_("live", execution_count=3), "a stored output"),
    (set_("nbval-check-output", execution_count=None), "no stored text"),
    (set_("nbval-check-output", outputs=[]), "no stored text"),
    (set_("nbval-check-output", outputs=[new_output("display_data", data={"image/png": "a"})]), "no stored text"),
    (replace("Do it.", "```{note}\nDo it.\n```"), "MyST syntax"), (replace("Do it.", ":::{note}\n:::"), "MyST syntax"),
    (replace("Do it.", "See {ref}`this`."), "MyST syntax"), (replace("Do it.", "(here)=\n"), "MyST syntax"),
    (replace("Do it.", "![a](a.png)"), "an image file"), (replace("Do it.", '<img src="a.png">'), "an image file"),
    (add("a = 1\n" * 26), "more than 25"), (lambda book: book.cells.extend([code("a = 1\n" * 9)] * 9), "median"),
    (replace("word ", ""), "words of prose"), (replace("word", "word word"), "words of prose"),
    (drop("exercise-check"), "got ['exercise', 'solution']"), (drop("solution"), "got ['exercise-check', 'exercise']"),
    (drop("exercise"), "got ['exercise-check', 'solution']"),
    (replace("### Exercise 1", "### Task 1"), "None: a cell tagged"),
    (replace("not answered yet", "?"), "'not answered yet'"), (replace("def check_two", "def two"), "one check_NAME"),
    (replace("answer = None", "answer = 2"), "answer = None"),
    (replace("print(check_two(answer))", ""), "check_two(answer)"),
    (replace("print(check_two(2))", "print(2)"), "the solution's last line"), (unfold("exercise-check"), "not folded"),
    (unfold("solution"), "not folded"), (no_exercises, "no exercises"),
    (add("def check_two(answer):\n    return 1"), "defines check_two anew"),
    (add("a = 1" + " " * 70 + "# 1"), "columns of code"), (replace("Do it.", "    " + "a" * 73), "columns of code"),
    (replace("relu(", "elu("), "Half is not as in d2l_utils or experiments"),
    (replace("of what", "of all that"), "Half is not as in"),
    (add("class Half:\n    a = 1", "taught"), "Half is not as in"),
    (add("a = 1", "taught"), "defines no class"), (drop_claims, "no claim in a cell tagged recorded-claims"),
    (replace("(runs.error < 1).all()", "(runs.error < 1).all() and True"), "two statements in one claim"),
    (replace('"Or rise.", (', '"Or rise.", holds=True and ('), "two statements in one claim"),
    (replace('"Or rise."', '"Or rise"'), "with its full stop"),
    (replace('"Or rise."', 'f"Or {SEED}"'), "with its full stop"),
    (replace("runs = ", "import torch\nruns = "), "not ['torch']"), (replace("d2l.claim(", "print("), "no claim"),
    (replace("seed=SEED", "seed=0"), "must take SEED"), (add("torch.manual_seed(1)", "live"), "must take SEED"),
    (replace("- a paper", "[a](../nowhere.md)"), "a link to nothing"),
    (replace("sample.csv", "other.csv"), "no link to d2l_utils/recorded/sample.csv"),
    (add("from tqdm.auto import tqdm"), "progress"), (add("plt.show()"), "d2l.show")]


def test_sample_keeps_every_rule(folder):
    book = sample()
    nbformat.validate(book)
    assert said(book, folder) == ""


@pytest.mark.parametrize(("breaks", "message"), BREAKING, ids=[f"{i}: {text}" for i, (_, text) in enumerate(BREAKING)])
def test_broken_rule_is_seen(folder, breaks, message):
    book = sample()
    breaks(book)
    assert message in said(book, folder)


def test_a_source_under_the_figure_is_a_link_to_its_record(folder):
    book = sample()
    replace("[The runs](../d2l_utils/recorded/sample.csv)", "The runs.")(book)
    assert "no link to d2l_utils/recorded/sample.csv" in said(book, folder)
    add('d2l.source("sample")')(book)
    assert said(book, folder) == ""


def test_every_rule_has_a_chapter_that_breaks_it(folder):
    seen = set()
    for breaks, _ in BREAKING:
        book = sample()
        breaks(book)
        seen |= {rule for rule in RULES if any(rule(Chapter(book, folder / "sample.ipynb")))}
    assert seen == set(RULES)


def test_claim_that_needs_one_seed_or_a_name_from_elsewhere_fails(folder, monkeypatch):
    read = d2l.recorded
    monkeypatch.setattr(d2l, "recorded", lambda name: read(name, folder.parent / "d2l_utils" / "recorded"))
    book = sample()
    with monkeypatch.context() as patch:
        assert_claims_hold(Chapter(book, folder / "sample.ipynb"), patch)
    for old, new, error in [("< 1).all()", "> 0.15).any()", "does not hold without seed 1: Errors fall."),
                            ("< 1).all()", "> 1).all()", "^Errors fall."), ("runs.error", "other.error", "other")]:
        wrong = sample()
        replace(old, new)(wrong)
        with monkeypatch.context() as patch, pytest.raises((AssertionError, NameError), match=error):
            assert_claims_hold(Chapter(wrong, folder / "sample.ipynb"), patch)


# The list of pages that do not keep a rule yet, and the index

@pytest.fixture
def book(folder):
    """A book of the sample and an index."""
    nbformat.write(sample(), folder / "sample.ipynb")
    (folder.parent / "index.md").write_text("# A book\n\n```{code-cell} ipython3\na = 1\n```\n")
    return folder.parent


def test_book_without_fault_has_no_problems_and_one_with_a_fault_has(book, monkeypatch):
    monkeypatch.setattr(chapter_rules, "NOT_YET", {})
    (book / "chapters" / "sample.ipynb").write_text(notebooks.normal((book / "chapters" / "sample.ipynb").read_text()))
    assert chapter_rules.problems(book) == []
    wide = (book / "index.md").read_text().replace("a = 1", "a = 1" + " " * 70 + "# 1")
    (book / "index.md").write_text(wide)
    unfinished = sample()
    set_("live", outputs=[new_output("stream", text="1")])(unfinished)
    nbformat.write(unfinished, book / "chapters" / "sample.ipynb")
    said = " | ".join(chapter_rules.problems(book))
    assert "index: 78 columns of code" in said
    assert "sample: a stored output" in said
    assert "sample: run `make notebooks`" in said
    monkeypatch.setattr(chapter_rules, "NOT_YET", {"fits_the_column": {"index"}})
    assert "columns" not in " | ".join(chapter_rules.problems(book))


def test_page_that_keeps_a_rule_must_leave_the_list(book, monkeypatch):
    monkeypatch.setattr(chapter_rules, "NOT_YET", {"fits_the_column": {"index", "gone"}})
    said = chapter_rules.problems(book)
    assert {"index keeps fits_the_column now: take it off NOT_YET",
            "gone keeps fits_the_column now: take it off NOT_YET"} <= set(said)


# make notebooks

def test_normal_form_is_reached_once_and_kept(tmp_path, capsys):
    book = sample()
    shapes = cell_of(book, "nbval-check-output")
    cell_of(book, "live").update(outputs=[new_output("stream", text="1")], execution_count=3)
    cell_of(book, "live").metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    for tag in ("solution", "exercise-check"):
        cell_of(book, tag).metadata = nbformat.from_dict({"tags": [tag]})
    book.cells.append(code("\n"))
    book.metadata = nbformat.from_dict({"kernelspec": {"name": "mine", "display_name": "Mine"}, "colab": {"a": 1}})
    (tmp_path / "chapters").mkdir()
    path = tmp_path / "chapters" / "a.ipynb"
    nbformat.write(book, path)
    notebooks.notebooks(tmp_path)
    assert capsys.readouterr().out == f"{path.relative_to(tmp_path)}\n"
    assert path.read_text() == notebooks.normal(path.read_text())
    notebooks.notebooks(tmp_path)
    assert capsys.readouterr().out == ""
    assert [cell.source for cell in nbformat.read(path, 4).cells] == [cell.source for cell in sample().cells]
    new = nbformat.read(path, as_version=4)
    assert said(new, ROOT / "chapters") == said(sample(), ROOT / "chapters")
    assert cell_of(new, "nbval-check-output").outputs == shapes.outputs
    assert set(cell_of(new, "live").metadata) == {"tags"}
    assert set(new.metadata) == {"kernelspec", "language_info"}
