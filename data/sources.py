"""Opens files, directories, named data sets and functions as one indexable sequence of dict rows."""

from __future__ import annotations

import bisect
import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from data.errors import UserError, missing_file
from data.imports import load_call, names_object
from data.messages import lookup
from data.row_files import FORMATS, SourcePart, Unreadable, format_of, load_dataset, open_file

BOOKKEEPING = {"dataset_info.json", "state.json", "dataset_dict.json"}  # beside the .arrow files of a saved data set


class Rows(Sequence[dict]):
    """The rows of one or several parts, with columns renamed. None stands for a value that a row lacks."""

    def __init__(self, parts: Sequence[SourcePart], renamed: Mapping[str, str], limit: int | None):
        self._parts = parts
        self._renamed = dict(renamed)
        self._ends = list(itertools.accumulate(len(part.rows) for part in parts))
        self._length = min(self._ends[-1], limit or self._ends[-1])
        self.name = parts[0].name if len(parts) == 1 else f"{parts[0].name} and {len(parts) - 1} more"

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises UserError where the row is not UTF-8: Arrow notices only when a row is read."""
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
        """The row's place in its file, for messages: `file, row N`, counted from 1."""
        part, offset = self._locate(index)
        return f"{part.name}, row {offset + 1}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, after renaming."""
        names = [name for name in _columns(self._parts) if name not in self._renamed.values()]
        return tuple(dict.fromkeys([*names, *self._renamed]))

    @cached_property
    def fingerprint(self) -> str:
        """Hex hash of the content. Moving, copying or touching a file does not change it."""
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
    """Opens one source, or several as one sequence. Nothing is downloaded.

    path: a .jsonl, .json, .parquet, .arrow or .txt file (each also .gz); a directory of files of one of these formats; the
        name of a data set in the Hugging Face cache; or `module:function`, a function that yields dict rows. A .txt file is
        one row, {"text": the whole file}: one document, which is cut to the length of training rows later.
    split: of a named data set. args: of a named data set (passed to `load_dataset`), or the function's keyword arguments.
    columns: {wanted name: name in the file}; a dotted name reaches into a nested column.
    limit: read only so many rows, the first ones.

    Raises UserError where a source is missing, empty or broken, or lacks a column.
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
    """One line: the missing column, the present ones, how to map one."""
    near = difflib.get_close_matches(name, present, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"map one with data.columns: {{{wanted or name}: <its name>}}"
    asked = f" (to be {wanted!r})" if wanted else ""
    return f"{where}: no column {name!r}{asked}; the columns are {', '.join(present) or 'none'}; {hint}"


def _open(spec: str, split: str, args: Mapping[str, Any]) -> list[SourcePart]:
    path = Path(spec).expanduser()
    if path.exists():
        return [open_file(file) for file in (_files(path) if path.is_dir() else [path])]
    if names_object(spec):
        return [_call(spec, args)]
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", spec) and format_of(path) is None:
        return [_open_cached(spec, split, args)]
    raise UserError(missing_file(path))


def _files(directory: Path) -> list[Path]:
    files = [file for file in sorted(directory.rglob("*")) if format_of(file) and file.name not in BOOKKEEPING]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(directory).parts)]
    if not files:
        raise UserError(f"{directory}: no data files; wanted {', '.join(FORMATS)} (or one of these with .gz)")
    found = sorted({format_of(file) for file in files})
    if len(found) > 1:
        raise UserError(
            f"{directory}: files of several formats ({', '.join(found)}); list the files that are data in data.path"
        )
    return files


def _open_cached(name: str, split: str, args: Mapping[str, Any]) -> SourcePart:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(name, repo_type="dataset", local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"{missing_file(Path(name))}; the Hugging Face cache has no data set of this name (fetch one with: "
            f"hf download --repo-type dataset {name})"
        ) from error
    try:
        rows = load_dataset(snapshot, split=split, **args)
    except Unreadable as unreadable:
        error = unreadable.__cause__
        raise UserError(f"data set {name}, split {split!r}: {' '.join(str(error).split())}") from error
    # the snapshot's directory has the commit's name, which identifies the content
    identity = json.dumps([name, Path(snapshot).name, split, dict(args)], sort_keys=True)
    return SourcePart(f"{name} ({split})", rows, tuple(rows.column_names), lambda: identity)


def _call(spec: str, args: Mapping[str, Any]) -> SourcePart:
    rows = list(load_call(spec, args, "data.args")())
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{spec}, row {number}: wanted a dict, found {type(row).__name__}")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return SourcePart(spec, rows, columns, lambda: _rows_digest(rows))


def _columns(parts: Sequence[SourcePart]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part.columns))


def _rows_digest(rows: Sequence[dict]) -> str:
    digest = hashlib.blake2b()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()
