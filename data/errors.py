"""Errors of the user's making: one line that says what, where and how to fix it. The command line prints them and exits with 2."""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

NAMES = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


class UserError(Exception):
    """Raise with one line: what is wrong, where, and what to do about it."""


def describe(value: Any) -> str:
    """What a value is, in JSON's words."""
    return "null" if value is None else NAMES.get(type(value), type(value).__name__)


def missing_file(path: Path) -> str:
    """One line: what does not exist, and what is there of a similar name."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist: there is no directory {folder}"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    return f"{path} does not exist" + (f"; {folder} has {', '.join(near)}" if near else "")


def check_json_lines(file: Path) -> list[str]:
    """The names of all columns of a file of JSON lines.

    Raises UserError where a row is broken or no object, or where there is no row.
    """
    columns: dict[str, None] = {}
    number = 0
    with _opened(file) as stream:
        for line in stream:
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(_decoded(line, f"{file}, row {number}").rstrip())
            except json.JSONDecodeError as error:
                raise UserError(f"{file}, row {number}: broken JSON at character {error.colno}: {error.msg}") from error
            if not isinstance(row, dict):
                raise UserError(f"{file}, row {number}: wanted an object of columns, found {describe(row)}")
            columns |= dict.fromkeys(row)
    if not number:
        raise UserError(f"{file}: no rows")
    return list(columns)


def check_whole(file: Path, kind: str) -> None:
    """Raises UserError where a .json or .txt file is damaged, not UTF-8 or not JSON; `kind` is json or text."""
    with _opened(file) as stream:
        text = _decoded(stream.read(), str(file))
    if kind == "json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{file}, line {error.lineno}: broken JSON at character {error.colno}: {error.msg}"
            ) from error


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            yield stream
    except gzip.BadGzipFile as error:
        raise UserError(f"{file}: the name ends in .gz, but the file is not gzip") from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"{file}: the gzip file is cut off or damaged; copy or download it again") from error


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        wrong = f"byte {content[error.start]:#x} at {error.start}"
        raise UserError(f"{where}: not UTF-8 text ({wrong}); convert the file to UTF-8") from error
