"""Rewards that follow from a rule, without a model: `reward: [{source: length, args: {high: 400}}]`. `RULES` names them.

More is better in each, so that a positive weight is right: what a rule dislikes is a negative number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from data.errors import UserError
from data.messages import number_in
from data.sample import Sample

RULES = {  # where each is found
    "numeric_answer": "rlhf.rewards.rules:numeric_answer",
    "regex": "rlhf.rewards.rules:Regex",
    "length": "rlhf.rewards.rules:Length",
    "format": "rlhf.rewards.rules:Format",
    "json": "rlhf.rewards.rules:Json",
    "forbidden_words": "rlhf.rewards.rules:ForbiddenWords",
    "repetition": "rlhf.rewards.rules:Repetition",
}
WITHOUT_LIMITS = frozenset(RULES.values()) - {RULES["regex"]}  # quick with any text, so that they need no worker


def numeric_answer(sample: Sample) -> float:
    """1.0 where the response gives the number of `sample.prompt.meta["answer"]`, else 0.0; 72, 72.0 and $72 are equal.

    A text's number is the first after its last `####` (GSM8K's mark, Cobbe et al. 2021); without the mark, its last.
    Raises UserError where the prompt's row has no answer column, or no number in it.
    """
    if "answer" not in sample.prompt.meta:
        found = ", ".join(sorted(sample.prompt.meta)) or "none"
        raise UserError(
            f"numeric_answer: prompt row {sample.prompt.row} has no column 'answer' (further columns: {found}); "
            "map it in data.columns"
        )
    expected = number_in(str(sample.prompt.meta["answer"]))
    if expected is None:
        raise UserError(
            f"numeric_answer: prompt row {sample.prompt.row}: no number in its answer {sample.prompt.meta['answer']!r}"
        )
    return float(number_in(sample.text) == expected)


@dataclass(frozen=True)
class Regex:
    """`value` where the pattern is found in the response (`match` anywhere) or is the whole of it (full), else 0. The dot is any
    character but a newline; write (?s) first for any. It runs in a worker process: some patterns take for ever.

    Raises UserError where the pattern is none.
    """

    pattern: str
    match: Literal["anywhere", "full"] = "anywhere"
    value: float = 1.0

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"regex: pattern {self.pattern!r}: {error}") from error

    def __call__(self, sample: Sample) -> float:
        search = re.search if self.match == "anywhere" else re.fullmatch
        return self.value if search(self.pattern, sample.text) else 0.0


@dataclass(frozen=True)
class Length:
    """1 for a response of `low` to `high` units; outside it falls linearly, to 0 at `falloff` units from the range and beyond.
    Tokens are those that the policy sampled, the end token included.

    Raises UserError where the range is empty.
    """

    low: float = 0.0
    high: float | None = None
    falloff: float = 0.0
    unit: Literal["characters", "words", "tokens"] = "words"

    def __post_init__(self):
        if self.high is not None and self.high < self.low:
            raise UserError(f"length: high {self.high:g} is below low {self.low:g}; no response can be in the range")
        if self.falloff < 0:
            raise UserError(f"length: falloff must not be negative, got {self.falloff:g}")

    def __call__(self, sample: Sample) -> float:
        length = self.measured(sample)
        outside = max(self.low - length, 0.0 if self.high is None else length - self.high, 0.0)
        if outside == 0:
            return 1.0
        return max(0.0, 1 - outside / self.falloff) if self.falloff else 0.0

    def measured(self, sample: Sample) -> int:
        if self.unit == "characters":
            return len(sample.text)
        if self.unit == "words":
            return len(sample.text.split())
        return sum(sample.sampled) if sample.sampled else len(sample.tokens)


@dataclass(frozen=True)
class Format:
    """1 where the response is `<tag>…</tag>` for each of the tags in their order, once each and with nothing but white space
    between them, else 0: the format reward of DeepSeek-R1 (Guo et al. 2025, section 2.2.2)."""

    tags: tuple[str, ...] = ("think", "answer")

    def __call__(self, sample: Sample) -> float:
        rest = sample.text
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if sample.text.count(opening) != 1 or sample.text.count(closing) != 1:
                return 0.0
            before, _, inside = rest.partition(opening)
            _, closed, rest = inside.partition(closing)
            if before.strip() or not closed:
                return 0.0
        return float(not rest.strip())


@dataclass(frozen=True)
class Json:
    """1 where the response is valid JSON, and an object with these keys where some are given; else 0."""

    keys: tuple[str, ...] = ()

    def __call__(self, sample: Sample) -> float:
        try:
            value = json.loads(sample.text)
        except (ValueError, RecursionError):
            return 0.0
        return float(not self.keys or (isinstance(value, dict) and value.keys() >= set(self.keys)))


@dataclass(frozen=True)
class ForbiddenWords:
    """-penalty for each time that the response says one of the words (or phrases): whole words, in upper or lower case.

    Raises UserError where there is no word.
    """

    words: tuple[str, ...]
    penalty: float = 1.0

    def __post_init__(self):
        if not self.words or not all(word.strip() for word in self.words):
            raise UserError(f"forbidden_words: words {list(self.words)}: wanted at least one, and none empty")

    @cached_property
    def found(self) -> re.Pattern[str]:
        longest_first = sorted(self.words, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)

    def __call__(self, sample: Sample) -> float:
        return -self.penalty * len(self.found.findall(sample.text))


@dataclass(frozen=True)
class Repetition:
    """Minus the share of the response's n-grams of words that it has said before: 0 where all differ, towards -1 for one phrase
    over and over.

    Raises UserError where n is below 1.
    """

    n: int = 3

    def __post_init__(self):
        if self.n < 1:
            raise UserError(f"repetition: n must be at least 1, got {self.n}")

    def __call__(self, sample: Sample) -> float:
        words = sample.text.split()
        grams = [tuple(words[at : at + self.n]) for at in range(len(words) - self.n + 1)]
        return len(set(grams)) / len(grams) - 1 if grams else 0.0
