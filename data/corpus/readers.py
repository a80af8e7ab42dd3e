"""Reads file units: makes records, each with its place, from all formats, and names each place that cannot be read.

Bad input never raises. It costs as little as possible: a line, a row, or the rest of a file.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from data.corpus.extract.dialogue import COLUMNS as DIALOGUE_COLUMNS
from data.corpus.formats import ending_of, is_compressed, splits
from data.corpus.lines import read_lines, read_paragraphs
from data.corpus.pages import decode_page, warc_pages
from data.corpus.places import (
    HALF_A_PAIR,
    Readable,
    Unreadable,
    megabytes,
    missing,
    not_an_object,
    not_text,
    unforeseen,
)
from data.corpus.source import CorpusSource, FilePart, FileUnit, Quarantined, Record
from data.corpus.tabular import arrow_rows, json_line, json_rows, parquet_rows
from data.errors import describe
from data.imports import load_call, names_object
from data.messages import lookup

KEPT_COLUMNS = ("url", "language")  # of rows, besides the content
MAX_REASON_CHARACTERS = 500  # a reason may quote the file
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_unit(unit: FileUnit, max_document_bytes: int) -> Iterator[Record | Quarantined]:
    """Every place of the unit's parts once, in order, as a record or in quarantine.

    Places are row numbers for .json, .parquet, .arrow and functions; byte offsets for lines, paragraphs and pages of
    .warc; 0 for whole files. The content of a dialogue record is the row, with only the columns that dialogues use;
    that of other records is the text. Documents longer than max_document_bytes are quarantined; memory holds a small
    multiple of that. Errors of a user's function are not caught.
    """
    for part in unit.parts:
        read, places = 0, 0
        for each in _guarded(unit, part, max_document_bytes):
            places += 1
            if isinstance(each, Readable):
                yield Record(each.content, unit, part, each.place, each.url, each.language)
                read += 1
            else:
                yield Quarantined(unit.source.name, part.name, each.place, each.reason[:MAX_REASON_CHARACTERS], read)
        if not places and part.start == 0 and part.stop is None:
            yield Quarantined(unit.source.name, part.name, None, "nothing in it")


def _guarded(unit: FileUnit, part: FilePart, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    if names_object(part.path):
        yield from _of_rows(_call(unit.source, part), unit.source, limit_bytes)
        return
    try:
        yield from _read(unit.source, part, limit_bytes)
    except _read_errors() as error:
        yield Unreadable(None, _reason(error, part))
    except MemoryError:
        raise  # concerns the machine, not the file
    except Exception as error:  # of a library, on unexpected input
        yield Unreadable(None, f"cannot be read: {unforeseen(error)}")


def _read(source: CorpusSource, part: FilePart, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    ending = ending_of(part.name)
    if ending in (".parquet", ".arrow"):
        wanted = [source.column, *KEPT_COLUMNS, *(DIALOGUE_COLUMNS if source.kind == "dialogue" else ())]
        needed = None if source.kind == "dialogue" else source.column
        if ending == ".parquet":
            rows = parquet_rows(part.path, part.start, part.stop, wanted, needed)
        else:
            rows = arrow_rows(part.path, wanted, needed)
        yield from _of_rows(rows, source, limit_bytes)
        return
    with gzip.open(part.path) if is_compressed(part.name) else open(part.path, "rb") as stream:
        if ending == ".warc":
            yield from warc_pages(stream, limit_bytes)
        elif ending == ".jsonl":
            yield from _of_rows(_json_lines(stream, part, limit_bytes), source, limit_bytes)
        elif ending == ".json":
            yield from _of_rows(json_rows(stream, limit_bytes), source, limit_bytes)
        elif source.split != "file" and splits(part.name, source.kind):
            yield from _split(stream, source, part, limit_bytes)
        else:
            yield _whole(stream, source, part, limit_bytes)


def _read_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (OSError, EOFError, zlib.error, ValueError, pa.ArrowException)


def _reason(error: Exception, part: FilePart) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_text(error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"broken gzip: {reason}" if is_compressed(part.name) else f"cannot be read: {reason}"


def _json_lines(stream: BinaryIO, part: FilePart, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    for offset, line in read_lines(stream, part.start, part.stop, limit_bytes):
        if line is None:
            yield Unreadable(offset, f"a line longer than {megabytes(limit_bytes)}")
            continue
        try:
            yield Readable(offset, json_line(line.removeprefix(BYTE_ORDER_MARK) if offset == 0 else line))
        except ValueError as error:
            yield Unreadable(offset, str(error))


def _split(stream: BinaryIO, source: CorpusSource, part: FilePart, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    read = read_lines if source.split == "lines" else read_paragraphs
    for offset, content in read(stream, part.start, part.stop, limit_bytes):
        if content is None:
            yield Unreadable(offset, f"longer than {megabytes(limit_bytes)}")
        else:
            yield _decoded(content, offset)


def _whole(stream: BinaryIO, source: CorpusSource, part: FilePart, limit_bytes: int) -> Readable | Unreadable:
    splittable = splits(part.name, source.kind)
    too_long = f"longer than {megabytes(limit_bytes)}" + ("; set split: lines or paragraphs" if splittable else "")
    if not is_compressed(part.name) and os.path.getsize(part.path) > limit_bytes:
        return Unreadable(0, too_long)
    content = stream.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        return Unreadable(0, too_long)
    if not content:
        return Unreadable(0, "the file is empty")
    if source.kind != "web":
        return _decoded(content, 0)
    try:
        return Readable(0, decode_page(content))
    except UnicodeError as error:
        return Unreadable(0, str(error))


def _decoded(content: bytes, place: int) -> Readable | Unreadable:
    if b"\0" in content:
        return Unreadable(place, "holds NUL bytes: a binary file, or text that is not UTF-8")
    try:
        return Readable(place, content.decode())
    except UnicodeDecodeError as error:
        return Unreadable(place, not_text(error))


def _call(source: CorpusSource, part: FilePart) -> Iterator[Readable | Unreadable]:
    rows = load_call(part.path, source.args, f"args of source {source.name!r}")()
    return (Readable(number, row) for number, row in enumerate(rows))


def _of_rows(
    rows: Iterator[Readable | Unreadable], source: CorpusSource, limit_bytes: int
) -> Iterator[Readable | Unreadable]:
    """Takes from each row the content that a source of this kind needs."""
    for each in rows:
        if isinstance(each, Unreadable):
            yield each
        elif not isinstance(each.content, dict):
            yield Unreadable(each.place, not_an_object(each.content))
        else:
            yield _of_row(each.place, each.content, source, limit_bytes)


def _of_row(place: int, row: dict[str, Any], source: CorpusSource, limit_bytes: int) -> Readable | Unreadable:
    kept = [value if isinstance(value := row.get(name), str) else "" for name in KEPT_COLUMNS]
    try:
        if source.kind == "dialogue":
            names = (source.column, source.column.partition(".")[0], *DIALOGUE_COLUMNS)
            content = {name: row[name] for name in names if name in row}
            text = json.dumps(content, ensure_ascii=False, default=str)
        else:
            content = text = lookup(row, source.column)
            if source.column not in row and source.column.partition(".")[0] not in row:
                return Unreadable(place, missing(source.column, row))
            if not isinstance(text, str):
                return Unreadable(place, f"column {source.column!r} must be text, found {describe(text)}")
        size_bytes = sum(len(value.encode()) for value in (text, *kept))
    except UnicodeEncodeError:
        return Unreadable(place, HALF_A_PAIR)
    except (TypeError, ValueError, RecursionError) as error:
        return Unreadable(place, f"a row that is not JSON: {unforeseen(error)}")
    if size_bytes > limit_bytes:
        return Unreadable(place, f"a row longer than {megabytes(limit_bytes)}")
    return Readable(place, content, *kept)
