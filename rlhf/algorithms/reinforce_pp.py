"""REINFORCE++: PPO without a critic. Each token's return is the score less the KL still to come, normalised over the whole
batch and not within a prompt, so that one sample of each prompt is enough; the variant with a baseline first takes the
mean reward of the prompt's samples away (Hu et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf.algorithms.penalty import Coefficient, Fraction, RewardKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages, masked

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class ReinforcePlusPlus(Algorithm):
    """gamma: discount of a step. clip_low, clip_high, entropy: as in PPO."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: RewardKL = field(default_factory=RewardKL)
    gamma: Fraction = 1.0
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """((B,) the score of each answer, (B, T) bool the tokens to learn from)."""
        return batch.rewards, batch.action_mask

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, old_logprobs, ref_logprobs; adds advantages of mean 0 and variance 1 over all tokens."""
        scores, mask = self.scores(batch)
        rewards = advantages.token_rewards(scores, self.kl.penalties(batch), mask)
        returns = advantages.discounted_returns(rewards, mask, self.gamma)
        return batch.with_columns(advantages=masked.whiten(returns, mask))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": ClippedPolicy(self.clip_low, self.clip_high, entropy_coef=self.entropy)}


@dataclass(frozen=True)
class ReinforcePlusPlusBaseline(ReinforcePlusPlus):
    """A sample that is alone in its group teaches nothing: its advantage is 0, and it does not count for the spread."""

    samples_per_prompt = 2

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reads group_ids, too."""
        groups = batch.groups()
        compared = batch.action_mask.new_zeros(len(batch))
        for rows in groups:
            compared[rows] = len(rows) > 1
        return advantages.group_centred(batch.rewards, groups), batch.action_mask & compared[:, None]
