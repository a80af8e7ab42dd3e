"""Reads token files by memory map: each source is one stream of tokens, cut into windows of equal length.

`data.tokens.write` describes the files.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from data.tokens.write import HELD_OUT, INDEX, TRAINED
from data.unit import Example

# tokens; a window of two may hold one document's end and the next one's start, with nothing to predict
SHORTEST_WINDOW = 3


@dataclass(frozen=True)
class TokenFile:
    """One file of tokens. Each process opens it at the first read."""

    directory: str
    name: str  # the unit's name, with .held-out for held-out documents
    tokens: int
    documents: int
    dtype: str

    @cached_property
    def ids(self) -> np.ndarray:
        """(tokens,) ids, in the store's dtype."""
        return np.memmap(f"{self.directory}/{self.name}.tokens", self.dtype, "r")

    @cached_property
    def places(self) -> np.ndarray:
        """(2, documents) int64: the first token of each document, and its row in the unit's parquet file."""
        return np.load(f"{self.directory}/{self.name}.documents.npy", mmap_mode="r", allow_pickle=False)

    def examples(self, start: int, stop: int, source: str) -> Iterator[Example]:
        """A row for each document with two or more tokens between start and stop."""
        starts, rows = self.places
        first, end = np.searchsorted(starts, start, "right") - 1, np.searchsorted(starts, stop, "left")
        bounds = [start, *starts[first + 1 : end].tolist(), stop]
        for document, (left, right) in zip(range(first, end), pairwise(bounds)):
            if right - left > 1:
                mask = np.ones(right - left, bool)
                mask[0] = False
                meta = {"source": source, "file": self.name, "row": int(rows[document])}
                yield Example(self.ids[left:right].astype(np.int32), mask, meta)

    def __getstate__(self) -> dict[str, Any]:
        # pickling a memory map would copy the whole file
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Stream:
    """A source's documents one after another, with files in the order of the index."""

    source: str
    files: tuple[TokenFile, ...]

    @property
    def tokens(self) -> int:
        return self._ends[-1]

    @property
    def documents(self) -> int:
        return sum(file.documents for file in self.files)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate((file.tokens for file in self.files), initial=0))

    def windows(self, max_length: int) -> int:
        """The number of windows of at most `max_length` tokens. Each begins with the last token of the window before."""
        return -(-max(self.tokens - 1, 0) // (max_length - 1))

    def window(self, number: int, max_length: int) -> list[Example]:
        """The window's rows, one for each document: documents do not see each other. All tokens of a row but its first are trained
        on, so that over all windows every token of a document but its first is predicted once. Leaves out documents with a single
        token in the window: there is nothing to predict."""
        start = number * (max_length - 1)
        stop = min(start + max_length, self.tokens)
        rows = []
        for place in range(bisect_right(self._ends, start) - 1, len(self.files)):
            begin = self._ends[place]
            if begin >= stop:
                break
            file = self.files[place]
            rows += file.examples(max(start - begin, 0), min(stop - begin, file.tokens), self.source)
        return rows


@dataclass(frozen=True)
class TokenStore:
    """The token files that `data.tokens.write.tokenise` wrote into a directory."""

    directory: Path
    tokenizer: str  # the tokenizer's fingerprint
    trained: Mapping[str, Stream]  # by source
    held_out: Mapping[str, Stream]  # the same sources; streams may be empty

    @classmethod
    def open(cls, directory: Path) -> TokenStore:
        """Raises UserError where there is no index, or where a file's length differs from the index."""
        try:
            index = json.loads((directory / INDEX).read_text())
        except FileNotFoundError:
            raise UserError(
                f"{directory}: no {INDEX}; name the directory of tokens that a corpus phase wrote"
            ) from None
        streams = {
            part: {source: _stream(directory, source, files[part], index) for source, files in index["sources"].items()}
            for part in (TRAINED, HELD_OUT)
        }
        return cls(directory, index["tokenizer"], streams[TRAINED], streams[HELD_OUT])

    def windows(self, max_length: int) -> dict[str, int]:
        """{source: windows of at most `max_length` tokens to train on}. Raises UserError where max_length is below 3."""
        if max_length < SHORTEST_WINDOW:
            raise UserError(f"max_length is {max_length}; rows of tokens need at least {SHORTEST_WINDOW}")
        return {source: stream.windows(max_length) for source, stream in self.trained.items()}


def _stream(directory: Path, source: str, files: list[dict[str, Any]], index: dict[str, Any]) -> Stream:
    entries = tuple(
        TokenFile(str(directory), file["file"], file["tokens"], file["documents"], index["dtype"]) for file in files
    )
    token_bytes = np.dtype(index["dtype"]).itemsize
    for entry in entries:
        path = directory / f"{entry.name}.tokens"
        found_bytes = path.stat().st_size if path.exists() else 0
        if found_bytes != entry.tokens * token_bytes:
            raise UserError(
                f"{path}: {found_bytes} bytes where the index says {entry.tokens * token_bytes}; write the tokens again"
            )
    return Stream(source, entries)
