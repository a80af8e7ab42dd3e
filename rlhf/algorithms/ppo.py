"""PPO with a critic and a penalty for leaving the reference (Schulman et al. 2017; Ouyang et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rlhf.algorithms.penalty import KL, Coefficient, Fraction
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy, ClippedValue
from rlhf.ops import advantages, kl, masked

if TYPE_CHECKING:
    from data.batch import Batch


@dataclass(frozen=True)
class GAE:
    gamma: Fraction = 1.0
    lam: Fraction = 0.95


@dataclass(frozen=True)
class PPO(Algorithm):
    """clip_low, clip_high, value_clip: how far the ratio and the value may move from where they were before the step;
    value_clip None: freely. dual_clip: bound of the loss where the advantage is negative. whiten: advantages to mean 0 and
    variance 1 over the action tokens. entropy: coefficient of the bonus."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    value_clip: float | None = 0.2
    kl: KL = field(default_factory=KL)
    gae: GAE = GAE()
    whiten: bool = True
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs", "values"}) | ({"ref_logprobs"} if self.kl.coef else frozenset())

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, old_logprobs, ref_logprobs, values; adds advantages and returns."""
        mask = batch.action_mask
        rewards = advantages.token_rewards(batch.rewards, self.kl.in_reward.penalties(batch), mask)
        gains, returns = advantages.gae(rewards, batch.values, mask, self.gae.gamma, self.gae.lam)
        if self.whiten:
            gains = masked.whiten(gains, mask)
        return batch.with_columns(advantages=gains, returns=returns)

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low, self.clip_high, self.dual_clip, entropy_coef=self.entropy, **self.kl.in_loss.options()
        )
        return {"policy": policy, "critic": ClippedValue(self.value_clip)}

    def after_step(self, metrics: Mapping[str, float]) -> PPO:
        """metrics["kl"]: sum over an answer's tokens of log(policy / reference), mean over answers, in nats;
        metrics["samples"]: how many answers."""
        if self.kl.target is None:
            return self
        coef = kl.adapt(self.kl.coef, metrics["kl"], self.kl.target, self.kl.horizon, metrics["samples"])
        return self.with_state({"kl_coef": coef})

    def state(self) -> dict[str, Any]:
        return {"kl_coef": self.kl.coef}

    def with_state(self, state: Mapping[str, Any]) -> PPO:
        return replace(self, kl=replace(self.kl, coef=state["kl_coef"])) if state else self
