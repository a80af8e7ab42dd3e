"""A document of a corpus, and the parquet files that hold documents between two passes and in the artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.source import SourceKind
from data.corpus.work import whole_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

COLUMNS = ("id", "text", "source", "kind", "language", "file", "place", "url", "marks")  # strings; place is int64
READ_AT_ONCE = 64  # documents
ROW_GROUP_BYTES = 2 * 2**20  # the most that a reader or writer holds at once
ROW_BYTES = 500  # of a row's Python objects beside their characters


@dataclass(frozen=True)
class Document:
    """One text and its origin."""

    text: str
    id: str  # unique in the corpus: <source>/<file>#<place>, with .<number> where a row gave several documents
    source: str
    kind: SourceKind
    file: str  # relative to the source's path
    place: int  # row number, or byte offset of the first line; 0 for a whole file
    language: str = ""  # ISO 639-1, from the source or the language step; "" if unknown
    url: str = ""
    marks: Mapping[str, Any] = field(default_factory=dict)  # notes of the steps, JSON values: scores, counts


def draw(document: Document, purpose: str) -> float:
    """A random number in [0, 1) that depends only on the document's source, file and place, and on the purpose: the
    same in every run, on every worker, in any order.

    All documents of one row, such as the conversations of one tree, which begin alike, share it. Different purposes,
    such as a step's name and seed, draw independently.
    """
    row = f"{document.source}/{document.file}#{document.place}"
    digest = hashlib.blake2b(row.encode(), digest_size=8, key=hashlib.blake2b(purpose.encode()).digest()).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


class DocumentFile:
    """Adds documents to a parquet file. The same documents give the same bytes."""

    def __init__(self, writer: ParquetWriter):
        self._writer = writer
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    @classmethod
    @contextmanager
    def writing(cls, path: Path) -> Iterator[DocumentFile]:
        """The file appears when the block ends, and not if it raises."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.int64() if name == "place" else pa.string()) for name in COLUMNS])
        with whole_file(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            file = cls(writer)
            yield file
            file.flush()

    def add(self, document: Document) -> None:
        row = {name: getattr(document, name) for name in COLUMNS}
        row["marks"] = json.dumps(document.marks, sort_keys=True, ensure_ascii=False) if document.marks else ""
        self._rows.append(row)
        self._bytes += ROW_BYTES + sum(len(value) for value in row.values() if isinstance(value, str))
        if self._bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._writer.schema))
        self._rows, self._bytes = [], 0


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    with DocumentFile.writing(path) as file:
        for document in documents:
            file.add(document)


def read_documents(path: Path) -> Iterator[Document]:
    """In the file's order, with one row group in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):  # several groups in one call would be read into one batch
            for batch in file.iter_batches(READ_AT_ONCE, [group], use_threads=False):
                for row in batch.to_pylist():
                    yield Document(**{**row, "marks": json.loads(row["marks"]) if row["marks"] else {}})
