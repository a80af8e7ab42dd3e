"""Objectives of pretraining, SFT and reward models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.batch import Batch
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked, preference


@dataclass(frozen=True)
class LanguageModel:
    """Negative log-likelihood of the trained tokens: pretraining and SFT."""

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs."""
        return -masked.sum(out, microbatch.action_mask), {}


@dataclass(frozen=True)
class Pairwise:
    """Bradley-Terry likelihood of comparisons: reward models. A pair's rows are adjacent, the chosen one first."""

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "pairs"
    columns: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores."""
        chosen, rejected = out[0::2], out[1::2]
        margin = (chosen - rejected).detach()
        metrics = {"accuracy": (margin > 0).sum(), "margin": margin.sum()}
        return preference.pairwise_logistic(chosen, rejected).sum(), metrics
