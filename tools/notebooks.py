"""`make notebooks`: bring chapters/*.ipynb into the committed form."""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}
FOLDED = {"solution": "hide-cell", "exercise-check": "hide-input"}            # tags that bring another one


def normal(text):
    """A notebook's text in the committed form: outputs only where nbval compares them, no timestamps, no editor's
    metadata, no empty cells; what the book folds (checkers and solutions always) is folded in Jupyter and Colab too."""
    book = nbformat.v4.upgrade(nbformat.reads(text, as_version=4))
    book.metadata = nbformat.from_dict(METADATA)
    book.cells = [cell for cell in book.cells if cell.source.strip()]
    for cell in book.cells:
        cell.source = cell.source.strip("\n").rstrip()
        tags = cell.metadata.get("tags", [])
        tags = list(dict.fromkeys([*tags, *(FOLDED[tag] for tag in tags if tag in FOLDED)]))
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if {"hide-cell", "hide-input"} & set(tags):
            cell.metadata.update(nbformat.from_dict({"jupyter": {"source_hidden": True}, "cellView": "form"}))
        if cell.cell_type == "code" and "nbval-check-output" not in tags:
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(book) + "\n"


def notebooks(root=ROOT):
    """Rewrite the chapters that are not in the committed form; print their names."""
    for path in sorted((root / "chapters").glob("*.ipynb")):
        old = path.read_text(encoding="utf-8")
        if (new := normal(old)) != old:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(root))


if __name__ == "__main__":
    notebooks()
