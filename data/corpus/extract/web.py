"""Web pages: trafilatura's main text, without navigation, banners and footers; code and tables keep their lines.

trafilatura (Barbaresi 2021, "Trafilatura: A Web Scraping Library and Command-Line Tool for Text Discovery and
Extraction", ACL demonstrations) folds white space, even that of code inside lists and definitions, drops the joiners
that Persian and Indic scripts need, and resolves entities twice. So these characters pass through it as letters that no
page has, the last of CJK Extension G. White space that a browser does not show is folded before.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from types import ModuleType
from typing import Any

from data.corpus.extract.plain_text import Extracted, clean_text
from data.corpus.source import Record
from data.corpus.step import Dropped

NEWLINE, SPACE, TAB, NON_JOINER, JOINER, AMPERSAND, BREAK = map(chr, range(0x31344, 0x3134B))
HIDDEN = {"\u200c": NON_JOINER, "\u200d": JOINER, "&": AMPERSAND}
HIDDEN_IN_CODE = HIDDEN | {"\n": NEWLINE, " ": SPACE, "\t": TAB}
# characters that lxml refuses
REFUSED = dict.fromkeys([*range(9), *range(14, 32), 0xFFFE, 0xFFFF]) | {11: " ", 12: " "}
HIDE = str.maketrans(REFUSED | HIDDEN)
HIDE_IN_CODE = str.maketrans(REFUSED | HIDDEN_IN_CODE | {"\r": None})
SHOW = str.maketrans({letter: shown for shown, letter in HIDDEN_IN_CODE.items()})
WHITE = " \n" + NEWLINE + SPACE + TAB
BLANKS = re.compile(r"[ \t\n\r]+")
XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
ANCHOR_SIGNS = ("¶", "#", "§", "🔗")  # texts of the links from headings to themselves
HOLDERS = ("li", "dd", "blockquote")  # trafilatura would join their paragraphs into one line
NO_TEXT = Dropped("no text found in the page")
TOO_DEEP = Dropped("a page whose elements are nested too deeply")
TOO_WIDE = Dropped("a page with too many elements side by side")
MAX_SIBLINGS = 10_000  # trafilatura takes ten seconds for so many, and its time is quadratic


def extract_page(record: Record) -> list[Extracted] | Dropped:
    """Paragraphs, list items and table rows become lines. Leaves out readers' comments."""
    try:
        text = page_text(record.content)
    except RecursionError:
        return TOO_DEEP
    if text is None:
        return TOO_WIDE
    return [Extracted(text, record.language)] if text.strip() else NO_TEXT


def page_text(page: str) -> str | None:
    """The page's main text, or "". None if an element has more than MAX_SIBLINGS children.

    Uses trafilatura's fast mode: the slow one took 1.4 times as long on Debian's and Python's documentation, and gave
    the same text for 20 of 20 pages of Python and 33 of 39 of Debian.
    """
    trafilatura = _trafilatura()
    page = XML_DECLARATION.sub("", page, count=1)  # lxml refuses a declaration in decoded text
    tree = trafilatura.load_html(page if "<body" in page.lower() else f"<html><body><div>{page}</div></body></html>")
    if tree is None:
        return ""
    if any(len(element) > MAX_SIBLINGS for element in tree.iter()):
        return None
    _prepare(tree)
    text = trafilatura.extract(tree, fast=True, include_comments=False, include_tables=True) or ""
    blocks = (block.rstrip(WHITE).lstrip(" \n" + NEWLINE) for block in text.split(BREAK))
    return clean_text("\n".join(filter(None, blocks)).translate(SHOW).replace(" \n", "\n"))


def _prepare(tree: Any) -> None:
    """Hides the characters that trafilatura must not change, and removes elements that are not text."""
    code = {child for block in tree.iter("pre") for child in block.iter()}
    for element in tree.iter():
        inside = element in code
        if element.tag == "br" and inside:
            element.tail = "\n" + (element.tail or "")
        if isinstance(element.tag, str):  # else a comment: only its tail is text
            element.text = _hidden(element.text, inside)
        element.tail = _hidden(element.tail, inside and element.tag != "pre")
    for link in tree.xpath("//a[starts-with(@href, '#')]"):
        if (link.text or "").strip() in ANCHOR_SIGNS and not len(link):
            link.drop_tree()
    for block in tree.iter("pre"):
        for line_break in list(block.iter("br")):
            line_break.drop_tree()
        block.text = BREAK + (block.text or "")
        block.tail = BREAK + (block.tail or "")
    for holder in tree.iter(*HOLDERS):
        for paragraph in holder.findall("p")[1:]:
            paragraph.text = BREAK + (paragraph.text or "")


def _hidden(text: str | None, in_code: bool) -> str | None:
    if not text:
        return text
    return text.translate(HIDE_IN_CODE) if in_code else BLANKS.sub(" ", text.translate(HIDE))


@cache
def _trafilatura() -> ModuleType:
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs pages without text, which are counted here
    return trafilatura
