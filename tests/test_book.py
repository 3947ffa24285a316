"""The built book: links, anchors and assets are there, nothing comes from elsewhere, pictures have words.

Reads the pages that `make book` built; what a browser makes of them is test_browser.py's subject.
"""

import gzip
import re
import struct
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from pygments.lexers import JavascriptLexer
from pygments.token import Comment, String
from rjsmin import jsmin

import d2l_utils as d2l

LOADED = {"script": ["src"], "img": ["src", "srcset"], "iframe": ["src"], "source": ["src", "srcset"],
          "video": ["src", "poster"], "audio": ["src"], "embed": ["src"], "object": ["data"], "image": ["href"],
          "use": ["href"], "input": ["src"]}
LOADING = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


class Page:
    """A page's ids, the links it offers, the assets it loads, and what is wrong with it at once."""

    def __init__(self, text):
        soup = BeautifulSoup(text, "html.parser")
        self.ids = [tag["id"] for tag in soup.select("[id]")]
        self.links = [tag["href"] for tag in soup.select("a[href]")]
        self.assets = [tag.get("href", "") for tag in soup.select("link") if LOADING & set(tag.get("rel", []))]
        self.assets += [tag[name].split()[0] for kind, names in LOADED.items() for tag in soup.select(kind)
                        for name in names if tag.get(name)]
        for css in [*(tag["style"] for tag in soup.select("[style]")), *(tag.text for tag in soup.select("style"))]:
            self.assets += imported(css)
        self.wrong = [f"a picture without alt text: {tag.get('src', '')[:60]}" for tag in soup.select("img")
                      if not tag.get("alt", "").strip() or "_images/" in tag["alt"]]
        self.wrong += ["an svg picture without aria-label" for tag in soup.select("svg[role=img]")
                       if not tag.get("aria-label", "").strip()]
        self.wrong += ["a traceback outside a cell tagged raises-exception" for tag in soup.select(".traceback")
                       if not tag.find_parent(class_="tag_raises-exception")]


def imported(css):
    """What a style sheet loads."""
    return re.findall(r"""(?:url\(\s*["']?|@import\s+["'])([^"')\s]+)""", css)


def problems(site):
    """What is wrong with the pages in the folder `site`, a sentence each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if "_static" in path.parts:                           # templates of the theme, never shown as pages
            continue
        wrong = page.wrong + [f"the id {name!r} twice" for name in set(page.ids) if page.ids.count(name) > 1]
        for target in page.assets:
            wrong += check_asset(target, path, site)
        for target in page.links:
            wrong += check_link(target, path, site, pages)
        found += [f"{path.relative_to(site)}: {text}" for text in wrong]
    for path in site.rglob("*.css"):
        for target in imported(path.read_text(encoding="utf-8")):
            found += [f"{path.relative_to(site)}: {text}" for text in check_asset(target, path, site)]
    return found


def file_of(target, path, site):
    """The file that a relative address on the page `path` means."""
    place = unquote(urlsplit(target).path)
    file = (site / place.lstrip("/") if place.startswith("/") else path.parent / place) if place else path
    return (file / "index.html" if file.is_dir() else file).resolve()


def check_asset(target, path, site):
    if target.startswith(("data:", "#")):
        return
    if re.match(r"([\w+.-]+:)?//", target):
        yield f"loads {target} from elsewhere"
    elif not file_of(target, path, site).is_file():
        yield f"loads {target}, which is not there"


def check_link(target, path, site, pages):
    if re.match(r"([\w+.-]+:)?//|mailto:", target):
        return
    file, anchor = file_of(target, path, site), unquote(urlsplit(target).fragment).split("?")[0]
    if not file.is_file():
        yield f"links to {target}, which is not there"
    elif anchor and file in pages and anchor not in pages[file].ids:
        yield f"links to {target}, which has no such anchor"


# The book

def test_site_is_sound(site):
    assert problems(site.resolve()) == []


def test_every_chapter_has_a_page_with_its_data_to_download(site):
    for path in (ROOT / "chapters").glob("*.ipynb"):
        page = (site / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8")
        for name in set(re.findall(r"d2l_utils/recorded/(\w+)\.csv", path.read_text(encoding="utf-8"))):
            assert re.search(rf'href="[^"]*\b{name}\.csv"', page), f"{path.stem}: no link to {name}.csv"


def test_every_solution_is_right_on_its_page(site):
    """The solutions that the build executed, in order of the chapter; what they are is test_exercises.py's subject."""
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        page = BeautifulSoup((site / "chapters" / f"{path.stem}.html").read_text(encoding="utf-8"), "html.parser")
        said = [cell.select_one(".cell_output").text.strip().splitlines()[-1] for cell in page.select(".tag_solution")]
        assert said, path.stem
        assert [line for line in said if not line.startswith("Right")] == []
        unanswered = [cell.select_one(".cell_output").text.strip() for cell in page.select(".tag_exercise")]
        assert len(unanswered) == len(said)
        assert [line for line in unanswered if not line.startswith("not answered yet")] == []


def test_what_has_moved_is_where_its_old_address_leads(site, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "_ext")
    from book import MOVED
    for page, places in MOVED.items():
        path, ids = site / f"{page}.html", {}
        assert path.is_file(), page
        for name, target in places.items():
            file = file_of(target, path, site)
            ids[file] = ids.get(file) or Page(file.read_text(encoding="utf-8")).ids
            anchor = urlsplit(target).fragment
            assert not anchor or anchor in ids[file], f"{page}#{name} leads to {target}"
            own = Page(path.read_text(encoding="utf-8")).ids
            assert "" in places or name not in own, f"{page}#{name} is there"


def chapters(site):
    """{file's stem: its parsed page} of the chapters, and of the first page."""
    written = sorted((ROOT / "chapters").glob("*.ipynb"))
    files = {"index": site / "index.html"} | {path.stem: site / f"chapters/{path.stem}.html" for path in written}
    return {name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for name, path in files.items()
            if path.is_file()}


@pytest.mark.parametrize(("page", "number"), [
    ("chapters/01_degradation", "1"), ("chapters/10_pretrained", "10"), ("chapters/A_fair_race", "A"), ("index", None),
    ("chapters/notes", None), ("chapters/Aside_1", None), ("12_a/notes", None)])
def test_a_page_has_the_number_of_its_file(page, number):
    from pages import number_of
    assert number_of(page) == number


def test_a_chapters_number_is_seen_wherever_it_is_named(site):
    from pages import number_of
    found = chapters(site)
    for name, page in found.items():
        assert name == "index" or page.h1.text.startswith(f"{number_of(name)}. "), name
        assert page.title.text.count("Residual Networks, by Experiment") == 1
        for link in page.select("a[href]"):
            place, words = link["href"].split("#")[0], " ".join(link.text.split())
            number = number_of(place)
            if not number or not place.endswith(".html"):
                continue
            if link.find_parent(class_=["bd-sidebar-primary", "prev-next-area"]):
                assert re.match(rf"(previous |next )?{number}\. ", words), f"{name}: {words}"
            elif link.parent.get("class") == ["page-cards"]:
                assert link.select_one(".page-label").text.startswith((f"Chapter {number} ", f"Appendix {number} "))
            elif match := re.fullmatch(r"(?:([Cc]hapter|[Aa]ppendix) )?(\d+|[A-Z])", words):
                assert match[2] == number, f"{name}: {words} leads to {place}"
                assert (match[1] or "chapter").lower() == ("chapter" if number.isdigit() else "appendix")


def test_no_reader_of_a_page_meets_the_set_up_first(site):
    for name, page in chapters(site).items():
        for cell in page.select(".tag_setup"):
            assert not cell.details.has_attr("open")
            assert cell.details.select_one(".cell_input"), name
        assert name == "index" or len(page.select(".tag_setup")) == 1


def test_each_pages_link_has_a_picture_of_its_own(site):
    seen = set()
    for name, page in chapters(site).items():
        told = {tag["property"]: tag["content"] for tag in page.select("meta[property]")}
        assert told["og:title"] == page.h1.find(string=True), name
        assert told["og:description"].strip()
        picture = (site / told["og:image"].split("/", 4)[4]).read_bytes()
        assert struct.unpack(">8sI4sII", picture[:24]) == (b"\x89PNG\r\n\x1a\n", 13, b"IHDR", 1200, 630)
        assert len(picture) < 300_000
        seen.add(picture)
    assert len(seen) == len(chapters(site))


def test_pages_are_small(site):
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in site.rglob("*.html")
             if "_static" not in path.parts}
    print(sizes)
    assert max(sizes.values()) <= 250_000


def scripts(site):
    """The book's own scripts as a browser gets them: {"_static": {path of the source: text}, "page": ..., "trainer":
    ...}: those of every page, those that stand in a page, and those that its live figures load."""
    found = {folder: {path: (site / folder / path.name).read_text(encoding="utf-8")
                      for path in sorted((ROOT / source).glob("*.js"))}
             for folder, source in (("_static", "_static"), ("trainer", "web"))}
    toys = [figure for page in chapters(site).values() for figure in page.select("figure.toy")]
    found["page"] = {ROOT / "d2l_utils" / "book" / "toys" / f"{toy['id']}.js":
                     toy.find_next("script").string.partition(")(...document")[0].removeprefix("(") for toy in toys}
    return found


def test_the_books_own_scripts_are_small(site):
    """The bytes that a browser loads on each page, and in all; without the trainer's module and pictures and the net's
    weights, which are no script of ours."""
    sizes = {folder: sum(len(re.sub(r'(const MODULE=)".*"', r"\1", text).encode()) for path, text in found.items()
                         if path.stem not in ("pictures", "residual20")) for folder, found in scripts(site).items()}
    print(sizes)
    assert min(sizes.values()) > 8_000
    assert sizes["_static"] + sizes["page"] <= 30_000
    assert sum(sizes.values()) <= 40_000


def words(code):
    """A script's words and signs, and its strings and templates letter by letter, as Pygments tells them apart."""
    return [text for kind, text in JavascriptLexer().get_tokens(code) if kind not in Comment
            and (kind in String or text.strip())]


def test_scripts_lose_nothing_but_comments_and_white_space(site):
    found = {path: text for texts in scripts(site).values() for path, text in texts.items()}
    assert {path.stem for path in found} >= {"explorer", "predict", "trainer", "hands", "block", "lesions"}
    for path, text in found.items():
        source = path.read_text(encoding="utf-8")
        assert words(text) == words(source), path.name
        assert len(text) < len(source)


def test_a_script_that_loses_something_is_seen():
    """rjsmin knows no templates inside templates: what stands in the inner one must not hang on its white space."""
    for source, other in [("return x", "returnx"), ("f('a  b')", "f('a b')"), ("`a\n b`", "`a b`"), ("a - -b", "a--b"),
                          ("`${x ? `, one` : ''}`", jsmin("`${x ? `, one` : ''}`"))]:
        assert words(source) != words(other)
    source = "const f = (x) => `a  ${x} // b`; // c\n  /* d */ g(f);"
    assert jsmin(source) == "const f=(x)=>`a  ${x} // b`;g(f);"


def test_every_script_still_parses(site, browser):
    page = browser.new_page()
    for texts in scripts(site).values():
        for path, text in texts.items():
            page.evaluate("(code) => { new Function(code); }", f"({text})" if "toys" in path.parts else text)
    page.close()


def folded(page, figure):
    """The rows of the folded table of a figure, the numbers only."""
    rows = page.select(f"figure[id='{figure}'] details.data-table tbody tr")
    return [[cell.text for cell in row.select("td")] for row in rows]


def test_the_folded_tables_of_chapter_8_say_what_was_recorded(site):
    page, record = chapters(site)["08_inside"], d2l.recorded("lesions")
    nets = ["plain-20", "residual-20", "residual-56"]
    right, pairs = [], []
    for net in nets:
        one = record[record.net.str.endswith(net)]
        for change in ("removed", "swapped"):
            groups = one[one.kind == change].groupby("which").test_error
            right += [[f"{100 - 100 * errors[one.statistics == averages].mean():.4g}"
                       for averages in ("kept", "estimated")] for _, errors in groups]
        one = one[(one.net == ("stored " * net.endswith("-20") + net)) & (one.kind == "subset")]
        lost = 100 * one.set_index("which").test_error
        lost = lost - lost["whole"]
        pairs += [[f"{lost[which.split('+')].sum():.4g}", f"{lost[which]:.4g}"]
                  for which in lost.index if which.count("+") == 1]
    assert folded(page, "one_change") == right
    assert folded(page, "two_removed") == pairs
    assert (len(right), len(pairs)) == (9 + 4 + 9 + 4 + 27 + 22, 36 + 36 + 351)


def test_the_folded_tables_of_the_lab_say_what_was_recorded(site):
    page = chapters(site)["01_degradation"]
    runs = d2l.recorded("degradation_rate").query("recipe == 'standard' and lr == 0.03")
    assert folded(page, "curves") == [
        [f"{100 * rows[error].mean():.4g}" for _, rows in runs[(runs.shortcut == kind) & (runs.depth == depth)]
         .groupby("epoch")] for error in ("train_error", "test_error") for kind in ("A", "none")
        for depth in (8, 20, 32, 56)]
    here = d2l.recorded("train_here")
    assert folded(page, "train") == [
        [f"{100 * rows.train_error.median():.1f}" for _, rows in here[(here.shortcut == kind) & (here.depth == depth)]
         .groupby("epoch")] for kind in ("none", "A") for depth in (8, 20, 32, 44, 56)]


# The check itself: a sound page, and each way to break it

SOUND = """<html><head><link rel="stylesheet" href="_static/a.css"><script src="_static/a.js"></script>
<link rel="canonical" href="https://example.org/"></head><body><h1 id="top">A</h1>
<a href="#top">up</a> <a href="sub/b.html#there?depth=8">b</a> <a href="https://example.org">out</a>
<div class="cell tag_raises-exception"><div class="output traceback">ValueError</div></div><br>
<img src="_static/a.png" alt="A line that falls"><svg role="img" aria-label="A dot"><use href="#top"/></svg>
</body></html>"""


@pytest.fixture
def small_site(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "sub").mkdir()
    files = {"index.html": SOUND, "sub/b.html": '<p id="there"><a href="../index.html">a</a></p>',
             "_static/a.css": "p { background: url('a.png') }", "_static/a.js": "", "_static/a.png": ""}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_sound_site_has_no_problems(small_site):
    assert problems(small_site) == []


@pytest.mark.parametrize(("old", "new", "message"), [
    ('href="_static/a.css"', 'href="_static/b.css"', "loads _static/b.css, which is not there"),
    ('src="_static/a.js"', 'src="https://example.org/a.js"', "loads https://example.org/a.js from elsewhere"),
    ('src="_static/a.js"', 'src="//example.org/a.js"', "from elsewhere"),
    ("</head>", "<style>@import url(https://example.org/a.css);</style></head>", "from elsewhere"),
    ("<br>", '<p style="background: url(http://example.org/a.png)">', "from elsewhere"),
    ('<img src="_static/a.png"', '<img src="http://example.org/a.png"', "from elsewhere"),
    ("sub/b.html#there", "sub/c.html", "links to sub/c.html?depth=8, which is not there"),
    ("#there", "#nowhere", "which has no such anchor"), ('href="#top"', 'href="#bottom"', "which has no such anchor"),
    ("<br>", '<p id="top"></p>', "the id 'top' twice"), ("tag_raises-exception", "", "a traceback outside"),
    ("<br>", '<div class="output traceback">NameError</div>', "a traceback outside"),
    (' alt="A line that falls"', "", "without alt text"), ("A line that falls", "_images/a.png", "without alt text"),
    (' aria-label="A dot"', "", "without aria-label")])
def test_broken_page_is_seen(small_site, old, new, message):
    assert old in SOUND
    (small_site / "index.html").write_text(SOUND.replace(old, new))
    assert message in " | ".join(problems(small_site))


def test_broken_style_sheet_is_seen(small_site):
    (small_site / "_static" / "a.css").write_text("@font-face { src: url(https://example.org/a.woff2) }")
    assert problems(small_site) == ["_static/a.css: loads https://example.org/a.woff2 from elsewhere"]
