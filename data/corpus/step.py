"""What a corpus is cleaned with: steps, each a small frozen dataclass whose fields are its parameters in YAML.

A step looks at documents and keeps, changes or drops each. One that must know the whole corpus first (duplicates) or learn
something (a classifier) is a `Preparation`: it makes the step that then does the looking.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from data.corpus.document import Document, read_documents
from data.corpus.source import Kind

if TYPE_CHECKING:
    from data.corpus.work import Work


@dataclass(frozen=True)
class Dropped:
    """Instead of a document: why it goes. A short phrase that many documents share, such as "too few words"."""

    reason: str


Outcome = Document | Dropped


@dataclass(frozen=True)
class Placed:
    """A document with its place in the stage that the step reads: the row of the unit's file."""

    document: Document
    unit: int
    row: int


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """Subclasses are frozen dataclasses. Must be deterministic, and picklable: it travels to the workers.

    kinds: of sources whose documents it looks at; empty: all. Others pass by.
    sources: names of sources, likewise.
    """

    only_kinds: ClassVar[tuple[str, ...]] = ()  # the class's default for `kinds`
    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}
    kinds: tuple[Kind, ...] | None = None  # default: only_kinds
    sources: tuple[str, ...] = ()

    def meant_for(self, document: Document) -> bool:
        kinds = self.only_kinds if self.kinds is None else self.kinds
        return (not kinds or document.kind in kinds) and (not self.sources or document.source in self.sources)

    @abstractmethod
    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        """What becomes of each of these documents, in their order; they are consecutive in their unit. A changed text is a new
        document (`dataclasses.replace`)."""


@dataclass(frozen=True, kw_only=True)
class Single(Step):
    """A step that needs no other document beside the one it looks at."""

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        return [self.look(each.document) for each in placed]

    @abstractmethod
    def look(self, document: Document) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Preparation(Step):
    """A step that is made of the corpus, or of what it learns: `prepare` runs once, before the documents pass.

    needs_corpus: whether it reads the documents that come out of the steps before; these are then written to disk first.
    """

    needs_corpus: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, stage: Stage, work: Work) -> Step:
        """The step that looks at the documents of `stage`, which it finds in the same units and rows. What is heavy goes
        through `work.map`, which runs it on the cluster and never twice; the stage may be read there alone, for in a run that
        goes on after an interruption it may be gone where all pieces are done. `kinds` and `sources` are those of the preparation.
        """

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        raise TypeError(f"{type(self).__name__} must be prepared before it is applied")


@dataclass(frozen=True)
class Stage:
    """Documents at rest: one parquet file a unit, `unit-00000.parquet`, … Every unit holds documents of one source."""

    directory: Path
    sources: tuple[str, ...]  # of each unit; a source's units stand together, those of references come first

    @property
    def units(self) -> range:
        return range(len(self.sources))

    def path(self, unit: int) -> Path:
        return self.directory / f"unit-{unit:05d}.parquet"

    def read(self, unit: int) -> Iterator[Placed]:
        """The unit's documents in their order, a few MiB in memory at a time."""
        return (Placed(document, unit, row) for row, document in enumerate(read_documents(self.path(unit))))
