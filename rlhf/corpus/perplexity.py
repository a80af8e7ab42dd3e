"""A cleaning step by the perplexity of a small language model (CCNet, Wenzek et al. 2020, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome, Placed, Step

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 4096  # of one forward pass, with padding


@dataclass(frozen=True, kw_only=True)
class Perplexity(Step):
    """Sets `marks["perplexity"]` of each document, exp of the mean loss over its first tokens, and drops documents
    outside the bounds. Text in a language that the model does not know is far above; text that repeats itself is far
    below. Choose the bounds by the marks of a first run, because they depend on the model. Runs on CPUs in float32, so
    that all workers agree.

    model: a causal language model's directory or phase:<name>. max_tokens: how many tokens of a document are read.
    """

    model: str
    at_most: float | None = None
    at_least: float | None = None
    max_tokens: int = 512

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        tokenizer, model = _load(self.model)
        # a token hardly ever has more than 32 characters
        texts = [each.document.text[: self.max_tokens * 32] for each in placed]
        encoded = tokenizer(texts, truncation=True, max_length=self.max_tokens, verbose=False)["input_ids"]
        found = _perplexities(model, [tokens or [0] for tokens in encoded])
        return [self._judged(each.document, value) for each, value in zip(placed, found, strict=True)]

    def _judged(self, document: Document, perplexity: float | None) -> Outcome:
        if perplexity is None:
            return Dropped("too short for a perplexity")
        if self.at_most is not None and perplexity > self.at_most:
            return Dropped(f"perplexity above {self.at_most:g}")
        if self.at_least is not None and perplexity < self.at_least:
            return Dropped(f"perplexity below {self.at_least:g}")
        return replace(document, marks={**document.marks, "perplexity": float(f"{perplexity:.3g}")})


@lru_cache(maxsize=1)
def _load(path: str) -> tuple[Any, torch.nn.Module]:
    import torch
    from transformers import AutoModelForCausalLM

    from data.tokenizer import load_tokenizer  # it imports transformers, which the check of a config does not need

    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    return load_tokenizer(path), model.eval()


def _perplexities(model: torch.nn.Module, rows: Sequence[list[int]]) -> list[float | None]:
    """Of each row; None for rows of one token. Batches the rows in their order, so that the rounding of a row's result
    does not depend on the number of workers."""
    import torch

    found: list[float | None] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # else the rounding of sums would depend on the worker's number of cores
    try:
        start = 0
        while start < len(rows):
            stop, longest = start, 0
            while stop < len(rows) and max(longest, len(rows[stop])) * (stop + 1 - start) <= TOKENS_AT_ONCE:
                longest = max(longest, len(rows[stop]))
                stop += 1
            stop = max(stop, start + 1)
            found += _losses(model, rows[start:stop])
            start = stop
    finally:
        torch.set_num_threads(threads)
    return [None if loss is None else math.exp(min(loss, 700.0)) for loss in found]


def _losses(model: torch.nn.Module, rows: Sequence[list[int]]) -> list[float | None]:
    """The mean loss over each row's tokens after the first; None for rows of one token."""
    import torch
    from torch.nn.functional import cross_entropy

    lengths = [len(row) for row in rows]
    tokens = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    with torch.inference_mode():
        logits = model(input_ids=tokens).logits  # right padding: causal attention does not see it
    losses = cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
    losses = losses.view(len(rows), -1)
    return [float(line[: n - 1].mean()) if n > 1 else None for line, n in zip(losses, lengths, strict=True)]
