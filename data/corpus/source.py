"""Sources of a corpus, the units of work that their files are divided into, and what could not be read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["web", "text", "book", "code", "scientific", "dialogue"]


@dataclass(frozen=True)
class Source:
    """Files of one kind; the config's `sources` entry (`rlhf.config.corpus.Source`) in plain values."""

    name: str
    path: tuple[str, ...]  # files, directories, or module:function that yields dict rows
    kind: Kind
    language: str = ""  # ISO 639-1, where all documents have one
    column: str = "text"  # of rows (.jsonl, .parquet, …)
    split: Literal["file", "lines", "paragraphs"] = "file"  # how a plain file becomes documents
    args: Mapping[str, Any] = field(default_factory=dict)  # of module:function
    reference: bool = False  # known text: what repeats it is dropped, and it is not written out


@dataclass(frozen=True)
class Part:
    """A file or a piece of one."""

    path: str  # that opens it; of a function, module:function
    name: str  # relative to the source's path, with / between directories
    start: int = 0  # bytes of lines, row groups of parquet
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Unit:
    """What one worker reads at once; depends on the files alone, not on how many workers there are."""

    source: Source
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Quarantined:
    """What could not be read: a file, or one place of it. Nothing is left out without one of these."""

    source: str
    file: str
    place: int | None  # as `Document.place`; None: the rest of the file
    reason: str
    read: int = 0  # documents that had been read of the file before

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Record:
    """What a reader found, before text is made of it."""

    content: Any  # str: text or markup; of dialogues the row, a dict
    unit: Unit
    part: Part
    place: int
    url: str = ""
    language: str = ""
