"""Masked language modelling (BERT): hides or swaps some tokens of a text; the model predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from data.denoising.corruption import Corrupted
from data.denoising.spans import check_rate
from data.denoising.vocabulary import MASK, Vocabulary
from data.errors import UserError

LONGEST_SPAN = 10  # tokens or words; as in Joshi et al. 2020


@dataclass(frozen=True)
class Masking:
    """rate: share of the ordinary tokens to choose. Of the chosen tokens, the share `masked` becomes `<mask>`, the share `random`
    becomes a random ordinary token, and the rest stays (Devlin et al. 2019, section 3.1). Each call draws anew (Liu et al. 2019,
    RoBERTa, section 4.1).

    whole_words: choose words with all their tokens; the rate is a share of the words.
    mean_span: choose spans of tokens or whole words of this mean length, and draw one replacement (mask, random or none) for the
        whole span. Lengths are geometric from 1 to 10 (Joshi et al. 2020, SpanBERT, section 3.1, with mean 3.8). Spans skip
        special tokens.

    At least one token or word is chosen. A row's first token, or the word it begins, never is: a batch has no mask there, because
    other objectives cannot predict the first token.

    Raises UserError where a share is not between 0 and 1, and where no geometric distribution has this mean.
    """

    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    whole_words: bool = False
    mean_span: float | None = None

    def __post_init__(self) -> None:
        check_rate("masked: rate", self.rate)
        if not (self.masked >= 0 and self.random >= 0 and self.masked + self.random <= 1):
            raise UserError(
                f"masked: masked is {self.masked} and random is {self.random}; give shares that add up to at most 1"
            )
        longest = (1 + LONGEST_SPAN) / 2
        if self.mean_span is not None and not 1 <= self.mean_span <= longest:
            raise UserError(
                f"masked: mean_span is {self.mean_span}; spans have 1 to {LONGEST_SPAN} tokens, give a mean from 1 to {longest}"
            )

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (MASK,)

    def raw_length(self, length: int) -> int:
        return length

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        units = self._units(tokens, vocabulary)
        count = units.max(initial=-1) + 1
        spans = arrange(self._lengths(max(round(count * self.rate), min(count, 1)), rng), count, rng)
        span_of = np.where(units >= 0, spans[units] if len(spans) else -1, -1)  # (n,) -1: not chosen
        chosen = span_of >= 0
        fates = rng.random(len(tokens))
        if self.mean_span is not None:
            fates = fates[span_of]
        others = vocabulary.ordinary[rng.integers(len(vocabulary.ordinary), size=len(tokens))]
        return apply_mask(tokens, chosen, fates, others, (self.masked, self.random), vocabulary.ids[MASK])

    def _units(self, tokens: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """(n,) int64: the number of each token's unit, a token or word that may be chosen, from 0; -1 for other tokens."""
        ordinary = ~vocabulary.special[tokens]
        starts = vocabulary.word_starts(tokens) if self.whole_words else np.ones(len(tokens), bool)
        words = np.cumsum(starts)
        eligible = ordinary & (words > 1)
        return np.where(eligible, np.cumsum(starts & eligible) - 1, -1)

    def _lengths(self, chosen: int, rng: np.random.Generator) -> np.ndarray:
        """(spans,) int64: the tokens or words of each span. They add up to `chosen`; the last span may be cut."""
        if self.mean_span is None:
            return np.ones(chosen, int)
        at_most = np.cumsum(length_probabilities(self.mean_span))[:-1]
        lengths = 1 + np.searchsorted(at_most, rng.random(chosen))
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), chosen) + 1]
        lengths[-1:] -= lengths.sum() - chosen
        return lengths


@cache
def length_probabilities(mean: float) -> np.ndarray:
    """(10,) float64: probabilities of the lengths 1 to 10, proportional to r ** length, with the r that gives the mean (1 to 5.5)."""
    lengths = np.arange(1, LONGEST_SPAN + 1)
    # r is a root of the sum of (length - mean) * r ** (length - 1), which by Descartes' rule of signs has one root >= 0
    roots = np.roots((lengths - mean)[::-1])
    ratio = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real >= 0)].max()
    weights = ratio ** (lengths - 1.0)
    return weights / weights.sum()


def arrange(lengths: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) int64: the number of each unit's span, or -1. lengths: (spans,) int64, in order. All arrangements are equally likely;
    spans may touch."""
    # one block for each span, and one for each unit outside spans
    blocks = np.full(count - lengths.sum() + len(lengths), -1)
    blocks[np.sort(rng.choice(len(blocks), len(lengths), replace=False))] = np.arange(len(lengths))
    sizes = np.ones(len(blocks), int)
    sizes[blocks >= 0] = lengths
    return np.repeat(blocks, sizes)


def apply_mask(
    tokens: np.ndarray,
    chosen: np.ndarray,
    fates: np.ndarray,
    others: np.ndarray,
    shares: tuple[float, float],
    mask: int,
) -> Corrupted:
    """tokens, others: (n,) int32. chosen: (n,) bool. fates: (n,) float64 in [0, 1). A chosen token becomes `mask` where its fate is
    below the first share, and the token of `others` where it is below the sum of both shares."""
    masked, random = shares
    swapped = np.where(fates < masked, mask, np.where(fates < masked + random, others, tokens))
    return Corrupted(tokens, chosen, inputs=np.where(chosen, swapped, tokens).astype(np.int32))
