"""A prompt, and one generated trajectory, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """What is asked. `tokens` end where the answer starts (the chat template's generation prompt included)."""

    tokens: tuple[int, ...]
    text: str  # the prompt as the user wrote it: the last message, or the plain prompt
    row: int  # its row in the data set; with seed, step and sample index it fixes the sampling seed
    meta: Mapping[str, Any] = field(default_factory=dict)  # further columns of the row: answers, sources
    messages: tuple[Mapping[str, str], ...] = ()  # the whole dialogue up to the answer


@dataclass(frozen=True)
class Sample:
    """One answer to a prompt, as the rollout gave it: one turn, or several with observations in between."""

    prompt: Prompt
    index: int  # which of the prompt's samples
    tokens: tuple[int, ...]  # response ids, its end token included
    logprobs: tuple[float, ...]  # per response token, at the sampling temperature; 0 for observations
    text: str  # the response without special tokens
    truncated: bool  # the length limit came before the end token
    version: int  # of the weights that sampled the last token
    sampled: tuple[
        bool, ...
    ] = ()  # per response token: False for an observation's. Empty: the policy wrote all of them
    score: float | None = None  # given by the environment, where there is one


@dataclass(frozen=True)
class Sampling:
    """How to sample. top_p below 1 renormalises in a way the trainer cannot see, so training keeps it at 1."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    samples: int = 1  # per prompt
    seed: Sequence[
        int
    ] = ()  # (run seed, phase, step …): each request's seed derives from it, the prompt's row and the index
