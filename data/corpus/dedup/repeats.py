"""Finds texts, or spans of text, that occur more than once in a corpus, by 128-bit hashes.

Each unit's hashes are sorted and written to disk. Then each of several pieces reads one range of hash values from all
units, so that equal hashes meet, and keeps the first of each in (unit, row, place) order. In memory: 24 bytes a hash
while a unit is hashed, about four times RANGE_BYTES while a range is searched (more only if one value repeats millions
of times).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import repack_fields

from data.corpus.dedup.droplist import FOUND, REPEAT, write_part
from data.corpus.step import Stage, Step
from data.corpus.work import Work, open_array, save_array

RANGE_BYTES = 48 * 2**20
FIRST = "first"  # subdirectory, in that of the list of repeats, of the list of first occurrences
_HASH = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4"), ("place", "<u4")])
_PLACE = struct.Struct("<II")
Hashed = tuple[int, bytes]  # place in the document, 16-byte hash


def digest(data: bytes) -> bytes:
    """16 bytes. Among 10^12 different texts, two have the same hash with probability 10^-15."""
    return blake2b(data, digest_size=16).digest()


def find_repeats(
    work: Work,
    name: str,
    step: Step,
    stage: Stage,
    hashes_of: Callable[[str], Iterable[Hashed]],
    overlap: int = 0,
) -> int:
    """Hashes the documents that the step applies to, and searches the hashes. Writes the list of repeats into the work's
    directory `FOUND`, and the list of their first occurrences into `FIRST` inside. Returns the lists' number of parts.

    name: of the pieces that hash. hashes_of: a text's hashes, in the order of places; picklable. overlap: an occurrence
    less than this many places after the first, in the same document, overlaps it and is no repeat.
    """
    hashes, found = work.directory / "hashes", work.directory / FOUND
    counts = work.map(name, partial(_write_hashes, step, stage, hashes_of, hashes), stage.units)
    ranges = -(-sum(counts) * (_HASH.itemsize + 4) // RANGE_BYTES) or 1
    work.map("ranges", partial(_search_range, hashes, found, len(counts), ranges, overlap), range(ranges))
    shutil.rmtree(hashes, ignore_errors=True)  # already deleted if a run was resumed
    return ranges


def _write_hashes(
    step: Step, stage: Stage, hashes_of: Callable[[str], Iterable[Hashed]], directory: Path, unit: int
) -> int:
    """Piece of work: writes one unit's hashes; returns their number."""
    packed = bytearray()
    for placed in stage.read(unit):
        for place, hashed in hashes_of(placed.document.text) if step.meant_for(placed.document) else ():
            packed += hashed
            packed += _PLACE.pack(placed.row, place)
    hashes = np.frombuffer(packed, _HASH)
    hashes = hashes[np.lexsort((hashes["low"], hashes["high"]))]  # stable: keeps the order of equal hashes
    save_array(directory / f"{unit:05d}.high.npy", np.ascontiguousarray(hashes["high"]))
    save_array(directory / f"{unit:05d}.rest.npy", repack_fields(hashes[["low", "row", "place"]]))
    return len(hashes)


def _search_range(hashes: Path, found: Path, units: int, ranges: int, overlap: int, number: int) -> int:
    """Piece of work: writes one part of both lists; returns its number of repeats."""
    loaded = [_load(hashes, unit, ranges, number) for unit in range(units)]
    high, rest = (np.concatenate(each) for each in zip(*loaded, strict=True))
    unit = np.repeat(np.arange(units, dtype=np.uint32), [len(each) for each, _ in loaded])
    del loaded
    order = np.lexsort((rest["low"], high))  # stable: keeps the (unit, row, place) order of equal hashes
    high, rest, unit = high[order], rest[order], unit[order]
    low, row, place = (rest[name] for name in ("low", "row", "place"))
    new = np.ones(len(high), bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    same_document = (unit == unit[first]) & (row == row[first])
    repeated = ~new & ~(same_document & (place < place[first] + overlap))
    columns = (unit, row, place, unit[first])
    for directory, chosen in ((found, repeated), (found / FIRST, np.unique(first[repeated]))):
        repeats = np.rec.fromarrays([column[chosen] for column in columns], REPEAT)
        write_part(directory, number, units, repeats.view(np.ndarray))
    return int(repeated.sum())


def _load(hashes: Path, unit: int, ranges: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    high = open_array(hashes / f"{unit:05d}.high.npy")
    begins = [2**64 * each // ranges for each in (number, number + 1)]
    start, stop = (np.searchsorted(high, np.uint64(each)) if each < 2**64 else len(high) for each in begins)
    rest = open_array(hashes / f"{unit:05d}.rest.npy")
    return np.array(high[start:stop]), np.array(rest[start:stop])
