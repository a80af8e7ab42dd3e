"""MinHash signatures by datatrove, which is slow to import: `near.py` imports this file only when it runs."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.logging import logger

from data.corpus.words import datatrove_words

_BLOCK_SHINGLES = 1024  # fits the processor's cache: twice as fast for a book as one block

logger.disable("datatrove")  # it logs a line for every band of every unit


class Signatures(MinhashDedupSignature):
    """datatrove's signatures, computed in blocks. In one block they take 24 bytes * hashes for each word."""

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        least = super().get_signature(shingles[:_BLOCK_SHINGLES])
        for start in range(_BLOCK_SHINGLES, len(shingles), _BLOCK_SHINGLES):
            block = super().get_signature(shingles[start : start + _BLOCK_SHINGLES])
            least = np.minimum(least, np.array(block, np.uint64))
        return np.asarray(least, np.uint64).tolist()


class Lsh:
    """datatrove's locality-sensitive hashing. bands: its num_buckets. rows: its hashes_per_bucket."""

    def __init__(self, words: int, bands: int, rows: int, seed: int):
        self.config = MinhashConfig(n_grams=words, num_buckets=bands, hashes_per_bucket=rows, seed=seed % 2**32)

    def write_signatures(self, directory: Path, unit: int, texts: Iterable[str]) -> None:
        """Writes the signatures of all texts that have a shingle. In memory: 16 * rows + 8 bytes each, for one band."""
        signatures = Signatures(str(directory), self.config, language=datatrove_words())
        signatures.run((Document(text=text, id="") for text in texts), rank=unit)

    def write_pairs(self, signatures: Path, directory: Path, band: int) -> None:
        """Writes pairs of documents of all units that have equal hashes in this band, as 4 uint32: unit, row, unit,
        row. Only neighbours in the order of units and rows. In memory: a few KiB a unit; one file is open for each."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the usual soft limit is 1024
        buckets = MinhashDedupBuckets(str(signatures), str(directory), config=self.config)
        buckets.run(None, rank=band, world_size=self.config.num_buckets)

    def read_pairs(self, directory: Path, band: int) -> np.ndarray:
        """(pairs, 4) uint32: unit, row, unit, row."""
        return np.fromfile(directory / f"{band:05d}_00.dups", "<u4").reshape(-1, 4)

    @cached_property
    def _shingler(self) -> Signatures:
        return Signatures(".", self.config, language=datatrove_words())

    def shingles(self, text: str) -> np.ndarray:
        """The set of the text's shingles (hashes of n-grams of words): uint64, ascending, without repeats."""
        return np.unique(self._shingler.get_shingles(text))
