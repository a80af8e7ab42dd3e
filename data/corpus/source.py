"""The sources of a corpus, the file units that their files are divided into, and the records read from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SourceKind = Literal["web", "text", "book", "code", "scientific", "dialogue"]


@dataclass(frozen=True)
class CorpusSource:
    """Files of one kind: the plain values of the config's `sources` entry (`rlhf.config.corpus.Source`)."""

    name: str
    path: tuple[str, ...]  # files, directories, or module:function that yields dict rows
    kind: SourceKind
    language: str = ""  # ISO 639-1, if all documents have the same
    column: str = "text"  # the column of rows (.jsonl, .parquet, …) that holds the text
    split: Literal["file", "lines", "paragraphs"] = "file"  # how a plain text file becomes documents
    args: Mapping[str, Any] = field(default_factory=dict)  # of module:function
    reference: bool = False  # known text: duplicates of it are dropped, and it is not written out


@dataclass(frozen=True)
class FilePart:
    """A file or a range of it."""

    path: str  # to open it; for a function, module:function
    name: str  # relative to the source's path, with / between directories
    start: int = 0  # byte offset for lines and paragraphs, row group for parquet
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class FileUnit:
    """About `unit_mb` of one source's files: what one piece of work reads. Depends on the files alone, not on the
    number of workers. Called *unit* where its number in the corpus is meant."""

    source: CorpusSource
    parts: tuple[FilePart, ...]


@dataclass(frozen=True)
class Quarantined:
    """A file, or one place of it, that could not be read. Everything that is left out has one."""

    source: str
    file: str
    place: int | None  # as `Document.place`; None: the rest of the file
    reason: str
    read: int = 0  # documents read from the file before this place

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Record:
    """The content that a reader found at one place. An extractor makes documents of it."""

    content: Any  # text or markup; for dialogues the row, a dict
    unit: FileUnit
    part: FilePart
    place: int
    url: str = ""
    language: str = ""
