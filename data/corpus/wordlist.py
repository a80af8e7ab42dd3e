"""Drops documents that contain words of a list, such as one of harmful content.

This project has no list of its own. C4's list (LDNOOBW) drops text in dialects of minorities, and text about
minorities, far more often than other text (Dodge et al. 2021, "Documenting large webtext corpora", section 5). Choose a
list yourself, and check the report's examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.corpus.document import Document, draw
from data.corpus.step import Dropped, Outcome, Single
from data.corpus.words import WORDS
from data.errors import UserError, missing_file

Phrases = Mapping[str, Sequence[tuple[str, ...]]]  # the words of each phrase, by first word


@dataclass(frozen=True, kw_only=True)
class WordList(Single):
    """Matches whole words (of `words.py`) in any case and Unicode form. In scripts without spaces, matches anywhere.

    path: a UTF-8 file with one word or phrase per line; lines that begin with # are comments.
    at_least: drops documents with this many matches; a word that occurs twice counts twice.
    keep_share: keeps this share (0 to 1) of the matching documents, drawn by their places, because some harmful text
        helps a model to recognise it.
    """

    path: str
    at_least: int = 1
    keep_share: float = 0.0

    def __post_init__(self) -> None:
        _read(self.path)  # raises for a bad list before anything is read

    def look(self, document: Document) -> Outcome:
        phrases = _read(self.path)
        if not _matches(document.text, phrases, self.at_least):
            return document
        if self.keep_share and draw(document, f"word list {Path(self.path).name}") < self.keep_share:
            return document
        return Dropped(f"words of {Path(self.path).name}")


def _matches(text: str, phrases: Phrases, at_least: int) -> bool:
    words = _words(text)
    if phrases.keys().isdisjoint(words):
        return False
    found = 0
    for place, word in enumerate(words):
        found += any(tuple(words[place : place + len(phrase)]) == phrase for phrase in phrases.get(word, ()))
        if found >= at_least:
            return True
    return False


def _words(text: str) -> list[str]:
    """Words without case and compatibility characters. Splits contractions, so that a genitive matches its word."""
    return WORDS.word_tokenize(re.sub("['’_]", " ", unicodedata.normalize("NFKC", text).casefold()))


@cache
def _read(path: str) -> Phrases:
    """Raises UserError if the list is missing, empty, not UTF-8, or has an entry that no text can match."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"word_list: path: {missing_file(file)}; wanted a file with one word or phrase per line")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason}); convert the file to UTF-8") from error
    phrases: dict[str, list[tuple[str, ...]]] = {}
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            phrase = _phrase(entry, f"{file}, line {number}")
            phrases.setdefault(phrase[0], []).append(phrase)
    if not phrases:
        raise UserError(f"{file}: no words; write one word or phrase per line")
    return phrases


def _phrase(entry: str, origin: str) -> tuple[str, ...]:
    words = tuple(_words(entry))
    ends = entry[0] + entry[-1]
    if words != (entry,) and not ends.replace("'", "").replace("’", "").isalnum():
        # f*** would give the word f, which is in almost every document
        raise UserError(f"{origin}: {entry!r} begins or ends with a character that is not a letter; write whole words")
    return words
