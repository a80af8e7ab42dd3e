"""The seam of denoising: what becomes of a text before a model learns to restore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.denoising.vocabulary import Vocabulary


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
