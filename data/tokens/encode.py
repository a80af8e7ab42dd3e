"""Encodes texts of any length as token ids, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import tokenizers

from data.tokenizer import Tokenizer

Key = TypeVar("Key")

PIECE_CHARACTERS = 2**20  # a tokenizer takes about 50 bytes for each byte of a text
AT_ONCE_CHARACTERS = 2**21  # enough for all of the tokenizer's threads
SEARCHED_CHARACTERS = 2**16  # how far beyond a piece's length to search for a place to cut
WORD_GAP = re.compile(r"(?<=\w)(?= \w)")  # between two words, where tokenizers cut too


def encode(tokenizer: Tokenizer, texts: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, list[int], bool]]:
    """(key, token ids, whether the text ends here) of each (key, text), in order, without the tokens that a tokenizer adds at both
    ends. Special tokens inside a text are plain text: no page can end a turn.

    A text of more than `PIECE_CHARACTERS` comes in several parts, cut between words. Their ids together are those of the whole
    text, with two exceptions: texts without two words to cut between, and tokenizers whose normalizer puts a prefix before every
    text, as Llama 2's does; each further part then begins with a token of the prefix.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    held: list[tuple[Key, str, bool]] = []
    characters = 0
    for key, text in texts:
        for start, stop in cuts(text):
            held.append((key, text[start:stop], stop == len(text)))
            characters += stop - start
            if characters >= AT_ONCE_CHARACTERS:
                yield from _encoded(backend, held)
                held, characters = [], 0
    yield from _encoded(backend, held)


def cuts(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[tuple[int, int]]:
    """(start, end) of each part of a text, at least one. A part has `limit` characters or slightly more."""
    start = 0
    while len(text) - start > limit:
        place = WORD_GAP.search(text, start + limit, start + limit + SEARCHED_CHARACTERS)
        stop = place.start() if place else start + limit
        yield start, stop
        start = stop
    yield start, len(text)


def _encoded(
    backend: tokenizers.Tokenizer, held: Sequence[tuple[Key, str, bool]]
) -> Iterator[tuple[Key, list[int], bool]]:
    found = backend.encode_batch_fast([text for _, text, _ in held], add_special_tokens=False)
    for (key, _, last), encoding in zip(held, found, strict=True):
        yield key, encoding.ids, last
