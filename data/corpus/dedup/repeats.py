"""Finds texts, or spans of text, that occur more than once in a corpus, by 128-bit hashes.

Each unit's hashes are sorted and written to disk. Then each of several pieces reads one range of hash values from all
units, so that equal hashes meet, and keeps the first of each in (unit, row, place) order. In memory: 24 bytes a hash
while a unit is hashed, about four times RANGE_BYTES while a range is searched (more only if one value repeats millions
of times).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields

from data.corpus.dedup.droplist import REPEAT, write_part
from data.corpus.work import Work, open_array, save_array

RANGE_BYTES = 48 * 2**20
FIRST = "first"  # subdirectory, in that of the list of repeats, of the list of first occurrences
_HASH = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4"), ("place", "<u4")])
_PLACE = struct.Struct("<II")
_Occurrence = tuple[bytes, int, int]  # 16-byte hash, row of the document, place in it


def digest(data: bytes) -> bytes:
    """16 bytes. Among 10^12 different texts, two have the same hash with probability 10^-15."""
    return blake2b(data, digest_size=16).digest()


def write_hashes(directory: Path, unit: int, occurrences: Iterable[_Occurrence]) -> int:
    """Writes one unit's hashes; returns their number. occurrences: in the order of rows and places."""
    packed = bytearray()
    for hashed, row, place in occurrences:
        packed += hashed
        packed += _PLACE.pack(row, place)
    hashes = np.frombuffer(packed, _HASH)
    hashes = hashes[np.lexsort((hashes["low"], hashes["high"]))]  # stable: keeps the order of equal hashes
    save_array(directory / f"{unit:05d}.high.npy", np.ascontiguousarray(hashes["high"]))
    save_array(directory / f"{unit:05d}.rest.npy", repack_fields(hashes[["low", "row", "place"]]))
    return len(hashes)


def find_repeats(work: Work, hashes: Path, counts: list[int], found: Path, overlap: int = 0) -> int:
    """Searches the hashes that `write_hashes` wrote. Writes the list of repeats into `found`, and the list of their
    first occurrences into `found / FIRST`. Returns the lists' number of parts, and deletes the hashes.

    counts: what `write_hashes` returned, by unit. overlap: an occurrence less than this many places after the first, in
    the same document, overlaps it and is no repeat.
    """
    ranges = -(-sum(counts) * (_HASH.itemsize + 4) // RANGE_BYTES) or 1
    work.map("ranges", _SearchRange(hashes, found, len(counts), ranges, overlap), range(ranges))
    shutil.rmtree(hashes, ignore_errors=True)  # already deleted if a run was resumed
    return ranges


@dataclass(frozen=True)
class _SearchRange:
    hashes: Path
    found: Path
    units: int
    ranges: int
    overlap: int

    def __call__(self, number: int) -> int:
        """Writes one part of both lists; returns its number of repeats."""
        loaded = [self._load(unit, number) for unit in range(self.units)]
        high, rest = (np.concatenate(each) for each in zip(*loaded, strict=True))
        unit = np.repeat(np.arange(self.units, dtype=np.uint32), [len(each) for each, _ in loaded])
        del loaded
        order = np.lexsort((rest["low"], high))  # stable: keeps the (unit, row, place) order of equal hashes
        high, rest, unit = high[order], rest[order], unit[order]
        low, row, place = (rest[name] for name in ("low", "row", "place"))
        new = np.ones(len(high), bool)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
        same_document = (unit == unit[first]) & (row == row[first])
        repeated = ~new & ~(same_document & (place < place[first] + self.overlap))
        columns = {"unit": unit, "row": row, "place": place, "kept_unit": unit[first]}
        for found, chosen in ((self.found, repeated), (self.found / FIRST, np.unique(first[repeated]))):
            write_part(found, number, self.units, _records(columns, chosen))
        return int(repeated.sum())

    def _load(self, unit: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        high = open_array(self.hashes / f"{unit:05d}.high.npy")
        begins = [2**64 * each // self.ranges for each in (number, number + 1)]
        start, stop = (np.searchsorted(high, np.uint64(each)) if each < 2**64 else len(high) for each in begins)
        rest = open_array(self.hashes / f"{unit:05d}.rest.npy")
        return np.array(high[start:stop]), np.array(rest[start:stop])


def _records(columns: Mapping[str, np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """The chosen rows of the columns, as dtype REPEAT."""
    taken = {name: column[chosen] for name, column in columns.items()}
    records = np.empty(len(taken["unit"]), REPEAT)
    for name, column in taken.items():
        records[name] = column
    return records
