"""Objectives of the policy in reinforcement learning: a surrogate of the reward, and what may be added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import kl, losses, masked

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch

Average = Literal["token", "sequence", "constant"]
Estimator = Literal["k1", "k2", "k3"]
Ratio = Literal["token", "sequence", "product"]


@dataclass(frozen=True, kw_only=True)
class PolicyObjective:
    """What the policy's objectives share: how tokens add up, a penalty for leaving the reference, a bonus for entropy.

    average: "token", the mean over all tokens (DAPO, Yu et al. 2025); "sequence", the mean over the rows of the mean over a
        row's tokens (GRPO, Shao et al. 2024); "constant", the mean over the rows of the sum over a row's tokens over
        `divisor`, so that a token weighs the same in any row (Dr. GRPO, Liu et al. 2025). TRL's `dr_grpo` is "constant" with
        the longest possible answer as divisor; verl's `seq-mean-token-sum-norm` with its scale factor over the number of rows.
    kl_coef, kl_estimator: coef * an estimate of KL(policy || reference) of each token is added to its loss. As long as the
        policy is the one that sampled, the gradient of k1 is 0 on average, of k2 that of KL(policy || reference), of k3 that
        of KL(reference || policy). kl_weighted: times the token's probability ratio, through which gradient flows, too: k1
        and k3 then have the gradient of KL(policy || reference), also when the policy has moved on (DeepSeek-V3.2 2025).
    entropy_coef: coef * entropy of each token's distribution is taken from its loss.
    Raises UserError where a parameter is out of its range.
    """

    surrogate_columns: ClassVar[frozenset[str]] = frozenset({"advantages"})
    average: Average = "token"
    divisor: float = 1.0
    kl_coef: float = 0.0
    kl_estimator: Estimator = "k3"
    kl_weighted: bool = False
    entropy_coef: float = 0.0

    def __post_init__(self):
        if self.average not in get_args(Average):
            raise UserError(f"there is no average {self.average!r}; take one of {', '.join(get_args(Average))}")
        if not self.divisor > 0:
            raise UserError(f"the divisor must be above 0, got {self.divisor}; take the most tokens of an answer")
        if not self.kl_coef >= 0:
            raise UserError(f"the KL coefficient must not be negative, got {self.kl_coef}; 0.001 to 0.05 is usual")
        if self.kl_estimator not in get_args(Estimator):
            raise UserError(
                f"there is no KL estimator {self.kl_estimator!r}; take one of {', '.join(get_args(Estimator))}"
            )
        if not self.entropy_coef >= 0:
            raise UserError(f"the entropy coefficient must not be negative, got {self.entropy_coef}; 0.001 is usual")

    @property
    def output(self) -> Output:
        return "logprobs_entropy" if self.entropy_coef else "logprobs"

    @property
    def unit(self) -> Unit:
        return "tokens" if self.average == "token" else "rows"

    @property
    def columns(self) -> frozenset[str]:
        penalty = {"ref_logprobs", "old_logprobs"} if self.kl_weighted else {"ref_logprobs"}
        return self.surrogate_columns | (penalty if self.kl_coef else frozenset())

    def surrogate(self, logprobs: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """logprobs: (b, T) -> (loss of each token (b, T), metrics of each token (b, T)), all 0 outside the mask."""
        raise TypeError(f"{type(self).__name__} must define surrogate(logprobs, microbatch)")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs; with a bonus for entropy (2, b, T), log-probs and entropies."""
        mask = microbatch.action_mask
        logprobs, entropies = out if self.entropy_coef else (out, None)
        token_losses, metrics = self.surrogate(logprobs, microbatch)
        if self.kl_coef:
            penalties = self._penalties(logprobs, microbatch)
            token_losses = token_losses + self.kl_coef * penalties
            metrics["ref_kl"] = penalties
        if entropies is not None:
            entropies = entropies.where(mask, 0)
            token_losses = token_losses - self.entropy_coef * entropies
            metrics["entropy"] = entropies
        return self._sum(token_losses, mask), {
            name: self._metric_sum(values.detach(), mask) for name, values in metrics.items()
        }

    def _penalties(self, logprobs: Tensor, microbatch: Batch) -> Tensor:
        mask = microbatch.action_mask
        # NaN must be gone before the estimator: its gradient would be 0 * NaN
        own, reference = (x.where(mask, 0) for x in (logprobs, microbatch.ref_logprobs))
        penalties = kl.ESTIMATORS[self.kl_estimator](own, reference)
        if self.kl_weighted:
            penalties = penalties * losses.probability_ratio(logprobs, microbatch.old_logprobs, mask)
        return penalties

    def _sum(self, token_losses: Tensor, mask: Tensor) -> Tensor:
        if self.average == "constant":
            return masked.sum(token_losses, mask) / self.divisor
        return self._metric_sum(token_losses, mask)

    def _metric_sum(self, values: Tensor, mask: Tensor) -> Tensor:
        """Over tokens; where the unit is the row, over the rows' means, so that a metric has the same scale in any case."""
        if self.average == "token":
            return masked.sum(values, mask)
        return masked.mean(values, mask, dim=1).sum()


@dataclass(frozen=True)
class ClippedPolicy(PolicyObjective):
    """PPO's clipped surrogate.

    The probability ratio is kept in [1 - clip_low, 1 + clip_high]; dual_clip, above 1, bounds the loss of a token with
    a negative advantage. ratio: of each "token"; of the "sequence", the geometric mean (GSPO); or the "product" over the
    row (RLOO), whose loss is one number a row, so that it wants average="sequence".
    Raises UserError where a parameter is out of its range.
    """

    surrogate_columns: ClassVar[frozenset[str]] = frozenset({"old_logprobs", "advantages"})
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    ratio: Ratio = "token"

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.clip_low <= 1:
            raise UserError(f"the lower clip must lie in [0, 1], got {self.clip_low}; 0.2 is usual")
        if not self.clip_high >= 0:
            raise UserError(f"the upper clip must not be negative, got {self.clip_high}; 0.2 is usual")
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"dual_clip must be above 1, got {self.dual_clip}; 3 is usual, null turns it off")
        if self.ratio not in get_args(Ratio):
            raise UserError(f"there is no ratio {self.ratio!r}; take one of {', '.join(get_args(Ratio))}")
        if self.ratio == "product" and self.average != "sequence":
            raise UserError(f"the ratio 'product' is one a row: set average to 'sequence', got {self.average!r}")

    def surrogate(self, logprobs: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """logprobs: (b, T). approx_kl: k3 of the policy before this step's updates against the present one."""
        old, mask = microbatch.old_logprobs, microbatch.action_mask
        token_losses, clipped = losses.clipped_policy(
            logprobs, old, microbatch.advantages, mask, self.clip_low, self.clip_high, self.dual_clip, self.ratio
        )
        return token_losses, _drift(logprobs, old, clipped)


@dataclass(frozen=True)
class CISPO(PolicyObjective):
    """REINFORCE weighted by the bounded ratio, which carries no gradient: no token is left out, however far it moved.

    The ratio is kept in [1 - clip_low, 1 + clip_high]. clip_low None is the method as published, without a lower bound
    (MiniMax-M1 2025); TRL's `epsilon_high` bounds the ratio itself and is 1 + clip_high here; verl's `cispo` sets both.
    """

    surrogate_columns: ClassVar[frozenset[str]] = frozenset({"old_logprobs", "advantages"})
    clip_low: float | None = None
    clip_high: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        if self.clip_low is not None and not 0 <= self.clip_low <= 1:
            raise UserError(f"the lower clip must lie in [0, 1], got {self.clip_low}; null, no bound, is usual")
        if not self.clip_high >= 0:
            raise UserError(f"the upper clip must not be negative, got {self.clip_high}; 4 is usual")

    def surrogate(self, logprobs: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """logprobs: (b, T). approx_kl: as in `ClippedPolicy`."""
        old, mask = microbatch.old_logprobs, microbatch.action_mask
        token_losses, clipped = losses.cispo(logprobs, old, microbatch.advantages, mask, self.clip_low, self.clip_high)
        return token_losses, _drift(logprobs, old, clipped)


@dataclass(frozen=True)
class Reinforce(PolicyObjective):
    """-advantage * log-prob, without a ratio (Williams 1992): for one optimizer step on each rollout."""

    def surrogate(self, logprobs: Tensor, microbatch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """logprobs: (b, T)."""
        return losses.reinforce(logprobs, microbatch.advantages, microbatch.action_mask), {}


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


def _drift(logprobs: Tensor, old_logprobs: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """How far the policy is from the one before this step's updates, (b, T) each; sums leave out what is not trained on."""
    return {
        "clip_fraction": clipped.to(logprobs.dtype),
        "approx_kl": kl.k3(old_logprobs, logprobs.detach()),
    }
