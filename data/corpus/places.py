"""What the readers return for each place of a file, and the reasons that a corpus's quarantine shows."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import describe

HALF_A_PAIR = "half of a surrogate pair, which is no character"
TOO_DEEP = "nested too deeply"


class Readable(NamedTuple):
    """The content of one place."""

    place: int
    content: Any  # text, or a row
    url: str = ""
    language: str = ""


class Unreadable(NamedTuple):
    """Why a place cannot be read. place None: the rest of the file."""

    place: int | None
    reason: str


def missing(column: str, present: Iterable[Any]) -> str:
    return f"no column {column!r}; the columns are {', '.join(map(str, present)) or 'none'}"


def not_an_object(value: Any) -> str:
    return f"wanted an object of columns, found {describe(value)}"


def not_text(error: UnicodeDecodeError) -> str:
    return f"not {error.encoding.upper()} text (byte {error.object[error.start]:#x} at {error.start})"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:g} MB"


def unforeseen(error: Exception) -> str:
    """The error's type and source line. Leaves out its message, which may quote the text or a memory address, so that
    two runs give the same reason."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(raised.filename).name}, line {raised.lineno}"
