"""`make address URL=...`: write the repository's address wherever the old one stands."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
ADDRESSED = ["*.md", "*.cff", "*.toml", "*.yml", "chapters/*", ".github/workflows/*", "_ext/*.py", "d2l_utils/**/*.py"]


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
        move(" ".join(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
