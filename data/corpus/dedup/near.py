"""Drops near-duplicates of earlier documents: finds candidates by MinHash, then compares them exactly."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.corpus.dedup.droplist import DropListed
from data.corpus.dedup.leaders import compare
from data.corpus.step import Preparation, Stage, Step
from data.corpus.work import Work, save_array
from data.errors import UserError

if TYPE_CHECKING:
    from data.corpus.dedup.minhash import Lsh

ROWS = 7  # hashes a band; at any threshold, 4 % of the pairs at half of it become candidates
RECALL = 0.99  # of pairs at exactly the threshold


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(Preparation):
    """Drops a document whose Jaccard similarity with an earlier document that stays is at least `threshold`. Earlier
    means earlier in the order of units and rows. Compares sets of shingles (n-grams of `words` words) of the simplified
    text, without letter case, accents, punctuation, white space and the value of numbers. Finds at least 99 % of such
    documents, and more of the more similar ones; drops no document that is less similar. Keeps documents with fewer
    words than one shingle: see ExactDuplicates.

    Candidates are documents with equal minimum hashes in all 7 rows of one band (Leskovec et al., Mining of Massive
    Datasets, section 3.4); datatrove computes and matches them. Groups are the connected components of candidate pairs.
    In each group, in order, every document is compared with the documents that stay.

    In memory at once: one piece takes about 150 bytes for each candidate and for each pair of one band, but no text and
    no signature; the others take the signatures of one unit for one band, or the shingles of one document. On disk,
    until it is prepared: bands(threshold) * 60 bytes a document (1.2 kB at 0.8), and about 1.5 times the texts of the
    candidates.
    """

    threshold: float = 0.8
    words: int = 5

    def __post_init__(self) -> None:
        if not 0.6 <= self.threshold <= 1:
            raise UserError(f"NearDuplicates: threshold is {self.threshold}; give a similarity from 0.6 to 1")
        if self.words < 1:
            raise UserError(f"NearDuplicates: words is {self.words}; give 1 or more")

    def prepare(self, stage: Stage, work: Work) -> Step:
        search = Search(self, stage, work.directory, bands(self.threshold), work.seed)
        work.map("signatures", search.sign, stage.units)
        work.map("pairs", search.pair, range(search.bands))
        work.map("groups", search.group, [0])
        parts = compare(self.threshold, search.shingles_of, stage, work)
        for finished in ("hashes", "neighbours", "sets"):
            shutil.rmtree(work.directory / finished, ignore_errors=True)
        return DropListed.of(self, "near-duplicate", stage, work, parts)


def bands(threshold: float) -> int:
    """The least number of bands for which a pair at the threshold is a candidate with probability RECALL or more:
    1 - (1 - threshold^ROWS)^bands (Leskovec et al., section 3.4.2)."""
    missed = 1 - threshold**ROWS  # probability that one band misses the pair
    return math.ceil(math.log(1 - RECALL) / math.log(missed)) if missed else 1


@dataclass(frozen=True)
class Search:
    """The pieces of work that find the groups of candidates, as methods."""

    step: NearDuplicates
    stage: Stage
    directory: Path
    bands: int
    seed: int

    def _lsh(self) -> Lsh:
        from data.corpus.dedup.minhash import Lsh  # it imports datatrove, which the check of a config does not need

        return Lsh(self.step.words, self.bands, ROWS, self.seed)

    def sign(self, unit: int) -> None:
        placed = self.stage.read(unit)
        texts = (each.document.text if self.step.meant_for(each.document) else "" for each in placed)
        self._lsh().write_signatures(self.directory / "hashes", unit, texts)

    def pair(self, band: int) -> None:
        self._lsh().write_pairs(self.directory / "hashes", self.directory / "neighbours", band)

    def group(self, _: int) -> None:
        """Writes the candidates as unit * 2^32 + row: `candidates.npy` ascending; `grouped.npy` by group, groups in the
        order of their first members; `starts.npy`, the offset of each group and the end of the last."""
        lsh = self._lsh()
        candidates = first = np.zeros(0, np.uint64)
        for band in range(self.bands):
            pairs = lsh.read_pairs(self.directory / "neighbours", band)
            joined = pairs[:, ::2].astype(np.uint64) << np.uint64(32) | pairs[:, 1::2]
            candidates, first = grouped(np.concatenate([np.column_stack([candidates, first]), joined]))
        order = np.argsort(first, kind="stable")
        _, starts = np.unique(first[order], return_index=True)
        save_array(self.directory / "candidates.npy", candidates)
        save_array(self.directory / "grouped.npy", candidates[order])
        save_array(self.directory / "starts.npy", np.append(starts, len(candidates)))

    def shingles_of(self, unit: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The shingle sets of these documents of a unit, in order."""
        lsh = self._lsh()
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        for placed in self.stage.read(unit):
            if placed.row == row:
                yield lsh.shingles(placed.document.text)
                row = next(wanted, None)
            if row is None:
                return


def grouped(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members, firsts) for pairs (P, 2): all different members, ascending, and the first member of each one's
    connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members, ends = np.unique(pairs, return_inverse=True)
    if not len(members):
        return members, members
    edges = coo_array((np.ones(len(pairs), bool), ends.reshape(-1, 2).T), shape=(len(members), len(members)))
    _, label = connected_components(edges, directed=False)
    _, first = np.unique(label, return_index=True)
    return members, members[first[label]]
