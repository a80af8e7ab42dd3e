"""The seam of denoising: what becomes of a text before a model learns to restore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.denoising.vocabulary import Vocabulary
from data.errors import UserError


@dataclass(frozen=True)
class Corrupted:
    """One row of a batch. tokens (T,) int32; mask (T,) bool, True = restored by the model, and trained on.

    prefix_length: tokens at the row's beginning that are read in both directions (by an encoder, where there is one).
    inputs: (T,) int32, what is read in place of the tokens; the model says at each masked place what the token was.
    """

    tokens: np.ndarray
    mask: np.ndarray
    prefix_length: int | None = None
    inputs: np.ndarray | None = None


class Corruption(Protocol):
    """A frozen dataclass whose fields are its parameters."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """That the vocabulary must have."""
        ...

    def raw_length(self, length: int) -> int:
        """The most tokens of a text whose row is never longer than `length`."""
        ...

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        """tokens: (n,) int32, a text of at least two tokens. Another draw of the generator gives another row."""
        ...


@dataclass(frozen=True)
class PrefixSplit:
    """The prefix's length is uniform between the shares `least` and `most` of the text (Raffel et al. 2020, section 3.2.3), but at
    least one token, and at least one is left.

    Raises UserError where these are no shares in order.
    """

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise UserError(
                f"prefix: least is {self.least} and most is {self.most}; give shares of the text, 0 <= least <= most <= 1"
            )

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return ()

    def raw_length(self, length: int) -> int:
        return length

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        shortest, longest = (
            min(max(round(share * len(tokens)), 1), len(tokens) - 1) for share in (self.least, self.most)
        )
        return split_at(tokens, int(rng.integers(shortest, longest + 1)))


def split_at(tokens: np.ndarray, prefix_length: int) -> Corrupted:
    """tokens: (n,) int32. Those from `prefix_length` on are restored."""
    return Corrupted(tokens, np.arange(len(tokens)) >= prefix_length, prefix_length)
