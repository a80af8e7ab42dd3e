"""What to minimise: which output of the model, which unit to divide by, which columns to ship, and a call into `ops`.

Each follows `Objective` in rlhf/interfaces.py: a call gives the loss's sum over the unit, and sums of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from rlhf.interfaces import Output, Unit
from rlhf.ops import kl, losses, masked

Result = tuple[Tensor, dict[str, Tensor]]


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
        return losses.pairwise_logistic(chosen, rejected).sum(), metrics


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
        return losses.dpo(chosen, rejected, self.beta, self.label_smoothing).sum(), metrics


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
