"""Finds what occurs more than once in a corpus, by 128-bit hashes: whole texts, or spans of them.

Every unit's hashes are sorted and written; then each of several pieces takes one range of hash values from all units,
so that equal ones meet, and keeps of each the first in (unit, row, place) order. In memory: while a unit is hashed 24
bytes a hash, while a range is searched about four times RANGE_BYTES (more only where one value alone repeats millions
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

from data.corpus.dedup.arrays import open_array, save_array
from data.corpus.dedup.droplist import REPEAT, write_part
from data.corpus.work import Work

RANGE_BYTES = 48 * 2**20
FIRST = "first"  # the directory, in that of the repetitions, of the list of what they repeat
_HASH = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4"), ("place", "<u4")])
_PLACE = struct.Struct("<II")
_Occurrence = tuple[bytes, int, int]  # 16 bytes of hash, row of the document, place in it


def digest(data: bytes) -> bytes:
    """16 bytes: among 10^12 texts, two that differ have the same one with probability 10^-15."""
    return blake2b(data, digest_size=16).digest()


def write_hashes(directory: Path, unit: int, occurrences: Iterable[_Occurrence]) -> int:
    """Of one unit; returns how many. `occurrences` in their order, row and place."""
    packed = bytearray()
    for hashed, row, place in occurrences:
        packed += hashed
        packed += _PLACE.pack(row, place)
    hashes = np.frombuffer(packed, _HASH)
    hashes = hashes[np.lexsort((hashes["low"], hashes["high"]))]  # stable: equal ones stay in their order
    save_array(directory / f"{unit:05d}.high.npy", np.ascontiguousarray(hashes["high"]))
    save_array(directory / f"{unit:05d}.rest.npy", repack_fields(hashes[["low", "row", "place"]]))
    return len(hashes)


def find_repeats(work: Work, hashes: Path, counts: list[int], found: Path, overlap: int = 0) -> int:
    """Searches what `write_hashes` wrote for every unit, `counts` being what it returned, and writes the list of
    repetitions into `found`, and that of the first occurrences of what is repeated into `found / FIRST`; returns
    their number of parts, and removes the hashes. overlap: an occurrence this near to
    the first, in the same document, is a part of it and not a repetition."""
    ranges = -(-sum(counts) * (_HASH.itemsize + 4) // RANGE_BYTES) or 1
    work.map("ranges", _SearchRange(hashes, found, len(counts), ranges, overlap), range(ranges))
    shutil.rmtree(hashes, ignore_errors=True)  # gone already where a run goes on
    return ranges


@dataclass(frozen=True)
class _SearchRange:
    hashes: Path
    found: Path
    units: int
    ranges: int
    overlap: int

    def __call__(self, number: int) -> int:
        """Writes the part of both lists; returns how many repetitions it holds."""
        loaded = [self._load(unit, number) for unit in range(self.units)]
        high, rest = (np.concatenate(each) for each in zip(*loaded, strict=True))
        unit = np.repeat(np.arange(self.units, dtype=np.uint32), [len(each) for each, _ in loaded])
        del loaded
        order = np.lexsort((rest["low"], high))  # stable: equal ones stay in (unit, row, place) order
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
    """Those rows of the columns, of dtype REPEAT."""
    taken = {name: column[chosen] for name, column in columns.items()}
    records = np.empty(len(taken["unit"]), REPEAT)
    for name, column in taken.items():
        records[name] = column
    return records
