"""Cleans a corpus: makes documents from files and passes them through the steps, one file unit at a time.

Consecutive steps run in one pass over a unit. A step that must know the whole corpus starts a new pass: the documents
so far are written to disk, and the step prepares itself from them. Each unit of each pass is one piece of `Work`: a
killed run continues where it stopped, and the result does not depend on where and in which order the pieces ran.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from data.corpus.document import Document, DocumentFile
from data.corpus.extract import extract
from data.corpus.readers import read_unit
from data.corpus.source import FileUnit, Quarantined
from data.corpus.step import Dropped, Placed, Preparation, Stage, Step
from data.corpus.tally import EXCERPT, Tally, merged
from data.corpus.work import Work

CHUNK_CHARACTERS = 2**21  # a step gets documents in chunks of at most about this size
CHUNK_DOCUMENTS = 256
EXTRACT = "extract"  # the name of the extraction in reports


@dataclass(frozen=True)
class Quarantine:
    """The places that could not be read. They stay on disk, because there may be as many as rows."""

    directory: Path
    counts: Mapping[int, int]  # by unit; units without any are left out

    def __iter__(self) -> Iterator[Quarantined]:
        for unit in sorted(self.counts):
            with quarantine_file(self.directory, unit).open(encoding="utf-8") as lines:
                yield from (Quarantined(**json.loads(line)) for line in lines)


def quarantine_file(directory: Path, unit: int) -> Path:
    return directory / f"unit-{unit:05d}.jsonl"


@dataclass(frozen=True)
class Cleaned:
    """The documents that are left, and the fate of all others."""

    stage: Stage
    by_source: Mapping[str, tuple[Tally, ...]]  # the extraction, then the steps in order
    quarantine: Quarantine
    figures: Mapping[str, Mapping[str, Any]]  # by step, if it reports more than counts
    seconds: Mapping[str, Mapping[str, float]]  # CPU seconds of the preparation, by step and kind of piece

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The sums over all sources."""
        steps = zip(*self.by_source.values(), strict=True)
        return tuple(merged([tally.as_dict() for tally in tallies]) for tallies in steps)


@dataclass(frozen=True)
class FromFiles:
    """Where the first pass gets its documents: from the unit's files."""

    max_document_bytes: int

    def read(self, unit: FileUnit, tally: Tally, aside: Callable[[Quarantined], None]) -> Iterator[Document]:
        """The unit's documents. aside: called with each place that cannot be read."""
        clock = time.process_time()
        for record in read_unit(unit, self.max_document_bytes):
            made = record if isinstance(record, Quarantined) else extract(record)
            tally.seconds += time.process_time() - clock
            if isinstance(made, Quarantined):
                aside(made)
                clock = time.process_time()
                continue
            tally.seen += 1
            content = record.content if isinstance(record.content, str) else str(record.content)
            tally.characters_in += len(content)
            if isinstance(made, Dropped):
                tally.reasons[made.reason] += 1
                tally.show(made.reason, f"{unit.source.name}/{record.part.name}#{record.place}", content[:EXCERPT])
            else:
                tally.kept += 1
                tally.characters_out += sum(len(document.text) for document in made)
                yield from made
            clock = time.process_time()


@dataclass(frozen=True)
class Pass:
    """Piece of work: passes one unit through consecutive steps."""

    names: tuple[str, ...]
    steps: tuple[Step, ...]
    source: FromFiles | Stage
    target: Stage
    quarantine: Path

    def __call__(self, item: tuple[int, FileUnit]) -> dict[str, Any]:
        """Writes the unit's documents; returns the tallies and the number of quarantined places."""
        number, unit = item
        tallies = [Tally(name) for name in self.names]
        if isinstance(self.source, Stage):
            self._write(self.source.read(number), number, tallies)
            return {"tallies": [tally.as_dict() for tally in tallies]}
        extracted, count = Tally(EXTRACT), 0
        with quarantine_file(self.quarantine, number).open("w", encoding="utf-8") as file:

            def aside(each: Quarantined) -> None:
                nonlocal count
                count += 1
                file.write(json.dumps(each.as_dict(), ensure_ascii=False) + "\n")

            found = self.source.read(unit, extracted, aside)
            self._write((Placed(document, number, row) for row, document in enumerate(found)), number, tallies)
        return {"tallies": [tally.as_dict() for tally in (extracted, *tallies)], "quarantined": count}

    def _write(self, documents: Iterable[Placed], number: int, tallies: Sequence[Tally]) -> None:
        with DocumentFile.writing(self.target.path(number)) as file:
            for chunk in chunks(documents):
                for placed in self._through(chunk, tallies):
                    file.add(placed.document)

    def _through(self, chunk: list[Placed], tallies: Sequence[Tally]) -> list[Placed]:
        for step, tally in zip(self.steps, tallies, strict=True):
            meant = [each for each in chunk if step.meant_for(each.document)]
            tally.passed_by += len(chunk) - len(meant)
            clock = time.process_time()
            outcomes = iter(step.apply(meant) if meant else ())
            tally.seconds += time.process_time() - clock
            left = []
            for each in chunk:
                if not step.meant_for(each.document):
                    left.append(each)
                    continue
                outcome = next(outcomes)
                tally.note(each.document, outcome)
                if not isinstance(outcome, Dropped):
                    left.append(Placed(outcome, each.unit, each.row))
            chunk = left
        return chunk


def chunks(documents: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Consecutive documents that fit into memory together. The cuts depend on the documents alone."""
    chunk: list[Placed] = []
    characters = 0
    for each in documents:
        chunk.append(each)
        characters += len(each.document.text)
        if len(chunk) == CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def clean(units: Sequence[FileUnit], steps: Sequence[tuple[str, Step]], work: Work, max_document_bytes: int) -> Cleaned:
    """The documents of the units that pass all steps. Deletes the documents of every pass but the last.

    Raises UserError if a step's own files are missing or wrong.
    """
    source: FromFiles | Stage = FromFiles(max_document_bytes)
    quarantine = work.directory / "quarantine"
    quarantine.mkdir(parents=True, exist_ok=True)
    results: list[list[dict[str, Any]]] = []  # by pass, then unit
    figures: dict[str, Mapping[str, Any]] = {}
    seconds: dict[str, Mapping[str, float]] = {}
    pending: list[tuple[str, Step]] = []

    def finish_pass() -> Stage:
        number = len(results)
        target = Stage(work.directory / f"pass-{number}", tuple(unit.source.name for unit in units))
        names = tuple(name for name, _ in pending)
        run = Pass(names, tuple(step for _, step in pending), source, target, quarantine)
        told = ", ".join((EXTRACT, *names) if not results else names)
        results.append(work.map(f"pass-{number}-done", run, list(enumerate(units)), told))
        if isinstance(source, Stage):
            shutil.rmtree(source.directory, ignore_errors=True)
        pending.clear()
        return target

    for number, (name, step) in enumerate(steps):
        if isinstance(step, Preparation):
            if step.needs_corpus:
                source = finish_pass()
            inside = work.inside(f"{number}-{name}")
            step = step.prepare(source, inside)
            seconds[name] = dict(inside.seconds)
            figures |= {name: told} if (told := getattr(step, "figures", None)) else {}
        pending.append((name, step))
    stage = finish_pass()
    counts = {unit: result["quarantined"] for unit, result in enumerate(results[0]) if result["quarantined"]}
    by_source = {
        name: tuple(chain.from_iterable(_of_source(name, units, results_of_pass) for results_of_pass in results))
        for name in dict.fromkeys(stage.sources)
    }
    return Cleaned(stage, by_source, Quarantine(quarantine, counts), figures, seconds)


def _of_source(name: str, units: Sequence[FileUnit], results: Sequence[Mapping[str, Any]]) -> list[Tally]:
    """One pass's tallies of one source, by step."""
    tallies = [result["tallies"] for unit, result in zip(units, results, strict=True) if unit.source.name == name]
    return [merged(of_step) for of_step in zip(*tallies, strict=True)]
