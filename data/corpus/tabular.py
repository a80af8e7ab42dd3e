"""Reads the rows of .json, .parquet and .arrow files in bounded memory. A broken row gives an `Unreadable`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from data.corpus.places import TOO_DEEP, Readable, Unreadable, megabytes, missing, not_text, unforeseen

if TYPE_CHECKING:
    import pyarrow as pa

READ_AT_ONCE_CHARACTERS = 2**20
BATCH_BYTES = 8 * 2**20
BLANKS = " \t\r\n"


def json_line(line: bytes) -> Any:
    """Raises ValueError, with a reason, if the line is not JSON."""
    try:
        return json.loads(line.decode().rstrip())
    except UnicodeDecodeError as error:
        raise ValueError(not_text(error)) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON at character {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"JSON that is {TOO_DEEP}") from error


def json_rows(stream: BinaryIO, limit_bytes: int) -> Iterator[Readable | Unreadable]:
    """The values of one JSON list, or of a sequence of JSON values. After a syntax error the rest is unreadable."""
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
                yield Unreadable(None, "broken JSON: more after the end of the list")
            return
        value, end, problem = _decoded(buffer, at, ended)
        if problem is None:
            yield Readable(row, value)
            at, row = end, row + 1
        elif not ended and len(buffer) - at <= limit_bytes:
            more = text.read(max(READ_AT_ONCE_CHARACTERS, len(buffer) - at))
            buffer, at, ended = buffer[at:] + more, 0, not more
        elif not ended:
            yield Unreadable(None, f"broken JSON, or a row longer than {megabytes(limit_bytes)}, after row {row}")
            return
        elif at < len(buffer):
            yield Unreadable(None, f"broken JSON in row {row}: {problem}")
            return
        else:
            if in_list:
                yield Unreadable(None, "broken JSON: the list does not end")
            return


def _decoded(buffer: str, at: int, ended: bool) -> tuple[Any, int, str | None]:
    """(value, its end, problem or None), starting at `at`. A value that ends with the buffer may be incomplete."""
    try:
        value, end = json.JSONDecoder().raw_decode(buffer, at)
    except json.JSONDecodeError as error:
        return None, at, error.msg
    except RecursionError:
        return None, at, TOO_DEEP
    return (value, end, None) if end < len(buffer) or ended else (None, at, "incomplete")


def parquet_rows(
    path: str, start: int, stop: int | None, wanted: Sequence[str] | None, needed: str | None
) -> Iterator[Readable | Unreadable]:
    """The rows of row groups start to stop - 1, with their numbers in the file.

    wanted: the columns to read, if present, also dotted ones; None: all.
    needed: a file without this column gives only an `Unreadable`.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=BATCH_BYTES, pre_buffer=False) as file:
        columns = _columns(file.schema_arrow.names, wanted)
        if needed is not None and not _columns(file.schema_arrow.names, [needed]):
            yield Unreadable(None, missing(needed, file.schema_arrow.names))
            return
        row = sum(file.metadata.row_group(group).num_rows for group in range(start))
        for group in range(start, file.num_row_groups if stop is None else stop):
            size = file.metadata.row_group(group)
            at_once = _rows_at_once(size.total_byte_size, size.num_rows)
            for batch in file.iter_batches(at_once, row_groups=[group], columns=columns):
                yield from _rows_of(batch, row)
                row += batch.num_rows


def arrow_rows(path: str, wanted: Sequence[str] | None, needed: str | None) -> Iterator[Readable | Unreadable]:
    """As `parquet_rows`, for a whole Arrow file or stream (as `datasets` saves)."""
    import pyarrow as pa

    with pa.memory_map(path) as source:
        try:
            file = pa.ipc.open_file(source)
            batches: Iterable[pa.RecordBatch] = (file.get_batch(n) for n in range(file.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            file = batches = pa.ipc.open_stream(source)
        columns = _columns(file.schema.names, wanted)
        if needed is not None and not _columns(file.schema.names, [needed]):
            yield Unreadable(None, missing(needed, file.schema.names))
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


def _rows_of(batch: pa.RecordBatch, first: int) -> Iterator[Readable | Unreadable]:
    try:
        batch.validate(full=True)  # Arrow's readers do not check strings or offsets
        rows = batch.to_pylist()
    except MemoryError:
        raise
    except Exception as error:  # such as a date that Python cannot represent, or an unknown time zone
        if batch.num_rows == 1:
            yield Unreadable(first, _reason(error))
        else:  # converts each row alone, so that only the bad row is lost
            for number in range(batch.num_rows):
                yield from _rows_of(batch.slice(number, 1), first + number)
    else:
        yield from (Readable(first + number, row) for number, row in enumerate(rows))


def _reason(error: Exception) -> str:
    import pyarrow as pa

    says_enough = isinstance(error, pa.ArrowException | UnicodeDecodeError)
    return " ".join(str(error).split()) if says_enough else f"cannot be converted: {unforeseen(error)}"
