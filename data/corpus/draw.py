"""A chance that depends on a document alone: the same in every run, on every worker, in any order."""

from __future__ import annotations

import hashlib

from data.corpus.document import Document


def draw(document: Document, purpose: str) -> float:
    """Uniform in [0, 1), from the document's id. Different purposes, such as a step's name and seed, draw independently."""
    digest = hashlib.blake2b(
        document.id.encode(), digest_size=8, key=hashlib.blake2b(purpose.encode()).digest()
    ).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53
