"""Writes the documents of a corpus stage as token ids, with an index that `data.tokens.store` reads.

Beside `index.json`, each unit has two files, and two more for its held-out documents:
`unit-00000.tokens`: ids, little-endian, of 16 bits if the vocabulary fits, else of 32; every document ends with the end-of-text
token. `unit-00000.documents.npy`: (2, documents) int64, the first token of each document, and its row in the unit's parquet file.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.corpus.document import Document, draw, read_documents
from data.corpus.step import Stage
from data.corpus.work import Work, save_array, whole_file
from data.tokenizer import Tokenizer, end_of_text, load_tokenizer, tokenizer_fingerprint
from data.tokens.encode import encode

TRAINED, HELD_OUT = "train", "held_out"
EMPTY = "empty"  # number of documents without tokens
INDEX = "index.json"


def tokenise(
    stage: Stage,
    tokenizer: Path,
    directory: Path,
    work: Work,
    holdout: float = 0.0,
    units: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Writes the given units, or all, by `work.map`, then writes the index and returns it.

    tokenizer: a directory. holdout: share of the documents to hold out, 0 to 1: see `is_held_out`.

    Raises UserError where the tokenizer has no end-of-text token.
    """
    loaded = load_tokenizer(tokenizer)
    end_of_text(loaded)
    units = list(stage.units if units is None else units)
    write = partial(write_tokens, tokenizer=tokenizer, directory=directory, holdout=holdout)
    written = work.map("tokens", write, [stage.path(unit) for unit in units])
    sources: dict[str, dict[str, Any]] = {stage.sources[unit]: {TRAINED: [], HELD_OUT: [], EMPTY: 0} for unit in units}
    for unit, counts in zip(units, written, strict=True):
        sources[stage.sources[unit]][EMPTY] += counts[EMPTY]
        for part in (TRAINED, HELD_OUT):
            if counts[part]["documents"]:
                sources[stage.sources[unit]][part].append(counts[part])
    index = {
        "dtype": token_type(loaded),
        "vocabulary": vocabulary_size(loaded),
        "tokenizer": tokenizer_fingerprint(loaded),
        "sources": sources,
    }
    with whole_file(directory / INDEX) as file:
        file.write_text(json.dumps(index, indent=1))
    return index


def write_tokens(unit: Path, tokenizer: Path, directory: Path, holdout: float = 0.0) -> dict[str, Any]:
    """Writes the files of one unit, a parquet file of documents. Returns under "train" and "held_out" the file's name without suffix
    and its counts of tokens and documents, and under "empty" the number of documents without tokens."""
    loaded = load_tokenizer(tokenizer)
    end, opening, kind = end_of_text(loaded), _opening(loaded), token_type(loaded)
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        TRAINED: _DocumentFile(directory, unit.stem, kind),
        HELD_OUT: _DocumentFile(directory, f"{unit.stem}.held-out", kind),
    }
    empty = 0

    def texts() -> Iterator[tuple[tuple[int, str], str]]:
        nonlocal empty
        for row, document in enumerate(read_documents(unit)):
            if document.text.strip():
                yield (row, HELD_OUT if is_held_out(document, holdout) else TRAINED), document.text
            else:
                empty += 1

    within = None  # row of the document that is being written
    for (row, part), ids, last in encode(loaded, texts()):
        if row != within:
            if last and not ids:
                empty += 1
                continue
            files[part].begin(row)
            files[part].add(opening)
        within = row
        files[part].add(ids)
        if last:
            files[part].add([end])
    return {**{part: file.finish() for part, file in files.items()}, EMPTY: empty}


def is_held_out(document: Document, share: float) -> bool:
    """Whether the document is held out, by a draw for its row in the source, so that all conversations of one tree are on the same
    side. Independent of other draws of `data.corpus.document.draw`."""
    return draw(document, "held out") < share


def token_type(tokenizer: Tokenizer) -> str:
    """The numpy name of the smallest little-endian type for all token ids."""
    return "<u2" if vocabulary_size(tokenizer) <= 2**16 else "<u4"


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """The largest token id + 1, the size that a model needs; it may exceed the number of tokens."""
    return max(tokenizer.get_vocab().values()) + 1


class _DocumentFile:
    """Writes the ids of documents one after another. The file appears complete, or not at all."""

    def __init__(self, directory: Path, name: str, kind: str):
        self._directory, self._name, self._kind = directory, name, kind
        self._tokens = 0
        self._starts, self._rows = array("q"), array("q")
        self._file = (directory / f".{name}.tokens.{os.getpid()}.partial").open("wb")

    def begin(self, row: int) -> None:
        self._starts.append(self._tokens)
        self._rows.append(row)

    def add(self, ids: Sequence[int]) -> None:
        self._file.write(np.asarray(ids, self._kind).tobytes())
        self._tokens += len(ids)

    def finish(self) -> Mapping[str, Any]:
        self._file.close()
        documents = np.array([self._starts, self._rows], "<i8")
        save_array(self._directory / f"{self._name}.documents.npy", documents)
        os.replace(self._file.name, self._directory / f"{self._name}.tokens")
        return {"file": self._name, "tokens": self._tokens, "documents": len(self._starts)}


def _opening(tokenizer: Tokenizer) -> list[int]:
    """The tokens that the tokenizer puts before a text: its beginning-of-text token, or none."""
    first = tokenizer("")["input_ids"][:1]
    return first if first and first[0] == tokenizer.bos_token_id else []
