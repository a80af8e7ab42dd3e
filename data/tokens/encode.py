"""Texts of any length to token ids, a bounded amount at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

Key = TypeVar("Key")

PIECE_CHARACTERS = 2**20  # a tokenizer holds some 50 bytes for each byte of a text
AT_ONCE_CHARACTERS = 2**21  # enough to keep the tokenizer's threads busy
SEARCHED_CHARACTERS = 2**16  # how far beyond a piece's length a place to cut is looked for
WORD_GAP = re.compile(r"(?<=\w)(?= \w)")  # between two words, where tokenizers cut as well


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[Key, str]]
) -> Iterator[tuple[Key, list[int], bool]]:
    """(key, token ids, whether the text ends here) of each (key, text), in their order, without the tokens that a tokenizer
    adds at both ends. What looks like a special token in a text is text: no page can end a turn.

    A text of more than `PIECE_CHARACTERS` comes in several parts, cut between words. The ids are those of the whole, save
    where it has no two words to cut between, and save for tokenizers whose normalizer puts something before every text, as
    that of Llama 2 does: with these each further part begins with a token for that."""
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
    """Where each part of a text begins and ends; a part has `limit` characters or somewhat more. At least one."""
    start = 0
    while len(text) - start > limit:
        place = WORD_GAP.search(text, start + limit, start + limit + SEARCHED_CHARACTERS)
        stop = place.start() if place else start + limit
        yield start, stop
        start = stop
    yield start, len(text)


def _encoded(backend: Tokenizer, held: Sequence[tuple[Key, str, bool]]) -> Iterator[tuple[Key, list[int], bool]]:
    found = backend.encode_batch_fast([text for _, text, _ in held], add_special_tokens=False)
    for (key, _, last), encoding in zip(held, found, strict=True):
        yield key, encoding.ids, last
