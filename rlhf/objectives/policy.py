"""Objectives of reinforcement learning: the policy's surrogate and the critic's error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import kl, losses, masked


@dataclass(frozen=True)
class ClippedPolicy:
    """PPO's clipped surrogate over action tokens.

    The probability ratio is kept in [1 - clip_low, 1 + clip_high]; dual_clip, above 1, bounds the loss of a token with
    a negative advantage. Raises UserError where a parameter is out of its range.
    """

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset({"old_logprobs", "advantages"})
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None

    def __post_init__(self):
        if not 0 <= self.clip_low <= 1:
            raise UserError(f"the lower clip must lie in [0, 1], got {self.clip_low}; 0.2 is usual")
        if not self.clip_high >= 0:
            raise UserError(f"the upper clip must not be negative, got {self.clip_high}; 0.2 is usual")
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"dual_clip must be above 1, got {self.dual_clip}; 3 is usual, null turns it off")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs. approx_kl: k3 of the policy before this step's updates against the present one."""
        old, mask = microbatch.old_logprobs, microbatch.action_mask
        token_losses, clipped = losses.clipped_policy(
            out, old, microbatch.advantages, mask, self.clip_low, self.clip_high, self.dual_clip
        )
        metrics = {"clip_fraction": clipped.sum(), "approx_kl": masked.sum(kl.k3(old, out.detach()), mask)}
        return token_losses.sum(), metrics


@dataclass(frozen=True)
class ClippedValue:
    """Half the squared error of the critic, the value kept within `clip` of the one before this step's updates; clip
    None leaves it free. Raises UserError where clip is not above 0."""

    output: ClassVar[Output] = "values"
    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset({"values", "returns"})
    clip: float | None = 0.2

    def __post_init__(self):
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"the value clip must be above 0, got {self.clip}; 0.2 is usual, null turns it off")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) values."""
        token_losses, clipped = losses.clipped_value(
            out, microbatch.values, microbatch.returns, microbatch.action_mask, self.clip
        )
        return token_losses.sum(), {"clip_fraction": clipped.sum()}
