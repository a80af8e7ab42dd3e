"""The objective of pretraining and SFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class LanguageModel:
    """Negative log-likelihood of the trained tokens: pretraining and SFT.

    z_loss: weight of (log Z)^2, which keeps the logits' normaliser near 1 (PaLM, Chowdhery et al. 2022, section 5: 1e-4).
    Where it is on, the metrics are the two parts of the loss: "nll" and, weighted, "z_loss".
    """

    z_loss: float = 0.0

    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset()

    @property
    def output(self) -> Output:
        return "logprobs_normalizer" if self.z_loss else "logprobs"

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs, or with z-loss (2, b, T), log Z after them."""
        mask = microbatch.action_mask
        if not self.z_loss:
            return -masked.sum(out, mask), {}
        logprobs, normalizer = out
        nll = -masked.sum(logprobs, mask)
        # what lies outside the mask must be gone before the square, whose gradient would be 0 * NaN
        penalty = self.z_loss * normalizer.where(mask, 0).square().sum()
        return nll + penalty, {"nll": nll.detach(), "z_loss": penalty.detach()}
