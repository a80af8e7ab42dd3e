"""Prefix language modelling: the beginning of a text is read in both directions, the rest is restored from left to right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.denoising.corruption import Corrupted
from data.denoising.vocabulary import Vocabulary
from data.errors import UserError


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
