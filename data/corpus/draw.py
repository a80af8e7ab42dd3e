"""A chance that depends on where a document comes from alone: the same in every run, on every worker, in any order."""

from __future__ import annotations

import hashlib

from data.corpus.document import Document


def draw(document: Document, purpose: str) -> float:
    """Uniform in [0, 1), from the document's source, file and place, so that all documents of one row, such as the
    conversations of one tree, which begin alike, share it. Different purposes, such as a step's name and seed, draw
    independently."""
    row = f"{document.source}/{document.file}#{document.place}"
    digest = hashlib.blake2b(row.encode(), digest_size=8, key=hashlib.blake2b(purpose.encode()).digest()).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53
