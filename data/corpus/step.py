"""The base classes of cleaning steps: small frozen dataclasses whose fields are their parameters in YAML.

A step keeps, changes or drops each document. A step that must see the whole corpus first (duplicates) or learn
something (a classifier) is a `Preparation`: it makes the step that the documents then pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data.corpus.document import Document, read_documents
from data.corpus.source import SourceKind
from data.corpus.work import Work


@dataclass(frozen=True)
class Dropped:
    """Why a document is dropped: a short phrase that many documents share, such as "too few words"."""

    reason: str


Outcome = Document | Dropped


@dataclass(frozen=True)
class Placed:
    """A document, the number of its unit, and its row in the unit's file of the stage that the step reads."""

    document: Document
    unit: int
    row: int


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """Subclasses are frozen dataclasses, deterministic, and picklable, because they are sent to the workers.

    kinds: applies to documents of these kinds of sources; empty: all. Other documents pass unchanged.
    sources: applies to documents of the sources of these names; empty: all.
    """

    only_kinds: ClassVar[tuple[str, ...]] = ()  # the class's default for `kinds`
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}
    kinds: tuple[SourceKind, ...] | None = None  # default: only_kinds
    sources: tuple[str, ...] = ()

    def meant_for(self, document: Document) -> bool:
        kinds = self.only_kinds if self.kinds is None else self.kinds
        return (not kinds or document.kind in kinds) and (not self.sources or document.source in self.sources)

    @abstractmethod
    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        """The outcome of each document, in order. The documents are consecutive in their unit. To change a text, return
        a new document (`dataclasses.replace`)."""


@dataclass(frozen=True, kw_only=True)
class Single(Step):
    """A step that looks at one document at a time."""

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        return [self.look(each.document) for each in placed]

    @abstractmethod
    def look(self, document: Document) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Preparation(Step):
    """A step that prepares itself: `prepare` runs once, before the documents pass.

    needs_corpus: whether it reads the documents that the steps before it leave. These are written to disk first.
    """

    needs_corpus: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, stage: Stage, work: Work) -> Step:
        """The step for the documents of `stage`, which it gets in the same units and rows. It has the `kinds` and
        `sources` of the preparation. Do heavy work in `work.map`, which runs it on the cluster, and only once. Read the
        stage only there: in a resumed run whose pieces are all done, it may be deleted."""

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        raise TypeError(f"{type(self).__name__} must be prepared before it is applied")


@dataclass(frozen=True)
class Stage:
    """Documents on disk: one parquet file for each file unit, `unit-00000.parquet`, … A unit has one source."""

    directory: Path
    sources: tuple[str, ...]  # by unit; a source's units are consecutive, those of references come first

    @property
    def units(self) -> range:
        return range(len(self.sources))

    def path(self, unit: int) -> Path:
        return self.directory / f"unit-{unit:05d}.parquet"

    def read(self, unit: int) -> Iterator[Placed]:
        """The unit's documents in order, with a few MiB in memory at a time."""
        return (Placed(document, unit, row) for row, document in enumerate(read_documents(self.path(unit))))
