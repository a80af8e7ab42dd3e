"""Drops documents with the same text as an earlier document, within a source and across sources."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from data.corpus.dedup.droplist import DropListed
from data.corpus.dedup.repeats import Hashed, find_repeats
from data.corpus.step import Preparation, Stage, Step
from data.corpus.work import Work

_SPACE = re.compile(r"\s")
_BLOCK_CHARACTERS = 2**20


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(Preparation):
    """Keeps the first of the documents with the same text, in the order of units. Compares only documents of the step's
    kinds and sources.

    normalise: ignore differences in white space and in the Unicode form of accented letters (NFC). Letter case and
        punctuation always count; `NearDuplicates` ignores them.

    In memory: see data/corpus/dedup/repeats.py. On disk, until it is prepared: 24 bytes a document.
    """

    normalise: bool = True

    def prepare(self, stage: Stage, work: Work) -> Step:
        parts = find_repeats(work, "texts", self, stage, self.hashes)
        return DropListed.of(self, "exact duplicate", stage, work, parts)

    def hashes(self, text: str) -> Iterator[Hashed]:
        yield 0, text_digest(text, self.normalise)


def text_digest(text: str, normalise: bool) -> bytes:
    """16 bytes. Needs a few MiB beside the text, whatever its length."""
    hashed = blake2b(digest_size=16)
    for block in _blocks(text):
        if not normalise:
            hashed.update(block.encode())
        elif words := unicodedata.normalize("NFC", block).split():
            hashed.update((" ".join(words) + " ").encode())
    return hashed.digest()


def _blocks(text: str) -> Iterator[str]:
    """The text in blocks that end between words."""
    start = 0
    while start < len(text):
        end = _SPACE.search(text, start + _BLOCK_CHARACTERS)
        stop = end.end() if end else len(text)
        yield text[start:stop]
        start = stop
