"""Rewards by rule, without a model: `reward: [{source: length, args: {high: 400}}]`. `RULES` lists their names.

Higher is better in every rule, so weights are positive; a penalty is a negative score.
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

RULES = {
    "numeric_answer": "rlhf.rewards.rules:numeric_answer",
    "regex": "rlhf.rewards.rules:Regex",
    "length": "rlhf.rewards.rules:Length",
    "format": "rlhf.rewards.rules:Format",
    "json": "rlhf.rewards.rules:Json",
    "forbidden_words": "rlhf.rewards.rules:ForbiddenWords",
    "repetition": "rlhf.rewards.rules:Repetition",
}
WITHOUT_LIMITS = frozenset(RULES.values()) - {RULES["regex"]}  # fast on any text: no worker process needed


def numeric_answer(sample: Sample) -> float:
    """1.0 if the number in the response equals the number in `sample.prompt.meta["answer"]`, else 0.0; 72, 72.0 and $72
    are equal.

    The number of a text is the first after its last `####` (GSM8K's mark, Cobbe et al. 2021), or its last number if
    there is no mark. Raises UserError where the prompt's row has no answer column, or the column has no number.
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
    """`value` if the pattern matches somewhere in the response (`match: anywhere`) or the whole response (`full`), else
    0. A dot matches any character except a newline; begin the pattern with (?s) to include newlines. The rule runs in a
    worker process, because some patterns never finish.

    Raises UserError where the pattern is not a regular expression.
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
    """1 for a response of `low` to `high` units. Outside this range the score falls linearly and reaches 0 at a
    distance of `falloff` units. Tokens are the tokens that the policy sampled, including the end token.

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
    """1 if the response consists of `<tag>…</tag>` for each tag, once each, in order, with only white space between
    them; else 0. This is the format reward of DeepSeek-R1 (Guo et al. 2025, section 2.2.2)."""

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
    """1 if the response is valid JSON (with `keys`: a JSON object that has these keys), else 0."""

    keys: tuple[str, ...] = ()

    def __call__(self, sample: Sample) -> float:
        try:
            value = json.loads(sample.text)
        except (ValueError, RecursionError):
            return 0.0
        return float(not self.keys or (isinstance(value, dict) and value.keys() >= set(self.keys)))


@dataclass(frozen=True)
class ForbiddenWords:
    """-penalty for each occurrence of one of the words or phrases in the response, as whole words, in any case.

    Raises UserError where there are no words, or an empty one.
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
    """Minus the share of the response's word n-grams that occur earlier in it: 0 if all differ, near -1 for one phrase
    repeated.

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
