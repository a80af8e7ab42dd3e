"""Makes documents from records: one extractor for each kind of source."""

from __future__ import annotations

from data.corpus.document import Document
from data.corpus.extract.book import extract_book
from data.corpus.extract.dialogue import extract_dialogues
from data.corpus.extract.plain_text import Extracted, extract_code, extract_scientific, extract_text, refused
from data.corpus.extract.web import extract_page
from data.corpus.languages import language_code
from data.corpus.places import unforeseen
from data.corpus.source import Quarantined, Record
from data.corpus.step import Dropped

EXTRACTORS = {  # by kind of source; each takes a Record and returns a list of Extracted, Dropped or Quarantined
    "web": extract_page,
    "text": extract_text,
    "book": extract_book,
    "code": extract_code,
    "scientific": extract_scientific,
    "dialogue": extract_dialogues,
}


def extract(record: Record) -> list[Document] | Dropped | Quarantined:
    """The record's documents: one, or one for each conversation of a tree of turns, numbered from 1 in their ids.

    Raises only MemoryError, which concerns the machine and not the record.
    """
    source = record.unit.source
    found = _extracted(record)
    if isinstance(found, Dropped | Quarantined):
        return found
    row = f"{source.name}/{record.part.name}#{record.place}"
    return [
        Document(
            text=each.text,
            id=row if len(found) == 1 else f"{row}.{number}",
            source=source.name,
            kind=source.kind,
            file=record.part.name,
            place=record.place,
            language=language_code(each.language) or source.language,
            url=record.url,
            marks=each.marks,
        )
        for number, each in enumerate(found, 1)
    ]


def _extracted(record: Record) -> list[Extracted] | Dropped | Quarantined:
    try:
        return EXTRACTORS[record.unit.source.kind](record)
    except MemoryError:
        raise
    except Exception as error:  # of a library, or of this code, on unexpected text
        return refused(record, f"no text can be made of it: {unforeseen(error)}")
