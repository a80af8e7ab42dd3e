"""The objective of pretraining and SFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.batch import Batch
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked


@dataclass(frozen=True)
class LanguageModel:
    """Negative log-likelihood of the trained tokens: pretraining and SFT."""

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs."""
        return -masked.sum(out, microbatch.action_mask), {}
