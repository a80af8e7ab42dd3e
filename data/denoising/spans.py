"""Span corruption (T5): replaces spans of a text by sentinels; the model writes the spans.

A row is a source and a target. The source is the text with sentinels, and the end of text. The target is each sentinel followed by
its span, one more sentinel, and the end of text (Raffel et al. 2020, figure 2).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.denoising.corruption import Corrupted
from data.denoising.vocabulary import Vocabulary
from data.errors import UserError

Spans = tuple[np.ndarray, np.ndarray]  # starts and lengths, (spans,) int64 each, ascending; no two touch

SENTINELS = tuple(f"<extra_id_{number}>" for number in range(100))  # T5's own names
MOST_SPANS = len(SENTINELS) - 1  # the last sentinel ends the target


class DropsSpans:
    """A corruption whose `counts` and `draw` decide which spans of a text drop out."""

    def raw_length(self, length: int) -> int:
        """Raises UserError where not even a text of two tokens fits."""
        return longest_text(length, lambda count: self.counts(count)[1])

    def corrupt(self, tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> Corrupted:
        return corrupt_spans(tokens, vocabulary, lambda count: self.draw(count, rng))


@dataclass(frozen=True)
class SpanCorruption(DropsSpans):
    """rate: share of the tokens to drop. mean_span: mean length of a span in tokens.

    The text's length fixes the numbers of dropped tokens and of spans. The spans' lengths and places are random, all divisions
    equally likely (Raffel et al. 2020, section 3.3.4). Where a text would need more spans than there are sentinels, or than there
    are tokens to separate them, it has fewer and longer spans.

    Raises UserError unless 0 < rate < 1 and mean_span >= 1.
    """

    rate: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self) -> None:
        check_rate("spans: rate", self.rate)
        if not self.mean_span >= 1:
            raise UserError(f"spans: mean_span is {self.mean_span}; give a number of tokens, 1 or more")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return SENTINELS

    def counts(self, count: int) -> tuple[int, int]:
        """(dropped tokens, spans) of a text of `count` tokens. Both are at least 1 and never decrease with `count`."""
        dropped = min(max(round(count * self.rate), 1), max(count - 1, 1))
        spans = min(max(round(dropped / self.mean_span), 1), dropped, count - dropped + 1, MOST_SPANS)
        return dropped, spans

    def draw(self, count: int, rng: np.random.Generator) -> Spans:
        """The spans of a text of `count` tokens."""
        dropped, spans = self.counts(count)
        cuts = np.sort(rng.choice(dropped - 1, spans - 1, replace=False)) + 1
        lengths = np.diff(cuts, prepend=0, append=dropped)
        kept_before = np.sort(rng.choice(count - dropped + 1, spans, replace=False))
        return kept_before + np.cumsum(lengths) - lengths, lengths


def check_rate(name: str, rate: float) -> None:
    """Raises UserError unless 0 < rate < 1."""
    if not 0 < rate < 1:
        raise UserError(f"{name} is {rate}; give a share of the tokens above 0 and below 1, such as 0.15")


def longest_text(length: int, spans: Callable[[int], int], before: int = 0) -> int:
    """The most tokens that a text may have so that its row fits in `length`. Lengths exclude the end-of-text token, whether or not
    the text already has one.

    spans: the most spans of a text of so many tokens; must not decrease. before: number of tokens before the source.

    Raises UserError where not even a text of two tokens fits.
    """

    def row_length(count: int) -> int:
        # each span's sentinel twice, the target's last sentinel, two ends of text
        return before + count + 2 * spans(count) + 3

    if length < row_length(2):
        raise UserError(f"max_length is {length}; a row of spans and sentinels needs {row_length(2)} or more")
    return bisect_right(range(length), length, key=row_length) - 1


def corrupt_spans(tokens: np.ndarray, vocabulary: Vocabulary, draw: Callable[[int], Spans]) -> Corrupted:
    """tokens: (n,) int32, with or without the end of text. draw: gives the spans of a text of so many tokens, without the end of
    text. In joined documents a span ends before an end of text inside."""
    end = vocabulary.end
    text = tokens[:-1] if tokens[-1] == end else tokens
    starts, lengths = _up_to(np.flatnonzero(text == end), *draw(len(text)))
    sentinels = np.array([vocabulary.ids[name] for name in SENTINELS[: len(starts) + 1]], np.int32)
    return apply_spans(text, starts, lengths, sentinels, end)


def apply_spans(
    text: np.ndarray, starts: np.ndarray, lengths: np.ndarray, sentinels: np.ndarray, end: int
) -> Corrupted:
    """text: (n,) int32 without end of text. starts, lengths: (spans,) int; spans ascend, do not touch, and have 1 or more tokens.

    sentinels: (spans + 1,) int32. The row is (n + 2 * spans + 3,).
    """
    offsets = np.cumsum(lengths) - lengths  # (spans,) dropped tokens before each span
    places = np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())  # (dropped,) in the text
    kept = np.ones(len(text), bool)
    kept[places] = False
    kept[starts] = True
    shown = text.copy()
    shown[starts] = sentinels[:-1]
    source = np.append(shown[kept], np.int32(end))
    target = np.insert(text[places], offsets, sentinels[:-1])
    row = np.concatenate([source, target, np.array([sentinels[-1], end], np.int32)])
    return Corrupted(row, np.arange(len(row)) >= len(source), len(source))


def _up_to(ends: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Spans:
    """The spans, each cut before the first of the positions `ends` inside it, without spans that become empty."""
    if not len(ends):
        return starts, lengths
    following = np.append(ends, np.iinfo(ends.dtype).max)[np.searchsorted(ends, starts)]
    lengths = np.minimum(lengths, following - starts)
    return starts[lengths > 0], lengths[lengths > 0]
