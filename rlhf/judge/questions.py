"""The questions to a judge, and the parsing of its replies: pure functions of text.

The default questions and the position swap follow Zheng et al. 2023 (LLM-as-a-judge). Naming one principle of a
constitution, chosen for each prompt, follows Bai et al. 2022 (Constitutional AI, section 4.1).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Literal

from data.sample import Prompt

Verdict = Literal["first", "second", "tie"]

PAIRWISE = """\
{principle}

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Which answer is better? Reply with one letter, A or B, and nothing else."""
POINTWISE = """\
{principle}

[Request]
{prompt}

[Answer]
{answer}

How good is the answer, from 0 (worst) to {best} (best)? Reply with one number and nothing else."""
PRINCIPLE = "Judge which answer is more helpful, honest and harmless."  # in the default questions
POINTWISE_PRINCIPLE = "Judge how helpful, honest and harmless the answer is."

# fields that a template must have, by kind
NEEDED = {"pairwise": {"prompt", "first", "second"}, "pointwise": {"prompt", "answer"}}
ALLOWED = {"pairwise": {"principle"}, "pointwise": {"principle", "best"}}  # fields that it may have
FIELD = re.compile(r"\{(\w+)\}")  # other braces, for example of JSON, are plain text

MARK = re.compile(r"\[\[\s*(\w+)\s*\]\]")
PLAIN = re.compile(r"[\"'(*]*(?:(?:answer|response)\s+)?(\w+)[\"')*.]*", re.IGNORECASE)
WORDS: dict[str, Verdict] = {
    "a": "first",
    "first": "first",
    "b": "second",
    "second": "second",
    "c": "tie",
    "tie": "tie",
}
RATING = re.compile(r"([+-]?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?\.?")
MARKED_RATING = re.compile(r"\[\[\s*([+-]?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?\s*\]\]")


def template_of(kind: str, template: str | None) -> str:
    """The given template, or the default of the kind."""
    return template or {"pairwise": PAIRWISE, "pointwise": POINTWISE}[kind]


def fields(template: str) -> set[str]:
    """Names of the template's fields."""
    return set(FIELD.findall(template))


def principle_of(principles: Sequence[str], kind: str, seed: int, row: int) -> str:
    """The principle by which the answers to a prompt (row) are judged, by hash: the same in every process, for both
    orders of two answers and for every answer to the prompt. Without principles, the default."""
    if not principles:
        return PRINCIPLE if kind == "pairwise" else POINTWISE_PRINCIPLE
    digest = hashlib.blake2b(f"{seed} {row}".encode(), digest_size=8).digest()
    return principles[int.from_bytes(digest, "little") % len(principles)]


def render(template: str, **values: str) -> str:
    """The template with its fields filled in, in one pass, so that braces in an answer stay as they are."""
    return FIELD.sub(lambda match: values.get(match[1], match[0]), template)


def request_of(prompt: Prompt) -> str:
    """The prompt as the judge sees it: its text, or every turn of a dialogue with its role."""
    if len(prompt.messages) < 2:
        return prompt.text
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt.messages)


def parse_verdict(text: str) -> Verdict | None:
    """The verdict in a reply to a pairwise question: one mark [[A]], [[B]] or [[C]] (a tie) anywhere, or only a word A,
    B, C, first, second or tie, optionally after "answer" or "response". None for any other reply, also for two
    different marks."""
    marks = {mark.lower() for mark in MARK.findall(text)}
    if marks:
        return WORDS.get(marks.pop()) if len(marks) == 1 else None
    found = PLAIN.fullmatch(text.strip())
    return WORDS.get(found[1].lower()) if found else None


def parse_rating(text: str, best: float) -> float:
    """The rating in a reply to a pointwise question, in [0, best]: only a number, optionally with "/best", or one mark
    [[number]] anywhere. NaN for any other reply, also for a number out of range."""
    marks = set(MARKED_RATING.findall(text))
    found = None
    if len(marks) == 1:
        found = marks.pop()
    elif not marks and (match := RATING.fullmatch(text.strip())):
        found = match.groups()
    if found is None:
        return math.nan
    rating, scale = float(found[0]), found[1]
    return rating if 0 <= rating <= best and (not scale or float(scale) == best) else math.nan
