"""Rows of .json, .parquet and .arrow files and of functions, in bounded memory: `Found` each, and `Trouble` where one cannot
be read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.corpus.reasons import TOO_DEEP, megabytes, missing, not_text, unforeseen

READ_AT_ONCE_CHARACTERS = 2**20
BATCH_BYTES = 8 * 2**20
BLANKS = " \t\r\n"
NAMED = (pa.ArrowException, UnicodeDecodeError)  # errors whose messages say what is wrong


class Found(NamedTuple):
    """Something at a place of a file; what it is, its reader says."""

    place: int
    content: Any
    url: str = ""
    language: str = ""


class Trouble(NamedTuple):
    """Why a place cannot be read; None is the rest of the file."""

    place: int | None
    reason: str


def json_line(line: bytes) -> Any:
    """Raises ValueError, with a reason, where the line is no JSON."""
    try:
        return json.loads(line.decode().rstrip())
    except UnicodeDecodeError as error:
        raise ValueError(not_text(error)) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON at character {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"JSON that is {TOO_DEEP}") from error


def json_rows(stream: BinaryIO, limit_bytes: int) -> Iterator[Found | Trouble]:
    """The values of one list, or those that stand one after the other. After a syntax error the rest is unreadable."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    buffer, at, row = "", 0, 0
    in_list: bool | None = None  # None: nothing read yet
    ended = False
    while True:
        while at < len(buffer) and (buffer[at] in BLANKS or (in_list and row and buffer[at] == ",")):
            at += 1
        if at < len(buffer) and in_list is None:
            in_list = buffer[at] == "["
            at += in_list
            continue
        if at < len(buffer) and in_list and buffer[at] == "]":
            rest = buffer[at + 1 :] + text.read(READ_AT_ONCE_CHARACTERS)
            if rest.strip(BLANKS):
                yield Trouble(None, "broken JSON: more after the end of the list")
            return
        value, end, problem = _decoded(buffer, at, ended)
        if problem is None:
            yield Found(row, value)
            at, row = end, row + 1
        elif not ended and len(buffer) - at <= limit_bytes:
            more = text.read(max(READ_AT_ONCE_CHARACTERS, len(buffer) - at))
            buffer, at, ended = buffer[at:] + more, 0, not more
        elif not ended:
            yield Trouble(None, f"broken JSON, or a row longer than {megabytes(limit_bytes)}, after row {row}")
            return
        elif at < len(buffer):
            yield Trouble(None, f"broken JSON in row {row}: {problem}")
            return
        else:
            if in_list:
                yield Trouble(None, "broken JSON: the list does not end")
            return


def _decoded(buffer: str, at: int, ended: bool) -> tuple[Any, int, str | None]:
    """The value that begins there, where it ends, and why there is none. What touches the buffer's end may go on."""
    try:
        value, end = json.JSONDecoder().raw_decode(buffer, at)
    except json.JSONDecodeError as error:
        return None, at, error.msg
    except RecursionError:
        return None, at, TOO_DEEP
    return (value, end, None) if end < len(buffer) or ended else (None, at, "incomplete")


def parquet_rows(
    path: str, start: int, stop: int | None, wanted: Sequence[str] | None, needed: str | None
) -> Iterator[Found | Trouble]:
    """Rows of the row groups from `start` to before `stop`, with their numbers in the file.

    wanted: names of the columns that are read, where present, dotted ones too; None: all.
    needed: the one without which the file gives nothing but a `Trouble`.
    """
    with pq.ParquetFile(path, buffer_size=BATCH_BYTES, pre_buffer=False) as file:
        columns = _columns(file.schema_arrow.names, wanted)
        if needed is not None and not _columns(file.schema_arrow.names, [needed]):
            yield Trouble(None, missing(needed, file.schema_arrow.names))
            return
        row = sum(file.metadata.row_group(group).num_rows for group in range(start))
        for group in range(start, file.num_row_groups if stop is None else stop):
            size = file.metadata.row_group(group)
            at_once = _rows_at_once(size.total_byte_size, size.num_rows)
            for batch in file.iter_batches(at_once, row_groups=[group], columns=columns):
                yield from _rows_of(batch, row)
                row += batch.num_rows


def arrow_rows(path: str, wanted: Sequence[str] | None, needed: str | None) -> Iterator[Found | Trouble]:
    """The same of an Arrow file or stream (as `datasets` saves)."""
    with pa.memory_map(path) as source:
        try:
            file = pa.ipc.open_file(source)
            batches: Iterable[pa.RecordBatch] = (file.get_batch(n) for n in range(file.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            file = batches = pa.ipc.open_stream(source)
        columns = _columns(file.schema.names, wanted)
        if needed is not None and not _columns(file.schema.names, [needed]):
            yield Trouble(None, missing(needed, file.schema.names))
            return
        row = 0
        for batch in batches:
            batch = batch if columns is None else batch.select(columns)
            at_once = _rows_at_once(batch.nbytes, batch.num_rows)
            for begin in range(0, batch.num_rows, at_once):
                yield from _rows_of(batch.slice(begin, at_once), row + begin)
            row += batch.num_rows


def _columns(present: Sequence[str], wanted: Sequence[str] | None) -> list[str] | None:
    if wanted is None:
        return None
    names = [name if name in present else name.partition(".")[0] for name in wanted]
    return list(dict.fromkeys(name for name in names if name in present))


def _rows_at_once(size_bytes: int, rows: int) -> int:
    return max(1, min(1024, BATCH_BYTES * rows // max(1, size_bytes)))


def _rows_of(batch: pa.RecordBatch, first: int) -> Iterator[Found | Trouble]:
    try:
        batch.validate(full=True)  # Arrow's readers check neither strings nor offsets
        rows = batch.to_pylist()
    except MemoryError:
        raise
    except Exception as error:  # dates that Python does not have, time zones that nobody knows, …
        if batch.num_rows == 1:
            told = " ".join(str(error).split())
            yield Trouble(first, told if isinstance(error, NAMED) else f"cannot be converted: {unforeseen(error)}")
        else:  # the row at fault must not take its neighbours along
            for number in range(batch.num_rows):
                yield from _rows_of(batch.slice(number, 1), first + number)
    else:
        yield from (Found(first + number, row) for number, row in enumerate(rows))
