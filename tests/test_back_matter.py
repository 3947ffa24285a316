"""The pages behind the chapters: verdicts rest on claims of the built book, nothing is missing from the lists."""

import inspect
import re

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

import d2l_utils as d2l
from d2l_utils.book.records import RECORDED

CHAPTERS = ROOT / "chapters"
BUILT = ROOT / "_build" / "html" / "chapters"
SAID = (CHAPTERS / "said_and_measured.md").read_text("utf-8")
SAYINGS = re.split(r"^### ", SAID, flags=re.M)[1:]
VERDICTS = ("Holds", "Too strong", "False", "Not decided")


def words(text):
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())


def claims(page):
    """The claims that the built page shows."""
    soup = BeautifulSoup((BUILT / f"{page}.html").read_text("utf-8"), "html.parser")
    return {words(claim.text) for claim in soup.select("p.claim")}


def test_there_are_some_twenty_sayings():
    assert len(SAYINGS) >= 20


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda text: text.partition("\n")[0].strip('"')[:40])
def test_a_verdict_rests_on_a_claim_of_the_page_it_names(saying):
    sentence, _, rest = saying.partition("\n")
    assert re.fullmatch(r'"[^"]+\."', sentence.strip())
    assert rest.strip().startswith(tuple(f"**{verdict}" for verdict in VERDICTS))
    pages = re.findall(r"\]\((\w+)\.ipynb\)", rest)
    quoted = [words(claim) for claim in re.findall(r"^> (✓ .+)$", rest, re.M)]
    assert pages
    assert quoted
    shown = set().union(*map(claims, pages))
    assert [claim for claim in quoted if claim not in shown] == []


def test_the_bibliography_has_every_paper_that_a_page_links_to():
    paper = re.compile(r"https://(?:arxiv\.org/abs|doi\.org)/[^)\s\"\\]+")
    bibliography = set(paper.findall((CHAPTERS / "bibliography.md").read_text("utf-8")))
    cited = set().union(*(paper.findall(path.read_text("utf-8")) for path in CHAPTERS.glob("*.ipynb")))
    assert cited == bibliography


def test_the_library_page_has_every_public_name():
    listed = re.findall(r"^\.\. auto\w+:: (\w+)", (CHAPTERS / "api.md").read_text("utf-8"), re.M)
    names = [name for name, thing in vars(d2l).items() if name[0] != "_" and not inspect.ismodule(thing)]
    assert sorted(listed) == sorted(names)
    soup = BeautifulSoup((BUILT / "api.html").read_text("utf-8"), "html.parser")
    undocumented = [name["id"] for name in soup.select("dt.sig[id]") if not name.find_next_sibling("dd").text.strip()]
    assert undocumented == []


def test_the_page_on_records_has_every_record_and_its_pages():
    soup = BeautifulSoup((BUILT / "how_made.html").read_text("utf-8"), "html.parser")
    rows = {row.th.text: row for row in soup.select("table tbody tr")}
    assert set(rows) == {path.stem for path in RECORDED.glob("*.csv")}
    assert "01_degradation.html" in [link["href"] for link in rows["degradation"].select("a")]


def test_terms_lead_to_the_glossary():
    links = {link["href"] for path in BUILT.glob("*.html") for link in BeautifulSoup(
        path.read_text("utf-8"), "html.parser").select("a.term")}
    assert {"notation.html#term-degradation", "notation.html#term-shortcut", "notation.html#term-epoch"} <= links
    assert len(links) >= 20
    glossary = BeautifulSoup((BUILT / "notation.html").read_text("utf-8"), "html.parser")
    anchors = {tag["id"] for tag in glossary.select("dt[id]")}
    assert {link.partition("#")[2] for link in links} <= anchors
