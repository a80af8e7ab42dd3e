"""ReMax: REINFORCE whose baseline is the reward of the greedy answer to the same prompt (Li et al. 2024). It has no ratio,
so it wants one optimizer step on each rollout: minibatches 1, epochs 1."""

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
class ReMax(Algorithm):
    """entropy: coefficient of the bonus."""

    kl: RewardKL = field(default_factory=RewardKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs", "greedy_rewards"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, greedy_rewards, old_logprobs, ref_logprobs; adds advantages: of each token, by how much the reward
        beats the greedy one, less the KL still to come."""
        gains, mask = batch.rewards - batch.greedy_rewards, batch.action_mask
        rewards = advantages.token_rewards(gains, self.kl.penalties(batch), mask)
        return batch.with_columns(advantages=advantages.discounted_returns(rewards, mask))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": Reinforce(entropy_coef=self.entropy)}
