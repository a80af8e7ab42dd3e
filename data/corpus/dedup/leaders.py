"""Compares the candidates of `near.py` exactly: in each group, finds the documents that repeat one that stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.corpus.dedup.droplist import FOUND, REPEAT, write_part
from data.corpus.step import Stage
from data.corpus.work import Work, open_array, save_array, whole_file

BATCH_CANDIDATES = 2**14  # in one piece of work; more only if one group has more
UNITS_HELD = 32  # units whose candidates' places are in memory at once, 16 bytes for each candidate


def compare(
    threshold: float, shingles_of: Callable[[int, np.ndarray], Iterator[np.ndarray]], stage: Stage, work: Work
) -> int:
    """Reads the candidates that `near.py` left in the work's directory, and writes the list of near-duplicates into its
    `FOUND`. Returns the list's number of parts. shingles_of(unit, rows): their shingle sets, uint64 ascending."""
    work.map("shingles", partial(write_sets, work.directory, shingles_of), stage.units)
    starts = open_array(work.directory / "starts.npy")
    begins = np.arange(0, starts[-1] + BATCH_CANDIDATES, BATCH_CANDIDATES)
    borders = np.unique(np.minimum(np.searchsorted(starts, begins), len(starts) - 1))
    batches = [(part, int(first), int(stop)) for part, (first, stop) in enumerate(pairwise(borders))] or [(0, 0, 0)]
    work.map("comparisons", partial(_compare_groups, work.directory, threshold, len(stage.units)), batches)
    return len(batches)


def write_sets(directory: Path, shingles_of: Callable[[int, np.ndarray], Iterator[np.ndarray]], unit: int) -> None:
    """Piece of work: writes the shingle sets of one unit's candidates into one file, and their offsets into another.
    Memory holds one document's set."""
    path = _sets_path(directory, unit)
    starts = [0]
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        for shingles in shingles_of(unit, _rows(directory, unit)):
            file.write(shingles.astype("<u8").tobytes())
            starts.append(starts[-1] + len(shingles))
    save_array(path.with_suffix(".npy"), np.array(starts))


class StoredSets:
    """Reads the candidates' shingle sets one at a time. Memory maps would stay in memory and keep files open."""

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
        """(rows of the unit's candidates, offsets of their sets)."""
        starts = open_array(_sets_path(self._directory, unit).with_suffix(".npy"))
        return _rows(self._directory, unit), np.array(starts)


def _sets_path(directory: Path, unit: int) -> Path:
    return directory / "sets" / f"{unit:05d}.shingles"


def _rows(directory: Path, unit: int) -> np.ndarray:
    """The rows of the unit's candidates, ascending."""
    candidates = open_array(directory / "candidates.npy")
    start, stop = np.searchsorted(candidates, np.array([unit << 32, (unit + 1) << 32], np.uint64))
    return (candidates[start:stop] & np.uint64(2**32 - 1)).astype(np.int64)


def _compare_groups(directory: Path, threshold: float, units: int, batch: tuple[int, int, int]) -> int:
    """Piece of work: compares the candidates of some groups. Keeps only set prefixes of the current group in memory.

    batch: (its number, first group, last group + 1). Writes a part of the list; returns its length.
    """
    part, first, stop = batch
    grouped, starts = open_array(directory / "grouped.npy"), open_array(directory / "starts.npy")
    sets = StoredSets(directory)
    found = [
        (candidate >> 32, candidate & (2**32 - 1), 0, leader >> 32)
        for begin, end in pairwise(starts[first : stop + 1].tolist())
        for candidate, leader in repeating(grouped[begin:end].tolist(), sets.of, threshold)
    ]
    write_part(directory / FOUND, part, units, np.array(found, REPEAT))
    return len(found)


def repeating(
    group: Iterable[int], shingles_of: Callable[[int], np.ndarray], threshold: float
) -> Iterator[tuple[int, int]]:
    """(document, leader) for each document of the group, in order, whose similarity with a leader is at least the
    threshold. Takes the first such leader. Leaders are the documents that repeat none: they stay.

    Compares two sets only if their prefixes share a member. Prefixes are long enough to miss no similar pair: prefix
    filtering (Bayardo et al. 2007, Scaling Up All Pairs Similarity Search, section 4; Xiao et al. 2008).
    """
    leaders: dict[int, list[int]] = {}  # by each shingle of their prefixes
    for document in group:
        own = shingles_of(document)
        needed = math.ceil(threshold * len(own) - 1e-9)  # shared members; 1e-9 for rounding errors
        prefix = own[: len(own) - needed + 1].tolist()
        alike = sorted({other for shingle in prefix for other in leaders.get(shingle, ())})
        leader = next((other for other in alike if _jaccard(own, shingles_of(other), threshold) >= threshold), None)
        if leader is not None:
            yield document, leader
            continue
        for shingle in prefix:
            leaders.setdefault(shingle, []).append(document)


def _jaccard(own: np.ndarray, other: np.ndarray, threshold: float) -> float:
    """|intersection| / |union|, or 0 if the sizes alone rule the threshold out."""
    if min(len(own), len(other)) < threshold * max(len(own), len(other)) - 1e-9:
        return 0.0
    both = len(np.intersect1d(own, other, assume_unique=True))
    return both / (len(own) + len(other) - both)
