"""Objectives of learning from preferences without a reward model: DPO and its relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked, preference


@dataclass(frozen=True)
class DPO:
    """Direct preference optimisation; with label smoothing, its conservative form. Rows as in `Pairwise`.

    beta: strength of the pull towards the reference. label_smoothing: share of pairs whose label is thought wrong.
    Raises UserError where a parameter is out of its range.
    """

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "pairs"
    columns: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self):
        if not self.beta > 0:
            raise UserError(f"DPO: beta must be above 0, got {self.beta}; usual values are 0.05 to 0.5")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"DPO: label_smoothing must lie in [0, 0.5), got {self.label_smoothing}: the share of wrong labels"
            )

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs."""
        log_ratios = masked.sum(out - microbatch.ref_logprobs, microbatch.action_mask, dim=1)  # (b,)
        chosen, rejected = log_ratios[0::2], log_ratios[1::2]
        rewards = (self.beta * log_ratios).detach()
        margin = rewards[0::2] - rewards[1::2]
        metrics = {
            "accuracy": (margin > 0).sum(),
            "chosen_reward": rewards[0::2].sum(),
            "rejected_reward": rewards[1::2].sum(),
            "margin": margin.sum(),
        }
        return preference.dpo(chosen, rejected, self.beta, self.label_smoothing).sum(), metrics
