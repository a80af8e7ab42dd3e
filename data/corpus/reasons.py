"""Why something of a corpus cannot be read, in the words that its quarantine shows."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.errors import describe

HALF_A_PAIR = "half of a surrogate pair, which is no character"
TOO_DEEP = "nested too deeply"


def missing(column: str, present: Iterable[Any]) -> str:
    return f"no column {column!r}; the columns are {', '.join(map(str, present)) or 'none'}"


def not_an_object(value: Any) -> str:
    return f"wanted an object of columns, found {describe(value)}"


def not_text(error: UnicodeDecodeError) -> str:
    return f"not {error.encoding.upper()} text (byte {error.object[error.start]:#x} at {error.start})"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:g} MB"


def unforeseen(error: Exception) -> str:
    """An error's type and where in the code it was raised; not its message, which may quote the text or a memory address and
    so differ between two runs."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(raised.filename).name}, line {raised.lineno}"
