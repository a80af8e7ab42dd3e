"""A document of a corpus, and the parquet files that documents rest in between two stages and at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.corpus.source import Kind

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("file", pa.string()),
        ("place", pa.int64()),
        ("url", pa.string()),
        ("marks", pa.string()),
    ]
)
READ_AT_ONCE = 64  # documents
ROW_GROUP_BYTES = 2 * 2**20  # what a reader or writer holds at once
ROW_BYTES = 500  # of a row's Python objects beside their characters


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    text: str
    id: str  # unique in the corpus: <source>/<file>#<place>, with more parts where a row gave several documents
    source: str
    kind: Kind
    file: str  # relative to the source's path
    place: int  # in the file: row, or byte of the line's beginning; 0 for a whole file
    language: str = ""  # ISO 639-1, as the source or the language step says; "" where nobody said
    url: str = ""
    marks: Mapping[str, Any] = field(
        default_factory=dict
    )  # what steps noted, JSON values: scores, counts of masked words


class Shard:
    """Writes documents into a parquet file that is there whole or not at all. The same documents give the same bytes."""

    def __init__(self, path: Path):
        self._path, self._partial = path, path.with_name(f".{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._partial, SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, kind: type | None, *exc: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            os.replace(self._partial, self._path)

    def add(self, document: Document) -> None:
        row = {name: getattr(document, name) for name in SCHEMA.names}
        row["marks"] = json.dumps(document.marks, sort_keys=True, ensure_ascii=False) if document.marks else ""
        self._rows.append(row)
        self._bytes += ROW_BYTES + sum(len(value) for value in row.values() if isinstance(value, str))
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows, self._bytes = [], 0


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    with Shard(path) as shard:
        for document in documents:
            shard.add(document)


def read_documents(path: Path) -> Iterator[Document]:
    """In their order, one row group in memory at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):  # asked for all at once, it gives batches of several groups
            for batch in file.iter_batches(READ_AT_ONCE, [group], use_threads=False):
                for row in batch.to_pylist():
                    yield Document(**{**row, "marks": json.loads(row["marks"]) if row["marks"] else {}})
