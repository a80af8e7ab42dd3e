"""Reads the units of a corpus: every format becomes records, each with its place, and whatever cannot be read is named.

Bad input never raises, and never takes along more than it must: a line, a row, or the rest of a file.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from data.corpus.extract.dialogue import COLUMNS as DIALOGUE_COLUMNS
from data.corpus.formats import ending_of, is_compressed, splits
from data.corpus.lines import read_lines, read_paragraphs
from data.corpus.pages import decode_page, warc_pages
from data.corpus.reasons import HALF_A_PAIR, megabytes, missing, not_an_object, not_text, unforeseen
from data.corpus.rows import Found, Trouble, arrow_rows, json_line, json_rows, parquet_rows
from data.corpus.source import Part, Quarantined, Record, Source, Unit
from data.errors import describe
from data.imports import load_call, names_object
from data.messages import lookup

READ_ERRORS = (OSError, EOFError, zlib.error, ValueError, pa.ArrowException)
KEPT_COLUMNS = ("url", "language")  # of rows, beside the content
MAX_REASON_CHARACTERS = 500  # it may quote what a file holds
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_unit(unit: Unit, max_document_bytes: int) -> Iterator[Record | Quarantined]:
    """What the unit's parts hold, in their order: every place once, as a record or in quarantine.

    Places are row numbers of .json, .parquet, .arrow and functions, byte offsets of lines, paragraphs and the pages of .warc,
    0 of whole files. A record of a dialogue's row is the row, without columns that no dialogue stands in, of other rows the text. Longer documents than
    max_document_bytes are quarantined; no more than a small multiple of that is in memory. Errors of a user's function go
    through.
    """
    for part in unit.parts:
        read, places = 0, 0
        for each in _guarded(unit, part, max_document_bytes):
            places += 1
            if isinstance(each, Found):
                yield Record(each.content, unit, part, each.place, each.url, each.language)
                read += 1
            else:
                yield Quarantined(unit.source.name, part.name, each.place, each.reason[:MAX_REASON_CHARACTERS], read)
        if not places and part.start == 0 and part.stop is None:
            yield Quarantined(unit.source.name, part.name, None, "nothing in it")


def _guarded(unit: Unit, part: Part, limit_bytes: int) -> Iterator[Found | Trouble]:
    if names_object(part.path):
        yield from _of_rows(_call(unit.source, part), unit.source, limit_bytes)
        return
    try:
        yield from _read(unit.source, part, limit_bytes)
    except READ_ERRORS as error:
        yield Trouble(None, _reason(error, part))
    except MemoryError:
        raise  # which says something of the machine, not of the file
    except Exception as error:  # of a library, over a file that nobody thought of
        yield Trouble(None, f"cannot be read: {unforeseen(error)}")


def _read(source: Source, part: Part, limit_bytes: int) -> Iterator[Found | Trouble]:
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
            yield from _pieces(stream, source, part, limit_bytes)
        else:
            yield _whole(stream, source, part, limit_bytes)


def _reason(error: Exception, part: Part) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_text(error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"broken gzip: {reason}" if is_compressed(part.name) else f"cannot be read: {reason}"


def _json_lines(stream: BinaryIO, part: Part, limit_bytes: int) -> Iterator[Found | Trouble]:
    for offset, line in read_lines(stream, part.start, part.stop, limit_bytes):
        if line is None:
            yield Trouble(offset, f"a line longer than {megabytes(limit_bytes)}")
            continue
        try:
            yield Found(offset, json_line(line.removeprefix(BYTE_ORDER_MARK) if offset == 0 else line))
        except ValueError as error:
            yield Trouble(offset, str(error))


def _pieces(stream: BinaryIO, source: Source, part: Part, limit_bytes: int) -> Iterator[Found | Trouble]:
    read = read_lines if source.split == "lines" else read_paragraphs
    for offset, piece in read(stream, part.start, part.stop, limit_bytes):
        if piece is None:
            yield Trouble(offset, f"longer than {megabytes(limit_bytes)}")
        else:
            yield _decoded(piece, offset)


def _whole(stream: BinaryIO, source: Source, part: Part, limit_bytes: int) -> Found | Trouble:
    splittable = splits(part.name, source.kind)
    too_long = f"longer than {megabytes(limit_bytes)}" + ("; set split: lines or paragraphs" if splittable else "")
    if not is_compressed(part.name) and os.path.getsize(part.path) > limit_bytes:
        return Trouble(0, too_long)
    content = stream.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        return Trouble(0, too_long)
    if not content:
        return Trouble(0, "the file is empty")
    if source.kind != "web":
        return _decoded(content, 0)
    try:
        return Found(0, decode_page(content))
    except UnicodeError as error:
        return Trouble(0, str(error))


def _decoded(content: bytes, place: int) -> Found | Trouble:
    if b"\0" in content:
        return Trouble(place, "holds NUL bytes: a binary file, or text that is not UTF-8")
    try:
        return Found(place, content.decode())
    except UnicodeDecodeError as error:
        return Trouble(place, not_text(error))


def _call(source: Source, part: Part) -> Iterator[Found | Trouble]:
    rows = load_call(part.path, source.args, f"args of source {source.name!r}")()
    return (Found(number, row) for number, row in enumerate(rows))


def _of_rows(rows: Iterator[Found | Trouble], source: Source, limit_bytes: int) -> Iterator[Found | Trouble]:
    """Rows made into what a source of this kind takes from them."""
    for each in rows:
        if isinstance(each, Trouble):
            yield each
        elif not isinstance(each.content, dict):
            yield Trouble(each.place, not_an_object(each.content))
        else:
            yield _of_row(each.place, each.content, source, limit_bytes)


def _of_row(place: int, row: dict[str, Any], source: Source, limit_bytes: int) -> Found | Trouble:
    kept = [value if isinstance(value := row.get(name), str) else "" for name in KEPT_COLUMNS]
    try:
        if source.kind == "dialogue":
            names = (source.column, source.column.partition(".")[0], *DIALOGUE_COLUMNS)
            content = {name: row[name] for name in names if name in row}
            text = json.dumps(content, ensure_ascii=False, default=str)
        else:
            content = text = lookup(row, source.column)
            if source.column not in row and source.column.partition(".")[0] not in row:
                return Trouble(place, missing(source.column, row))
            if not isinstance(text, str):
                return Trouble(place, f"column {source.column!r} must be text, found {describe(text)}")
        size_bytes = sum(len(value.encode()) for value in (text, *kept))
    except UnicodeEncodeError:
        return Trouble(place, HALF_A_PAIR)
    except (TypeError, ValueError, RecursionError) as error:
        return Trouble(place, f"a row that is not JSON's: {unforeseen(error)}")
    if size_bytes > limit_bytes:
        return Trouble(place, f"a row longer than {megabytes(limit_bytes)}")
    return Found(place, content, *kept)
