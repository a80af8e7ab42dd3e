"""Divides the files of the sources into file units. Uses only names and sizes (and the row groups of large parquet
files), so that the units do not depend on the number of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.corpus.formats import READ, ending_of, is_compressed, is_read, splits
from data.corpus.source import CorpusSource, FilePart, FileUnit, Quarantined
from data.errors import UserError, missing_file
from data.imports import load_call, names_object

LINK_OUT = "a link out of the source; add its target to the paths of the source"

SizedPart = tuple[FilePart, int]  # and its size in bytes


def plan_units(sources: Sequence[CorpusSource], unit_bytes: int) -> tuple[list[FileUnit], list[Quarantined]]:
    """The units of all sources, references first and then in order; and the files that are in no unit.

    unit_bytes: size of the files of a unit on disk. Small files share a unit. Larger files are cut if possible: lines
    and paragraphs into byte ranges, parquet between row groups. A `module:function` is one unit. Reads the files of a
    directory in the order of their names, without hidden ones; reads a file that a source lists twice once. Follows
    links only within the source's paths, so that a source reads nothing else.

    Raises UserError if a path does not exist, or if a function cannot be loaded or does not take the source's args.
    """
    units: list[FileUnit] = []
    quarantined: list[Quarantined] = []
    for source in sorted(sources, key=lambda source: not source.reference):
        sized: list[SizedPart] = []
        for path, name, reason in _files(source):
            if reason:
                quarantined.append(Quarantined(source.name, name, None, reason))
            else:
                sized.extend(_cut(path, name, source, unit_bytes))
        units += [FileUnit(source, parts) for parts in _grouped(sized, unit_bytes)]
        functions = [spec for spec in source.path if _is_function(spec)]
        for spec in functions:
            load_call(spec, source.args, f"args of source {source.name!r}")
        units += [FileUnit(source, (FilePart(spec, spec),)) for spec in functions]
    return units, quarantined


def files_of(sources: Sequence[CorpusSource]) -> list[tuple[str, int, int]]:
    """(path, size in bytes, time of the last change in nanoseconds) of the files that `plan_units` puts into units.

    Raises UserError if a path does not exist.
    """
    paths = [path for source in sources for path, _, reason in _files(source) if not reason]
    return [(path, (stat := os.stat(path)).st_size, stat.st_mtime_ns) for path in paths]


def _is_function(spec: str) -> bool:
    return names_object(spec) and not os.path.exists(spec)


def _files(source: CorpusSource) -> Iterator[tuple[str, str, str | None]]:
    """(path, name, reason) of each file, and of each directory without files. reason: why it is in no unit, or None."""
    paths = [os.path.abspath(os.path.expanduser(spec)) for spec in source.path if not _is_function(spec)]
    for path in paths:
        if not os.path.lexists(path):
            raise UserError(f"source {source.name!r}: {missing_file(Path(path))}")
    if len(paths) == 1 and os.path.isdir(paths[0]):
        base = paths[0]
    else:  # names relative to the common directory of all paths, so that they differ
        base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    roots = [os.path.realpath(path) for path in paths]
    seen: set[str] = set()
    for path in paths:
        found = (list(_below(path, roots)) if os.path.isdir(path) else []) or [path]
        for file in sorted(found, key=lambda file: _name(file, base)):
            if file not in seen:
                name = _name(file, base)
                yield file, name, LINK_OUT if _leads_out(file, roots) else _unreadable(file, name, source.kind)
        seen.update(found)


def _leads_out(path: str, roots: Sequence[str]) -> bool:
    """Whether this is a link to what is in none of these directories."""
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return not any(os.path.commonpath([root, target]) == root for root in roots)


def _below(directory: str, roots: Sequence[str]) -> Iterator[str]:
    """The files below the directory, without hidden ones; directories that may not be listed; links that lead out of
    the roots. Follows other links to directories, each directory once."""
    seen: set[str] = set()
    unlisted: list[str] = []
    for folder, subfolders, files in os.walk(
        directory, followlinks=True, onerror=lambda error: unlisted.append(error.filename)
    ):
        if os.path.realpath(folder) in seen:
            subfolders.clear()
            continue
        seen.add(os.path.realpath(folder))
        shown = sorted(name for name in subfolders if not name.startswith("."))
        left_out = [name for name in shown if _leads_out(os.path.join(folder, name), roots)]
        subfolders[:] = [name for name in shown if name not in left_out]
        yield from (os.path.join(folder, name) for name in left_out)
        yield from (os.path.join(folder, name) for name in files if not name.startswith("."))
    yield from unlisted


def _name(path: str, base: str) -> str:
    name = os.path.relpath(path, base).replace(os.sep, "/")
    return os.fsencode(name).decode("utf-8", "backslashreplace")  # file names need not be UTF-8


def _unreadable(path: str, name: str, kind: str) -> str | None:
    """Why this file is in no unit, or None."""
    if os.path.isdir(path):
        return "a directory without files, or one that may not be listed"
    if not is_read(name, kind):
        if is_read(name.lower().removesuffix(".gz"), kind):
            return f"{ending_of(name)} files are read without .gz only"
        wanted = ", ".join(READ[kind]) if kind != "code" else "endings of programming languages, .jsonl, .parquet, …"
        return f"a source of kind {kind} reads no {ending_of(name) or 'files without an ending'} (it reads {wanted})"
    if not os.path.exists(path):
        return "a link to nothing"
    if not os.path.isfile(path):
        return "not a regular file"
    return None if os.path.getsize(path) else "the file is empty"


def _cut(path: str, name: str, source: CorpusSource, unit_bytes: int) -> Iterator[SizedPart]:
    size, ending = os.path.getsize(path), ending_of(name)
    of_lines = ending == ".jsonl" or (source.split != "file" and splits(name, source.kind))
    if size > unit_bytes and of_lines and not is_compressed(name):
        for start in range(0, size, unit_bytes):
            end = start + unit_bytes
            yield FilePart(path, name, start, end if end < size else None), min(end, size) - start
    elif size > unit_bytes and ending == ".parquet":
        yield from _cut_parquet(path, name, size, unit_bytes)
    else:
        yield FilePart(path, name), size


def _cut_parquet(path: str, name: str, size: int, unit_bytes: int) -> Iterator[SizedPart]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        yield FilePart(path, name), size  # the reader says what is wrong
        return
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    sizes = [sum(group.column(n).total_compressed_size for n in range(group.num_columns)) for group in groups]
    start, held = 0, 0
    for number, group_bytes in enumerate(sizes):
        if held and held + group_bytes > unit_bytes:
            yield FilePart(path, name, start, number), held
            start, held = number, 0
        held += group_bytes
    yield FilePart(path, name, start, None), held


def _grouped(sized: Sequence[SizedPart], unit_bytes: int) -> Iterator[tuple[FilePart, ...]]:
    held: list[FilePart] = []
    held_bytes = 0
    for part, part_bytes in sized:
        if held and held_bytes + part_bytes > unit_bytes:
            yield tuple(held)
            held, held_bytes = [], 0
        held.append(part)
        held_bytes += part_bytes
    if held:
        yield tuple(held)
