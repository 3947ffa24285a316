"""The house has three storeys and stays small: arrows go book -> lesson -> engine; the lesson goes left to right."""

import ast
from importlib.util import resolve_name

import pytest
from conftest import ROOT

PACKAGE = ROOT / "d2l_utils"
LESSON = ["data", "blocks", "resnet", "training", "probes", "anatomy", "plots"]  # a file imports from its left
FILES = sorted(PACKAGE.rglob("*.py"))


def module(path):
    """("lesson", "data") for d2l_utils/data.py, ("engine", "files") for d2l_utils/engine/files.py, ..."""
    *folder, name = path.relative_to(PACKAGE).with_suffix("").parts
    return (folder[0] if folder else "face" if name == "__init__" else "lesson"), name


def imported(tree, package="d2l_utils"):
    """The modules of d2l_utils that a file of `package` imports, wherever it does, as `module` names them."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names += [name if file(name) else base for name in inner]
    return {module(file(name)) for name in names if file(name)}


def file(name):
    """Where the module of this name lives, if it is one of ours."""
    path = ROOT.joinpath(*name.split("."))
    places = [path.with_suffix(".py"), path / "__init__.py"] if name.split(".")[0] == "d2l_utils" else []
    return next((place for place in places if place.is_file()), None)


def arrows():
    """(from, to) of every import inside the package."""
    return [(module(path), there) for path in FILES for there in sorted(imported(
        ast.parse(path.read_text("utf-8")), ".".join(path.parent.relative_to(ROOT).parts)))]


def test_no_arrow_goes_up():
    allowed = {"engine": {"engine"}, "lesson": {"lesson", "engine"}, "book": {"book", "lesson", "engine"}}
    allowed["face"] = allowed["book"]
    assert len(arrows()) > 10
    assert [(here, there) for here, there in arrows() if there[0] not in allowed[here[0]]] == []


def test_lesson_is_read_from_left_to_right():
    assert {name for storey, name in map(module, FILES) if storey == "lesson"} <= set(LESSON)
    inside = [(here[1], there[1]) for here, there in arrows() if here[0] == there[0] == "lesson"]
    assert [(here, there) for here, there in inside if LESSON.index(there) >= LESSON.index(here)] == []


def test_lesson_and_package_are_small():
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in FILES}
    lesson = sum(count for path, count in lines.items() if module(path)[0] in ("lesson", "face"))
    print(f"{lesson} lines in the lesson with its face, {sum(lines.values())} in the package")
    assert lesson <= 1050
    assert sum(lines.values()) <= 2938          # what stands; the design hoped for 2,600: it may only fall


@pytest.mark.parametrize("folder", ["d2l_utils", "experiments", "_ext", "tools"])
def test_no_function_is_longer_than_forty_lines(folder):
    functions = [(path.name, node.name, node.end_lineno - node.lineno + 1) for path in (ROOT / folder).rglob("*.py")
                 for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    assert functions
    assert [found for found in functions if found[2] > 40] == []


@pytest.mark.parametrize(("text", "there"), [
    ("import d2l_utils.book.lab", ("book", "lab")), ("from d2l_utils.engine import files", ("engine", "files")),
    ("def f():\n    from d2l_utils.data import STD", ("lesson", "data")),
    ("from .lab import train_lab", ("book", "lab")),
    ("from .. import plots as p", ("lesson", "plots")), ("from ..data import STD", ("lesson", "data")),
    ("from .. import fit", ("face", "__init__")), ("import d2l_utils as d2l", ("face", "__init__"))])
def test_an_arrow_is_found_however_it_is_written(text, there):
    assert imported(ast.parse(text), "d2l_utils.book") == {there}
    assert imported(ast.parse("import torch\nfrom json import loads"), "d2l_utils.book") == set()
