"""PPO with a critic and a KL penalty in the reward (Schulman et al. 2017; Ouyang et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from data.batch import Batch
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy, ClippedValue
from rlhf.ops import advantages, kl, masked

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class KL:
    """The penalty for leaving the reference. With a target, in nats an answer, the coefficient adapts towards it."""

    coef: Annotated[float, Field(ge=0)] = 0.05
    estimator: Literal["k1", "k2", "k3"] = "k1"
    target: Positive | None = None
    horizon: Annotated[int, Field(gt=0)] = 10_000  # samples over which the coefficient adapts


@dataclass(frozen=True)
class GAE:
    gamma: Fraction = 1.0
    lam: Fraction = 0.95


@dataclass(frozen=True)
class PPO(Algorithm):
    """clip, value_clip: how far the ratio and the value may move from where they were before the step; None: freely.
    whiten: advantages to mean 0 and variance 1 over the action tokens. reward_clip: scores are kept within +- this."""

    needs = frozenset({"old_logprobs", "ref_logprobs", "values"})
    clip: float = 0.2
    value_clip: float | None = 0.2
    kl: KL = KL()
    gae: GAE = GAE()
    whiten: bool = True
    reward_clip: Positive | None = None

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, old_logprobs, ref_logprobs, values; adds advantages and returns."""
        mask, scores = batch.action_mask, batch.rewards
        if self.reward_clip is not None:
            scores = scores.clamp(-self.reward_clip, self.reward_clip)
        divergence = kl.ESTIMATORS[self.kl.estimator](batch.old_logprobs, batch.ref_logprobs)  # (B, T)
        rewards = advantages.token_rewards(scores, self.kl.coef * divergence, mask)
        gains, returns = advantages.gae(rewards, batch.values, mask, self.gae.gamma, self.gae.lam)
        if self.whiten:
            gains = masked.whiten(gains, mask)
        return batch.with_columns(advantages=gains, returns=returns)

    def objectives(self) -> dict[str, Objective]:
        return {"policy": ClippedPolicy(self.clip, self.clip), "critic": ClippedValue(self.value_clip)}

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
