"""A prompt, a sampled answer and the sampling settings, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A prompt. `tokens` include the chat template's generation prompt: the answer follows them."""

    tokens: tuple[int, ...]
    text: str  # the prompt as the user wrote it: the last message, or the plain prompt
    row: int  # its row in the data set; row, seed, step and sample index fix the sampling seed
    meta: Mapping[str, Any] = field(default_factory=dict)  # the row's other columns: answers, sources
    messages: tuple[Mapping[str, str], ...] = ()  # the whole dialogue up to the answer


@dataclass(frozen=True)
class Sample:
    """One answer to a prompt from the rollout: one turn, or several turns with observations between them."""

    prompt: Prompt
    index: int  # its number among the prompt's samples
    tokens: tuple[int, ...]  # response ids, including the end token
    logprobs: tuple[float, ...]  # per response token, at the sampling temperature; 0 for observations
    text: str  # the response without special tokens
    truncated: bool  # the length limit was reached before an end token
    version: int  # version of the weights that sampled the last token
    sampled: tuple[bool, ...] = ()  # per response token: False in observations; empty = the policy wrote all tokens
    score: float | None = None  # from the environment, if there is one


@dataclass(frozen=True)
class Sampling:
    """How to sample. Training keeps top_p at 1: a smaller one renormalises probabilities in a way that the trainer does not know."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    samples: int = 1  # per prompt
    seed: Sequence[int] = ()  # (run seed, phase, step …); with the prompt's row and the index it gives a request's seed
