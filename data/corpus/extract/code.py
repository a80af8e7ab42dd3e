"""Source code, kept as it is; its language is noted in marks["code"]."""

from __future__ import annotations

from data.corpus.extract.found import Extracted
from data.corpus.extract.text import NO_TEXT
from data.corpus.formats import LANGUAGES, ending_of
from data.corpus.source import Record
from data.corpus.step import Dropped


def extract_code(record: Record) -> list[Extracted] | Dropped:
    """The programming language by the file's ending; of rows, what their column `language` says."""
    text = record.content.removeprefix("\ufeff")
    if not text.strip():
        return NO_TEXT
    language = LANGUAGES.get(ending_of(record.part.name)) or record.language.lower()
    return [Extracted(text, marks={"code": language} if language else {})]
