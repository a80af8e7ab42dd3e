"""Books: removes Project Gutenberg's licence and joins hard-wrapped lines."""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import replace

from data.corpus.extract.plain_text import NO_TEXT, Extracted, extract_text
from data.corpus.source import Record
from data.corpus.step import Dropped

# Project Gutenberg's lines before and after a book, as worded from 1991 to today
HEADERS = (
    re.compile(r"^[ \t]*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)[^*]*\*{3}[ \t]*$", re.M | re.I),
    re.compile(r"^\*END\*? ?THE SMALL PRINT![^\n]*$", re.M),
)
FOOTERS = (
    re.compile(r"^[ \t]*\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG E(?:BOOK|TEXT)", re.M | re.I),
    re.compile(r"^[ \t]*End of (?:the |this )?Project Gutenberg(?:'s|’s)?\b", re.M | re.I),
)
CREDITS = re.compile(
    r"\s*(?:Produced|E-text prepared|This etext was (?:prepared|produced)) by\b.*?(?:\n\s*\n|\Z)", re.S | re.I
)
WRAPPED_COLUMNS = range(55, 86)  # widths of hard-wrapped prose; verse is narrower, unwrapped text wider
LONG_PARAGRAPH_LINES = 4


def extract_book(record: Record) -> list[Extracted] | Dropped:
    found = extract_text(record)
    if isinstance(found, Dropped):
        return found
    text = joined_lines(without_licence(found[0].text)).strip("\n")
    return [replace(found[0], text=text)] if text.strip() else NO_TEXT


def without_licence(text: str) -> str:
    """The text without Project Gutenberg's header, footer and credits line, if it has them."""
    starts = [match.end() for header in HEADERS if (match := header.search(text))]
    if starts:
        text = text[max(starts) :]
        credits = CREDITS.match(text)
        text = text[credits.end() :] if credits else text
    ends = [match.start() for footer in FOOTERS if (match := footer.search(text))]
    return text[: min(ends)] if ends else text


def joined_lines(text: str) -> str:
    """Joins the lines of each paragraph that a fixed width has certainly broken: all its lines but the first begin at
    the margin, and none has room for the first word of the next. Verse, tables and lists fail this test and stay
    unchanged.

    The width is the book's: the median length of the longest lines of its longer paragraphs.
    """
    pieces = re.split(r"(\n(?:[ \t]*\n)+)", text)
    paragraphs = [piece.split("\n") for piece in pieces[::2]]
    longest = [max(map(len, lines)) for lines in paragraphs if len(lines) >= LONG_PARAGRAPH_LINES]
    width = int(statistics.median(longest)) if longest else 0
    if width not in WRAPPED_COLUMNS:
        return text
    pieces[::2] = [_joined(lines) if _is_wrapped(lines, width) else "\n".join(lines) for lines in paragraphs]
    return "".join(pieces)


def _is_wrapped(lines: list[str], width: int) -> bool:
    if any(not line.strip() or len(line) > WRAPPED_COLUMNS.stop for line in lines):
        return False
    if any(line[0].isspace() for line in lines[1:]):
        return False
    return all(len(line) + 1 + len(after.split(None, 1)[0]) > width for line, after in itertools.pairwise(lines))


def _joined(lines: list[str]) -> str:
    """Adds no space after a line that ends with a hyphen or dash."""
    return "".join(line if line.endswith("-") else line + " " for line in lines[:-1]) + lines[-1]
