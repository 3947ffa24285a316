"""Sphinx extension: a term in italics leads to the glossary, where it stands first in a page; the library's docstrings,
which are written for `help`, become paragraphs."""

import re

from docutils import nodes


def link_terms(app, doctree, docname):
    """Wrap the first emphasis of each of the glossary's terms in a link to it."""
    terms = {name.lower(): place for place, name in
             ((item[3:5], item[0]) for item in app.env.get_domain("std").get_objects() if item[2] == "term")}
    seen = {None}
    for word in list(doctree.findall(nodes.emphasis)):
        text = word.astext().lower()
        document, anchor = terms.get(text) or terms.get(text.removesuffix("s")) or (None, None)
        if anchor in seen or document == docname or isinstance(word.parent, nodes.reference):
            continue
        seen.add(anchor)
        address = f"{app.builder.get_relative_uri(docname, document)}#{anchor}"
        link = nodes.reference("", "", internal=True, refuri=address, classes=["term"])
        word.replace_self(link)
        link += word


def mend_docstring(app, what, name, thing, options, lines):
    """Code in backticks may end within a word (`Residual`s), and a star is a star."""
    lines[:] = [re.sub("(`[^`]+`)(?=\\w)", r"\1\\ ", re.sub(r"(\*|_(?!\w))", r"\\\1", line)) for line in lines]


def setup(app):
    """Connect the above."""
    app.connect("autodoc-process-docstring", mend_docstring)
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
