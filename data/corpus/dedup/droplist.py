"""What a deduplication found: lists of what repeats something earlier, and the step that drops documents by them.

A list is written in parts, one by each piece of work that finds something; a part is sorted by unit and knows where
each unit begins. In memory is the list of one unit: 16 bytes for each thing found in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.corpus.dedup.arrays import open_array, save_array
from data.corpus.step import Dropped, Outcome, Placed, Step

# what repeats (unit, row of the document, place in the document), and in which unit stands what it repeats
REPEAT = np.dtype([("unit", "<u4"), ("row", "<u4"), ("place", "<u4"), ("kept_unit", "<u4")])


def write_part(directory: Path, part: int, units: int, repeats: np.ndarray) -> None:
    """repeats: of dtype REPEAT, in any order."""
    repeats = repeats[np.lexsort((repeats["place"], repeats["row"], repeats["unit"]))]
    save_array(directory / f"{part:06d}.repeats.npy", repeats)
    save_array(directory / f"{part:06d}.starts.npy", np.searchsorted(repeats["unit"], np.arange(units + 1)))


def listed(directory: Path, parts: int, placed: Sequence[Placed]) -> Iterator[np.ndarray]:
    """What the list says of each of these documents of one unit, of dtype REPEAT, by place."""
    if placed:
        repeats = _of_unit(directory, parts, placed[0].unit)
        rows = np.array([each.row for each in placed])
        starts, stops = (np.searchsorted(repeats["row"], rows, side) for side in ("left", "right"))
        yield from (repeats[start:stop] for start, stop in zip(starts, stops, strict=True))


@lru_cache(maxsize=2)  # a step reads two lists at most
def _of_unit(directory: Path, parts: int, unit: int) -> np.ndarray:
    """All that the parts say of one unit, of dtype REPEAT, by row and place."""
    found = []
    for part in range(parts):
        start, stop = open_array(directory / f"{part:06d}.starts.npy")[unit : unit + 2]
        found.append(np.array(open_array(directory / f"{part:06d}.repeats.npy")[start:stop]))
    repeats = np.concatenate(found)
    return repeats[np.lexsort((repeats["place"], repeats["row"]))]


@dataclass(frozen=True, kw_only=True)
class DropListed(Step):
    """Drops the documents that a list names.

    what: they are, such as "exact duplicate"; the reason adds where the document that is kept stands.
    unit_sources: the name of the source of every unit.
    """

    what: str
    directory: Path
    parts: int
    unit_sources: tuple[str, ...]

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
