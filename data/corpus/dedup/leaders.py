"""Compares the candidates of `near.py` exactly: which of each group stay, and which repeat one that stays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.corpus.dedup.arrays import open_array, save_array
from data.corpus.dedup.droplist import REPEAT, write_part
from data.corpus.step import Stage
from data.corpus.work import Work

BATCH_CANDIDATES = 2**14  # in one piece of work, and more only where one group has more
UNITS_HELD = 32  # whose candidates' places are in memory at once, 16 bytes each


def compare(
    threshold: float, shingles_of: Callable[[int, np.ndarray], Iterator[np.ndarray]], stage: Stage, work: Work
) -> int:
    """Writes the list of near-duplicates into `found` of the work's directory, where `near.py` left the candidates;
    returns its number of parts. `shingles_of(unit, rows)` gives documents' sets of shingles, uint64 ascending."""
    work.map("shingles", ShingleSets(work.directory, shingles_of), stage.units)
    starts = open_array(work.directory / "starts.npy")
    begins = np.arange(0, starts[-1] + BATCH_CANDIDATES, BATCH_CANDIDATES)
    borders = np.unique(np.minimum(np.searchsorted(starts, begins), len(starts) - 1))
    batches = [(part, int(first), int(stop)) for part, (first, stop) in enumerate(pairwise(borders))] or [(0, 0, 0)]
    work.map("comparisons", Comparison(work.directory, threshold, len(stage.units)), batches)
    return len(batches)


@dataclass(frozen=True)
class ShingleSets:
    """The piece of work: one unit. Writes its candidates' sets into one file, and where each begins into another.
    In memory is one document's set."""

    directory: Path
    shingles_of: Callable[[int, np.ndarray], Iterator[np.ndarray]]

    def __call__(self, unit: int) -> None:
        path = _sets_path(self.directory, unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        starts = [0]
        with partial.open("wb") as file:
            for shingles in self.shingles_of(unit, _rows(self.directory, unit)):
                file.write(shingles.astype("<u8").tobytes())
                starts.append(starts[-1] + len(shingles))
        os.replace(partial, path)
        save_array(path.with_suffix(".npy"), np.array(starts))


class StoredSets:
    """The candidates' sets, read from their files one at a time: mapped ones would all be in memory in the end, and each
    keeps a file open."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._places_of = lru_cache(UNITS_HELD)(self._read_places)

    def of(self, candidate: int) -> np.ndarray:
        unit, row = divmod(candidate, 2**32)
        rows, starts = self._places_of(unit)
        place = np.searchsorted(rows, row)
        start, stop = starts[place : place + 2].tolist()
        return np.fromfile(_sets_path(self._directory, unit), "<u8", stop - start, offset=8 * start)

    def _read_places(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the unit's candidates, and where the set of each begins."""
        starts = open_array(_sets_path(self._directory, unit).with_suffix(".npy"))
        return _rows(self._directory, unit), np.array(starts)


def _sets_path(directory: Path, unit: int) -> Path:
    return directory / "sets" / f"{unit:05d}.shingles"


def _rows(directory: Path, unit: int) -> np.ndarray:
    """Of the unit's candidates, ascending."""
    candidates = open_array(directory / "candidates.npy")
    start, stop = np.searchsorted(candidates, np.array([unit << 32, (unit + 1) << 32], np.uint64))
    return (candidates[start:stop] & np.uint64(2**32 - 1)).astype(np.int64)


@dataclass(frozen=True)
class Comparison:
    """The piece of work: a batch of groups. In memory are the beginnings of the sets of those that stay in one group;
    the sets stay in their files."""

    directory: Path
    threshold: float
    units: int

    def __call__(self, batch: tuple[int, int, int]) -> int:
        """batch: (its number, first group, group after the last). Writes a part of the list; returns its length."""
        part, first, stop = batch
        grouped, starts = open_array(self.directory / "grouped.npy"), open_array(self.directory / "starts.npy")
        sets = StoredSets(self.directory)
        found = [
            (candidate >> 32, candidate & (2**32 - 1), 0, leader >> 32)
            for begin, end in pairwise(starts[first : stop + 1].tolist())
            for candidate, leader in repeating(grouped[begin:end].tolist(), sets.of, self.threshold)
        ]
        write_part(self.directory / "found", part, self.units, np.array(found, REPEAT))
        return len(found)


def repeating(
    group: Iterable[int], shingles_of: Callable[[int], np.ndarray], threshold: float
) -> Iterator[tuple[int, int]]:
    """(document, the earlier one that it repeats) for each of the group, in order, that is at least as similar as the
    threshold to one that stays: the first such. Those that do not are the ones that stay.

    Two sets are only compared when their beginnings share a member; beginnings are so long that none that is similar
    enough escapes: prefix filtering (Bayardo et al. 2007, Scaling Up All Pairs Similarity Search, section 4; Xiao et
    al. 2008).
    """
    staying: dict[int, list[int]] = {}  # by each member of their beginnings
    for document in group:
        own = shingles_of(document)
        needed = math.ceil(threshold * len(own) - 1e-9)  # members in common; the rest is for rounding
        beginning = own[: len(own) - needed + 1].tolist()
        alike = sorted({other for shingle in beginning for other in staying.get(shingle, ())})
        leader = next((other for other in alike if _jaccard(own, shingles_of(other), threshold) >= threshold), None)
        if leader is not None:
            yield document, leader
            continue
        for shingle in beginning:
            staying.setdefault(shingle, []).append(document)


def _jaccard(own: np.ndarray, other: np.ndarray, threshold: float) -> float:
    """|both| / |either|, or 0 where the sizes alone rule the threshold out."""
    if min(len(own), len(other)) < threshold * max(len(own), len(other)) - 1e-9:
        return 0.0
    both = len(np.intersect1d(own, other, assume_unique=True))
    return both / (len(own) + len(other) - both)
