"""The interface of all corruptions, and the simplest corruption: a prefix language model reads a text's prefix and predicts the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.denoising.vocabulary import Vocabulary
from data.errors import UserError


@dataclass(frozen=True)
class Corrupted:
    """One row of a batch. tokens: (T,) int32. mask: (T,) bool, True = the model restores this token, and trains on it.

    prefix_length: tokens of the row's prefix, which is read in both directions (by the encoder, in models that have one).
    inputs: (T,) int32, read in place of the tokens; at each masked position the model predicts the token.
    """

    tokens: np.ndarray
    mask: np.ndarray
    prefix_length: int | None = None
    inputs: np.ndarray | None = None


class Corruption(Protocol):
    """Implementations are frozen dataclasses whose fields are the parameters."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that the vocabulary must have."""

    def raw_length(self, length: int) -> int:
        """The most tokens that a text may have so that its row is never longer than `length`."""

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        """tokens: (n,) int32, a text of at least two tokens. Each draw of the generator gives another row."""


@dataclass(frozen=True)
class PrefixSplit:
    """The prefix has a uniform length between the shares `least` and `most` of the text (Raffel et al. 2020, section 3.2.3). Prefix
    and rest have at least one token each.

    Raises UserError unless 0 <= least <= most <= 1.
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
    """tokens: (n,) int32. The model restores the tokens from `prefix_length` on."""
    return Corrupted(tokens, np.arange(len(tokens)) >= prefix_length, prefix_length)
