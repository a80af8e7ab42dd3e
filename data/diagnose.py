"""Why a file could not be read: after a reader has failed, finds the first row at fault and says so in one line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def describe_failure(file: Path, kind: str, error: Exception) -> str:
    """`file, row N: what is wrong`. `kind` is the reader that failed with `error`: json, text, parquet or arrow."""
    try:
        return _inspect(file, kind) or f"{file}: cannot be read as {kind}: {_reason(error)}"
    except gzip.BadGzipFile:
        return f"{file}: the name ends in .gz, but the file is not gzip"
    except (EOFError, zlib.error):
        return f"{file}: the gzip file is cut off or damaged; copy or download it again"


def _inspect(file: Path, kind: str) -> str | None:
    if kind not in ("json", "text"):
        return None
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
        if kind == "json" and ".jsonl" in file.suffixes:
            return _inspect_lines(file, stream)
        return _inspect_whole(file, kind, stream.read())


def _inspect_lines(file: Path, lines: Iterable[bytes]) -> str | None:
    kinds: dict[str, tuple[str, int]] = {}  # column -> what its values are, and where that was first seen
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        try:
            row = json.loads(line.rstrip())
        except UnicodeDecodeError as error:
            return f"{file}, row {number}: not UTF-8 text (byte {line[error.start]:#x} at {error.start}); convert the file to UTF-8"
        except json.JSONDecodeError as error:
            return f"{file}, row {number}: broken JSON at character {error.colno}: {error.msg}"
        if not isinstance(row, dict):
            return f"{file}, row {number}: wanted an object of columns, found {describe(row)}"
        for column, value in row.items():
            if value is None:
                continue
            found = describe(value)
            first, where = kinds.setdefault(column, (found, number))
            if found != first:
                return f"{file}, row {number}: column {column!r} is {found}, but in row {where} it is {first}"
    return None if number else f"{file}: no rows"


def _inspect_whole(file: Path, kind: str, content: bytes) -> str | None:
    try:
        text = content.decode()
        if kind == "json":
            json.loads(text)
    except UnicodeDecodeError as error:
        return f"{file}: not UTF-8 text (byte {content[error.start]:#x} at {error.start}); convert the file to UTF-8"
    except json.JSONDecodeError as error:
        return f"{file}, line {error.lineno}: broken JSON at character {error.colno}: {error.msg}"
    return None


def describe(value: Any) -> str:
    """What a value is, in JSON's words."""
    return "null" if value is None else NAMES.get(type(value), type(value).__name__)


def _reason(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split()) or type(error).__name__
