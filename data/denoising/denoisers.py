"""A mixture of denoisers (UL2): drops short spans, long or many spans, or the end of each text; a mode token tells which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.denoising.corruption import Corrupted
from data.denoising.spans import SENTINELS, DropsSpans, SpanCorruption, Spans, longest_text
from data.denoising.vocabulary import Vocabulary
from data.errors import UserError

REGULAR, SEQUENTIAL, EXTREME = "<mode_r>", "<mode_s>", "<mode_x>"  # R, S and X in the paper


@dataclass(frozen=True)
class Continuation(DropsSpans):
    """Hides the end of a text, in the form of span corruption with one span.

    rate: mean share of hidden tokens; their number is uniform from one to twice this share.

    Raises UserError unless 0 < rate <= 0.5.
    """

    rate: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 0.5:
            raise UserError(f"denoisers: sequential is {self.rate}; give a mean share of the text above 0, at most 0.5")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return SENTINELS[:2]

    def counts(self, count: int) -> tuple[int, int]:
        """(most hidden tokens, spans) of a text of `count` tokens."""
        return min(max(round(2 * self.rate * count), 1), max(count - 1, 1)), 1

    def draw(self, count: int, rng: np.random.Generator) -> Spans:
        """The span of a text of `count` tokens."""
        most, _ = self.counts(count)
        restored = rng.integers(1, most + 1, size=1)
        return count - restored, restored


@dataclass(frozen=True)
class MixtureOfDenoisers:
    """regular, extreme: (mean span in tokens, rate) of each denoiser of these modes. sequential: the rate of the denoiser that hides
    a text's end, or None. All denoisers are drawn equally often. The defaults are the paper's (Tay et al. 2022, UL2, table 1 and
    section 3.1.2), with spans as in `SpanCorruption`, where the paper draws lengths from a normal distribution.

    Raises UserError where a rate or a length is out of range, and where there is no denoiser.
    """

    regular: tuple[tuple[float, float], ...] = ((3, 0.15), (8, 0.15))
    extreme: tuple[tuple[float, float], ...] = ((3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5))
    sequential: float | None = 0.25

    def __post_init__(self) -> None:
        if not self.denoisers:
            raise UserError("denoisers: none is left; give regular or extreme pairs, or a sequential rate")

    @cached_property
    def denoisers(self) -> list[tuple[str, SpanCorruption | Continuation]]:
        """(mode token, denoiser) of all denoisers."""
        pairs = [(REGULAR, pair) for pair in self.regular] + [(EXTREME, pair) for pair in self.extreme]
        spans = [(mode, SpanCorruption(rate, mean_span)) for mode, (mean_span, rate) in pairs]
        return spans + ([] if self.sequential is None else [(SEQUENTIAL, Continuation(self.sequential))])

    @property
    def special_tokens(self) -> tuple[str, ...]:
        modes = dict.fromkeys(mode for mode, _ in self.denoisers)
        return (*modes, *max((denoiser.special_tokens for _, denoiser in self.denoisers), key=len))

    def raw_length(self, length: int) -> int:
        """Raises UserError where not even a text of two tokens fits."""

        def most_spans(count: int) -> int:
            return max(denoiser.counts(count)[1] for _, denoiser in self.denoisers)

        return longest_text(length, most_spans, before=1)

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        mode, denoiser = self.denoisers[rng.integers(len(self.denoisers))]
        return after_mode(denoiser.corrupt(tokens, vocabulary, rng), vocabulary.ids[mode])


def after_mode(row: Corrupted, mode: int) -> Corrupted:
    """The row (T,) with the mode token in front: (T + 1,)."""
    tokens = np.concatenate([np.array([mode], np.int32), row.tokens])
    return Corrupted(tokens, np.concatenate([[False], row.mask]), 1 + row.prefix_length)
