"""Books: Project Gutenberg's licence removed, and hard-wrapped lines joined where they are nothing but that."""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import replace

from data.corpus.extract.found import Extracted
from data.corpus.extract.text import NO_TEXT, extract_text
from data.corpus.source import Record
from data.corpus.step import Dropped

# the lines between which a book of Project Gutenberg stands, in the words of 1991 to today
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
WRAPPED_COLUMNS = range(55, 86)  # lines of prose are cut at; verse is shorter, unwrapped text longer
LONG_PARAGRAPH_LINES = 4


def extract_book(record: Record) -> list[Extracted] | Dropped:
    found = extract_text(record)
    if isinstance(found, Dropped):
        return found
    text = joined_lines(without_licence(found[0].text)).strip("\n")
    return [replace(found[0], text=text)] if text.strip() else NO_TEXT


def without_licence(text: str) -> str:
    """The book alone, without header, footer and the line of who prepared it; a text without them as it is."""
    starts = [match.end() for header in HEADERS if (match := header.search(text))]
    if starts:
        text = text[max(starts) :]
        credits = CREDITS.match(text)
        text = text[credits.end() :] if credits else text
    ends = [match.start() for footer in FOOTERS if (match := footer.search(text))]
    return text[: min(ends)] if ends else text


def joined_lines(text: str) -> str:
    """Paragraphs as one line each, where it is certain that a fixed width broke them: all lines of the paragraph but the
    first begin at the margin, and none has room for the next one's first word. Verse, tables and lists fail this and stay as they are.

    The width is that of the book: the median of the longest lines of its longer paragraphs.
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
    """A line that ends with a hyphen or dash goes on without a space."""
    return "".join(line if line.endswith("-") else line + " " for line in lines[:-1]) + lines[-1]
