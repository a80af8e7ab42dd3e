"""Reads one file of rows: small uniform files directly, others through `datasets`. After a failure, finds the broken row."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from data.errors import UserError, describe

if TYPE_CHECKING:
    import datasets

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".arrow": "arrow", ".txt": "text"}
PLAIN_BYTES = 2**23  # largest file that is read into memory, without `datasets`


@dataclass(frozen=True)
class SourcePart:
    """The rows of one file, data set or function, and its name for messages."""

    name: str
    rows: Sequence[dict]  # a memory-mapped datasets.Dataset, or the list that a function gave
    columns: tuple[str, ...]
    digest: Callable[[], str]  # hash of the content; computed on request


def open_file(file: Path) -> SourcePart:
    """The rows of a file. Raises UserError where its format is unknown, and where it is empty or broken."""
    kind = format_of(file)
    if kind is None:
        raise UserError(f"{file}: unknown format; wanted {', '.join(FORMATS)} (or one of these with .gz)")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: the file is empty")
    plain = _read_plain(file)
    if plain is not None:
        return SourcePart(str(file), plain, tuple(plain[0]), lambda: _file_digest(file))
    try:
        rows = _load_json(file) if kind == "json" else _load_file(file, kind)
    except Unreadable as unreadable:
        error = unreadable.__cause__
        if kind in ("json", "text"):
            _check_whole(file, kind)
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise UserError(f"{file}: cannot be read as {kind}: {reason}") from error
    return SourcePart(str(file), rows, tuple(rows.column_names), lambda: _file_digest(file))


def format_of(path: Path) -> str | None:
    """The format that the file's name tells, a value of `FORMATS`; None where it tells none."""
    return FORMATS.get(Path(path.stem).suffix if path.suffix == ".gz" else path.suffix)


def _read_plain(file: Path) -> list[dict[str, Any]] | None:
    """The rows of a small .txt or .jsonl file. Saves the import of `datasets`, nearly two seconds.

    None where `datasets` might give other values or an error: for other files, and where a row is broken, a column's types
    differ, or an object lacks a key.
    """
    if file.suffix not in (".txt", ".jsonl") or file.stat().st_size > PLAIN_BYTES:
        return None
    try:
        if file.suffix == ".txt":
            return [{"text": file.read_text("utf-8")}]
        lines = file.read_bytes().decode().split("\n")
        rows = [json.loads(line, object_pairs_hook=_without_repeats) for line in lines if line.strip()]
        kinds = {_kind_of(row) for row in rows}
    except (ValueError, RecursionError):
        return None
    return rows if len(kinds) == 1 and isinstance(rows[0], dict) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values. Raises ValueError where it is empty or a key is given twice."""
    found = dict(pairs)
    if not found or len(found) < len(pairs):
        raise ValueError("no key, or one that is given twice")
    return found


def _kind_of(value: Any) -> Any:
    """The type of a JSON value, hashable. Values of equal types have the same Arrow type, which keeps them as they are.

    Raises ValueError for other values: null, lists that are empty or of several types, numbers of more than 64 bits.
    """
    if isinstance(value, dict):
        return tuple((name, _kind_of(each)) for name, each in value.items())
    if isinstance(value, list):
        kinds = {_kind_of(each) for each in value}
        if len(kinds) != 1:
            raise ValueError("an empty list, or one of several types")
        return list, *kinds
    if isinstance(value, str):
        value.encode()  # raises ValueError where half of a surrogate pair stands alone
    elif value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("no value of a fixed type")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("more than 64 bits")
    return type(value)


class Unreadable(Exception):
    """`datasets` could not read a file or a data set. The cause is its error."""


def load_dataset(path: str, **options: Any) -> datasets.Dataset:
    """`datasets.load_dataset` without progress bars and log lines. Raises Unreadable where it fails."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # reading a local file must not call the hub's download counter
    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, **options)
    except (datasets.exceptions.DatasetsError, ValueError, OSError, EOFError, StopIteration, zlib.error) as error:
        raise Unreadable from error
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _load_file(file: Path, kind: str, features: datasets.Features | None = None) -> datasets.Dataset:
    options = {"text": {"sample_by": "document"}, "json": {"features": features, "parse_agent_traces": False}}
    return load_dataset(kind, data_files={"train": [str(file)]}, split="train", **options.get(kind, {}))


def _load_json(file: Path) -> datasets.Dataset:
    """Arrow infers a column's type from the file's first rows, and reads text that looks like a date as a date. Columns of
    dates, and all columns where a later row has another type, are kept as the JSON values that the file has."""
    import datasets

    try:
        rows = _load_file(file, "json")
    except Unreadable:
        if ".jsonl" not in file.suffixes:
            raise
        return _load_file(file, "json", datasets.Features(dict.fromkeys(_check_json_lines(file), datasets.Json())))
    features = {name: datasets.Json() if "timestamp[" in str(kind) else kind for name, kind in rows.features.items()}
    return rows if features == rows.features else _load_file(file, "json", datasets.Features(features))


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _check_json_lines(file: Path) -> list[str]:
    """The names of all columns in a file of JSON lines.

    Raises UserError where a row is broken or not an object, and where the file has no rows.
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


def _check_whole(file: Path, kind: str) -> None:
    """Raises UserError where a .json or .txt file (`kind`: json or text) is damaged, not UTF-8 or not JSON."""
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
