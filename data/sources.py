"""Where rows come from: files, directories, named data sets and functions, all as one indexable sequence of dict rows."""

from __future__ import annotations

import bisect
import difflib
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import UserError, check_json_lines, check_whole, missing_file
from data.imports import load_call, names_object
from data.messages import lookup

if TYPE_CHECKING:
    import datasets

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".arrow": "arrow", ".txt": "text"}
BOOKKEEPING = {"dataset_info.json", "state.json", "dataset_dict.json"}  # beside the .arrow files of a saved data set


@dataclass(frozen=True)
class SourcePart:
    """The rows of one file, data set or function."""

    name: str
    rows: Sequence[dict]  # a memory-mapped datasets.Dataset, or the list that a function gave
    columns: tuple[str, ...]
    digest: Callable[[], str]  # of the content; only computed when asked for


class Rows(Sequence[dict]):
    """Rows of one or several parts, with columns renamed. Null stands for a value that a row does not have."""

    def __init__(self, parts: Sequence[SourcePart], renamed: Mapping[str, str], limit: int | None):
        self._parts = parts
        self._renamed = dict(renamed)
        self._ends = list(itertools.accumulate(len(part.rows) for part in parts))
        self._length = min(self._ends[-1], limit or self._ends[-1])
        self.name = parts[0].name if len(parts) == 1 else f"{parts[0].name} and {len(parts) - 1} more"

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises UserError where the row is not UTF-8, which Arrow only finds out when it is read."""
        part, offset = self._locate(index)
        try:
            row = part.rows[offset]
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.origin(index)}: not UTF-8 text ({error.reason}); convert the file to UTF-8"
            ) from error
        if not self._renamed:
            return row
        kept = {name: value for name, value in row.items() if name not in self._renamed.values()}
        return kept | {wanted: lookup(row, name) for wanted, name in self._renamed.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def origin(self, index: int) -> str:
        """`file, row N`, counted from 1: where the row is found in its file."""
        part, offset = self._locate(index)
        return f"{part.name}, row {offset + 1}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, after renaming."""
        names = [name for name in _columns(self._parts) if name not in self._renamed.values()]
        return tuple(dict.fromkeys([*names, *self._renamed]))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content, in hexadecimal: moving, copying or touching a file does not change it."""
        described = [[part.digest() for part in self._parts], sorted(self._renamed.items()), len(self)]
        return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()

    def require(self, *names: str) -> None:
        """Raises UserError where one of these columns is missing."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise UserError(missing_column(self.name, missing[0], self.columns))

    def _locate(self, index: int) -> tuple[SourcePart, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        place = bisect.bisect_right(self._ends, index)
        return self._parts[place], index - (self._ends[place - 1] if place else 0)


def open_rows(
    path: str | list[str],
    *,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    args: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> Rows:
    """Opens one source or several under each other. Nothing is downloaded.

    path: a .jsonl, .json, .parquet, .arrow or .txt file (each also .gz); a directory of files of one such format; the
        name of a data set in the Hugging Face cache; or `module:function`, which yields dict rows. A .txt file is one
        row, {"text": the whole file}: one document, which is split to the length of a training row later.
    split, args: of a named data set (args go to `load_dataset`); args are also the function's keyword arguments.
    columns: name that is wanted -> name in the file; a dotted name reaches into a nested column.
    limit: the first rows only.

    Raises UserError, one line, where a source is missing, empty or broken, or lacks a column.
    """
    columns, args = columns or {}, args or {}
    specs = [path] if isinstance(path, str) else path
    if args and all(Path(spec).expanduser().exists() for spec in specs):
        raise UserError(f"{specs[0]} is a file or directory, which takes no data.args (got {', '.join(args)})")
    parts = [part for spec in specs for part in _open(spec, split, args)]
    if not any(len(part.rows) for part in parts):
        raise UserError(f"{parts[0].name if parts else 'data.path'}: no rows")
    present = _columns(parts)
    for wanted, name in columns.items():
        if name not in present and name.split(".")[0] not in present:
            raise UserError(missing_column(parts[0].name, name, present, wanted))
    return Rows(parts, columns, limit)


def missing_column(where: str, name: str, present: Sequence[str], wanted: str = "") -> str:
    """One line: what is missing, what is there, how to map it."""
    near = difflib.get_close_matches(name, present, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"map one with data.columns: {{{wanted or name}: <its name>}}"
    asked = f" (to be {wanted!r})" if wanted else ""
    return f"{where}: no column {name!r}{asked}; the columns are {', '.join(present) or 'none'}; {hint}"


def _open(spec: str, split: str, args: Mapping[str, Any]) -> list[SourcePart]:
    path = Path(spec).expanduser()
    if path.exists():
        return [_open_file(file) for file in (_files(path) if path.is_dir() else [path])]
    if names_object(spec):
        return [_call(spec, args)]
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", spec) and _format(path) is None:
        return [_open_cached(spec, split, args)]
    raise UserError(missing_file(path))


def _files(directory: Path) -> list[Path]:
    files = [file for file in sorted(directory.rglob("*")) if _format(file) and file.name not in BOOKKEEPING]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(directory).parts)]
    if not files:
        raise UserError(f"{directory}: no data files; wanted {', '.join(FORMATS)} (or one of these with .gz)")
    found = sorted({_format(file) for file in files})
    if len(found) > 1:
        raise UserError(
            f"{directory}: files of several formats ({', '.join(found)}); list the files that are data in data.path"
        )
    return files


def _open_file(file: Path) -> SourcePart:
    kind = _format(file)
    if kind is None:
        raise UserError(f"{file}: unknown format; wanted {', '.join(FORMATS)} (or one of these with .gz)")
    if file.stat().st_size == 0:
        raise UserError(f"{file}: the file is empty")
    try:
        rows = _load_json(file) if kind == "json" else _load_file(file, kind)
    except _Unreadable as unreadable:
        error = unreadable.__cause__
        if kind in ("json", "text"):
            check_whole(file, kind)
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise UserError(f"{file}: cannot be read as {kind}: {reason}") from error
    return SourcePart(str(file), rows, tuple(rows.column_names), lambda: _file_digest(file))


class _Unreadable(Exception):
    """`datasets` could not read a file or a data set; the cause is its error."""


def _load_dataset(path: str, **options: Any) -> datasets.Dataset:
    """`datasets.load_dataset` without progress bars and log lines: its errors are reported here, in one line."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # reading a local file must not call the hub's download counter
    level, bars = datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, **options)
    except (datasets.exceptions.DatasetsError, ValueError, OSError, EOFError, StopIteration, zlib.error) as error:
        raise _Unreadable from error
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _load_file(file: Path, kind: str, features: datasets.Features | None = None) -> datasets.Dataset:
    options = {"text": {"sample_by": "document"}, "json": {"features": features, "parse_agent_traces": False}}
    return _load_dataset(kind, data_files={"train": [str(file)]}, split="train", **options.get(kind, {}))


def _load_json(file: Path) -> datasets.Dataset:
    """Arrow infers a column's type from the file's first rows, and reads text that looks like a date as a date. Columns of
    dates, and all columns where a later row has another type, are kept as the JSON values that the file has."""
    import datasets

    try:
        rows = _load_file(file, "json")
    except _Unreadable:
        if ".jsonl" not in file.suffixes:
            raise
        return _load_file(file, "json", datasets.Features(dict.fromkeys(check_json_lines(file), datasets.Json())))
    features = {name: datasets.Json() if "timestamp[" in str(kind) else kind for name, kind in rows.features.items()}
    return rows if features == rows.features else _load_file(file, "json", datasets.Features(features))


def _open_cached(name: str, split: str, args: Mapping[str, Any]) -> SourcePart:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(name, repo_type="dataset", local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"{missing_file(Path(name))}; nor is a data set of this name in the Hugging Face cache (fetch one with: "
            f"hf download --repo-type dataset {name})"
        ) from error
    try:
        rows = _load_dataset(snapshot, split=split, **args)
    except _Unreadable as unreadable:
        error = unreadable.__cause__
        raise UserError(f"data set {name}, split {split!r}: {' '.join(str(error).split())}") from error
    # the snapshot's directory is named after the commit, which stands for the content
    identity = json.dumps([name, Path(snapshot).name, split, dict(args)], sort_keys=True)
    return SourcePart(f"{name} ({split})", rows, tuple(rows.column_names), lambda: identity)


def _call(spec: str, args: Mapping[str, Any]) -> SourcePart:
    rows = list(load_call(spec, args, "data.args")())
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{spec}, row {number}: wanted a dict, found {type(row).__name__}")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return SourcePart(spec, rows, columns, lambda: _rows_digest(rows))


def _format(path: Path) -> str | None:
    return FORMATS.get(Path(path.stem).suffix if path.suffix == ".gz" else path.suffix)


def _columns(parts: Sequence[SourcePart]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part.columns))


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _rows_digest(rows: Sequence[dict]) -> str:
    digest = hashlib.blake2b()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()
