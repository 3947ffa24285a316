"""`make notebooks`: the committed form of the chapters. `make address`: the repository's address, everywhere."""

import re
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parent.parent
ADDRESSED = ["*.md", "*.cff", "*.toml", "*.yml", "chapters/*", ".github/workflows/*", "_ext/*.py", "d2l_utils/**/*.py"]
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def normal(text):
    """A notebook's text in the committed form: outputs only where nbval compares them, no timestamps, no editor's
    metadata, no empty cells; what the book collapses (solutions always) is collapsed in Jupyter and in Colab too."""
    book = nbformat.v4.upgrade(nbformat.reads(text, as_version=4))
    book.metadata = nbformat.from_dict(METADATA)
    book.cells = [cell for cell in book.cells if cell.source.strip()]
    for cell in book.cells:
        cell.source = cell.source.strip("\n").rstrip()
        tags = list(dict.fromkeys(cell.metadata.get("tags", [])))
        if "solution" in tags and "hide-cell" not in tags:
            tags.append("hide-cell")
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


def slug(url):
    """(owner, name) of a GitHub address; ValueError for another."""
    match = re.fullmatch(r"https://github\.com/([\w-]+)/([\w.-]+?)(?:\.git)?/?", url)
    if not match:
        raise ValueError(f"URL must look like https://github.com/me/residual-networks, got {url!r}")
    return match.groups()


def address(root=ROOT):
    """The repository's address, which stands in _config.yml."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def move(url, root=ROOT):
    """Write `url` wherever the old address stands: repository, Colab, Binder and Pages links; print the files."""
    (owner, name), (new_owner, new_name) = slug(address(root)), slug(url)
    old = re.compile(rf"(?<![\w.-]){re.escape(owner)}(/|\.github\.io/){re.escape(name)}(?![\w-])")
    for path in sorted(path for pattern in ADDRESSED for path in root.glob(pattern) if path.is_file()):
        text = path.read_text(encoding="utf-8")
        changed, count = old.subn(rf"{new_owner}\g<1>{new_name}", text)
        if changed != text:
            path.write_text(changed, encoding="utf-8")
            print(f"{path.relative_to(root)}: {count}")


if __name__ == "__main__":
    try:
        {"notebooks": notebooks, "address": move}[sys.argv[1]](*sys.argv[2:])
    except ValueError as error:
        sys.exit(str(error))
