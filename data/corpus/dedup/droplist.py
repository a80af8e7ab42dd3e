"""Lists of the repeats that a deduplication found, and the step that drops documents by them.

Each piece of work writes one part of a list. A part is sorted by unit, with an index of where each unit begins. Memory
holds the list of one unit: 16 bytes for each repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.corpus.step import Dropped, Outcome, Placed, Stage, Step
from data.corpus.work import Work, open_array, save_array

FOUND = "found"  # directory of a list, in that of the work
# a repeat (unit, row of the document, place in the document), and the unit of the occurrence that is kept
REPEAT = np.dtype([("unit", "<u4"), ("row", "<u4"), ("place", "<u4"), ("kept_unit", "<u4")])


def write_part(directory: Path, part: int, units: int, repeats: np.ndarray) -> None:
    """repeats: of dtype REPEAT, in any order."""
    repeats = repeats[np.lexsort((repeats["place"], repeats["row"], repeats["unit"]))]
    save_array(directory / f"{part:06d}.repeats.npy", repeats)
    save_array(directory / f"{part:06d}.starts.npy", np.searchsorted(repeats["unit"], np.arange(units + 1)))


def listed(directory: Path, parts: int, placed: Sequence[Placed]) -> Iterator[np.ndarray]:
    """For each of these documents of one unit, its repeats: dtype REPEAT, sorted by place."""
    if placed:
        repeats = _of_unit(directory, parts, placed[0].unit)
        rows = np.array([each.row for each in placed])
        starts, stops = (np.searchsorted(repeats["row"], rows, side) for side in ("left", "right"))
        yield from (repeats[start:stop] for start, stop in zip(starts, stops, strict=True))


@lru_cache(maxsize=2)  # a step reads two lists at most
def _of_unit(directory: Path, parts: int, unit: int) -> np.ndarray:
    """The unit's repeats from all parts: dtype REPEAT, sorted by row and place."""
    found = []
    for part in range(parts):
        start, stop = open_array(directory / f"{part:06d}.starts.npy")[unit : unit + 2]
        found.append(np.array(open_array(directory / f"{part:06d}.repeats.npy")[start:stop]))
    repeats = np.concatenate(found)
    return repeats[np.lexsort((repeats["place"], repeats["row"]))]


@dataclass(frozen=True, kw_only=True)
class DropListed(Step):
    """Drops the documents that a list names.

    what: their name in the reason, such as "exact duplicate". The reason adds the source of the document that is kept.
    unit_sources: the source's name, by unit.
    """

    what: str
    directory: Path
    parts: int
    unit_sources: tuple[str, ...]

    @classmethod
    def of(cls, step: Step, what: str, stage: Stage, work: Work, parts: int) -> DropListed:
        """For the documents of `stage` that `step` applies to; reads the list in the work's directory `FOUND`."""
        found, sources = work.directory / FOUND, stage.sources
        return cls(
            what=what, directory=found, parts=parts, unit_sources=sources, kinds=step.kinds, sources=step.sources
        )

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        found = listed(self.directory, self.parts, placed)
        return [
            self._dropped(each, repeats["kept_unit"][0]) if len(repeats) else each.document
            for each, repeats in zip(placed, found, strict=True)
        ]

    def _dropped(self, placed: Placed, kept_unit: int) -> Dropped:
        source = self.unit_sources[kept_unit]
        within = source == placed.document.source
        return Dropped(f"{self.what} within its source" if within else f"{self.what} of source {source}")
