"""REINFORCE: the answer's return, its reward less its KL, times the gradient of its log-prob (Williams 1992). It has no
ratio, so it wants one optimizer step on each rollout: minibatches 1, epochs 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf.algorithms.penalty import Coefficient, RewardKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import Reinforce
from rlhf.ops import advantages

if TYPE_CHECKING:
    from data.batch import Batch


@dataclass(frozen=True)
class REINFORCE(Algorithm):
    """baseline: the batch's mean return is taken from each. entropy: coefficient of the bonus."""

    kl: RewardKL = field(default_factory=RewardKL)
    baseline: bool = True
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, old_logprobs, ref_logprobs; adds advantages, the same on every action token of a row."""
        returns = batch.rewards - self.kl.penalties(batch).sum(1)
        if self.baseline:
            returns = returns - returns.mean()
        return batch.with_columns(advantages=advantages.on_tokens(returns, batch.action_mask))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": Reinforce(entropy_coef=self.entropy)}
