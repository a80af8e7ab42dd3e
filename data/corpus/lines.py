"""Reads the lines or paragraphs of a file, or of a byte range of it, in bounded memory, however long they are.

A line or paragraph belongs to the range in which it begins, so adjacent ranges neither share nor lose any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

SKIPPED_AT_ONCE_BYTES = 2**20
LOOKED_BACK_AT_ONCE_BYTES = 2**16

OffsetBytes = tuple[int, bytes | None]  # offset of the first byte, and the bytes; None if there are more than allowed


def read_lines(stream: BinaryIO, start: int, stop: int | None, limit_bytes: int) -> Iterator[OffsetBytes]:
    """Lines that are not blank, with their line ends. stop None: to the end of the file."""
    if start:
        stream.seek(start - 1)
        _skip_line(stream)
        start = stream.tell()
    for offset, line in _bounded(stream, start, limit_bytes):
        if stop is not None and offset >= stop:
            return
        if line is None or line.strip():
            yield offset, line


def read_paragraphs(stream: BinaryIO, start: int, stop: int | None, limit_bytes: int) -> Iterator[OffsetBytes]:
    """Paragraphs: runs of lines that are not blank."""
    from_offset = _end_of_text_before(stream, start)
    if start:
        stream.seek(from_offset)
    begin = start - 1 if from_offset else None  # of the current paragraph; if before `start`, another range has it
    held: list[bytes] = []
    held_bytes = 0
    for offset, line in _bounded(stream, from_offset, limit_bytes):
        if from_offset and offset == from_offset:
            continue  # the line end after the last text
        if line is not None and not line.strip():
            if begin is not None and begin >= start:
                yield begin, b"".join(held) if held_bytes <= limit_bytes else None
            begin = None
            continue
        if stop is not None and offset >= stop and (begin is None or begin < start):
            return
        if begin is None:
            begin, held, held_bytes = offset, [], 0
        held_bytes += limit_bytes + 1 if line is None else len(line)
        if held_bytes > limit_bytes or begin < start:
            held.clear()
        elif line is not None:
            held.append(line)
    if begin is not None and begin >= start:
        yield begin, b"".join(held) if held_bytes <= limit_bytes else None


def _bounded(stream: BinaryIO, offset: int, limit_bytes: int) -> Iterator[OffsetBytes]:
    while line := stream.readline(limit_bytes + 1):
        begin, offset = offset, offset + len(line)
        if len(line) > limit_bytes and not line.endswith(b"\n"):
            offset += _skip_line(stream)
            yield begin, None
        else:
            yield begin, line


def _skip_line(stream: BinaryIO) -> int:
    """Reads to the end of the line; returns the number of bytes read."""
    skipped = 0
    while rest := stream.readline(SKIPPED_AT_ONCE_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def _end_of_text_before(stream: BinaryIO, start: int) -> int:
    """The offset after the last byte before `start` that is not white space; 0 if there is none."""
    end = start
    while end > 0:
        begin = max(0, end - LOOKED_BACK_AT_ONCE_BYTES)
        stream.seek(begin)
        text_bytes = len(stream.read(end - begin).rstrip())
        if text_bytes:
            return begin + text_bytes
        end = begin
    return 0
