"""MinHash signatures by datatrove, for `near.py`, which imports this where it needs it: datatrove is heavy."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.logging import logger

from data.corpus.words import WORDS

_BLOCK_SHINGLES = 1024  # few enough for the processor's cache: a book goes twice as fast as in one block

logger.disable("datatrove")  # a line for every band of every unit


class Signatures(MinhashDedupSignature):
    """datatrove's signatures, computed block by block: its own way takes 24 bytes * hashes a word."""

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        least = super().get_signature(shingles[:_BLOCK_SHINGLES])
        for start in range(_BLOCK_SHINGLES, len(shingles), _BLOCK_SHINGLES):
            block = super().get_signature(shingles[start : start + _BLOCK_SHINGLES])
            least = np.minimum(least, np.array(block, np.uint64))
        return np.asarray(least, np.uint64).tolist()


class Lsh:
    """The steps of datatrove for one choice of `bands` (its num_buckets) and `rows` (its hashes_per_bucket)."""

    def __init__(self, words: int, bands: int, rows: int, seed: int):
        self.config = MinhashConfig(n_grams=words, num_buckets=bands, hashes_per_bucket=rows, seed=seed % 2**32)

    def write_signatures(self, directory: Path, unit: int, texts: Iterable[str]) -> None:
        """Of every text that has a shingle. In memory: 16 * rows + 8 bytes for each, one band at a time."""
        signatures = Signatures(str(directory), self.config, language=WORDS)
        signatures.run((Document(text=text, id="") for text in texts), rank=unit)

    def write_pairs(self, signatures: Path, directory: Path, band: int) -> None:
        """Neighbours among the documents of all units that have the same hashes in this band, as 4 uint32 each: unit,
        row, unit, row. A few KiB a unit in memory, and one file open for each."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # usual is a limit of 1024 that a process may raise
        buckets = MinhashDedupBuckets(str(signatures), str(directory), config=self.config)
        buckets.run(None, rank=band, world_size=self.config.num_buckets)

    def read_pairs(self, directory: Path, band: int) -> np.ndarray:
        """uint32 [pairs, 4]"""
        return np.fromfile(directory / f"{band:05d}_00.dups", "<u4").reshape(-1, 4)

    @cached_property
    def _shingler(self) -> Signatures:
        return Signatures(".", self.config, language=WORDS)

    def shingles(self, text: str) -> np.ndarray:
        """The set of the text's shingles (hashes of so many consecutive words): uint64, ascending, each once."""
        return np.unique(self._shingler.get_shingles(text))
