"""REINFORCE and its relatives: policy gradients without a critic, each with another baseline.

REINFORCE, ReMax and OPO have no ratio, so they need one optimizer step per rollout: minibatches 1, epochs 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlhf.algorithms.penalty import Coefficient, Fraction, RewardKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy, Reinforce
from rlhf.ops import advantages, masked

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class REINFORCE(Algorithm):
    """The answer's return, its reward minus its KL, times the gradient of its log-prob (Williams 1992).

    baseline: subtract the batch's mean return. entropy: coefficient of the entropy bonus.
    """

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


@dataclass(frozen=True)
class ReinforcePlusPlus(Algorithm):
    """PPO without a critic (Hu et al. 2025). A token's return is the reward minus the KL of this and all later tokens, normalised
    over the whole batch and not within a prompt, so one sample of each prompt is enough.

    gamma: discount per token. clip_low, clip_high, entropy: as in PPO.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: RewardKL = field(default_factory=RewardKL)
    gamma: Fraction = 1.0
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """((B,) the score of each answer, (B, T) bool the tokens to train on)."""
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
    """REINFORCE++ that first subtracts the mean reward of the prompt's samples. A sample that is alone in its group has an
    advantage of 0 and does not count in the normalisation."""

    samples_per_prompt = 2

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As above; reads group_ids, too."""
        groups = batch.groups()
        compared = batch.action_mask.new_zeros(len(batch))
        for rows in groups:
            compared[rows] = len(rows) > 1
        return advantages.group_centred(batch.rewards, groups), batch.action_mask & compared[:, None]


@dataclass(frozen=True)
class ReMax(Algorithm):
    """REINFORCE whose baseline is the reward of the greedy answer to the same prompt (Li et al. 2024).

    entropy: coefficient of the entropy bonus.
    """

    kl: RewardKL = field(default_factory=RewardKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs", "greedy_rewards"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, greedy_rewards, old_logprobs, ref_logprobs. Adds advantages: for each token, the reward minus the greedy
        answer's, minus the KL of this and all later tokens."""
        gains, mask = batch.rewards - batch.greedy_rewards, batch.action_mask
        rewards = advantages.token_rewards(gains, self.kl.penalties(batch), mask)
        return batch.with_columns(advantages=advantages.discounted_returns(rewards, mask))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": Reinforce(entropy_coef=self.entropy)}


@dataclass(frozen=True)
class RLOO(Algorithm):
    """REINFORCE whose baseline is the mean return of the prompt's other samples. An answer is one action, and its KL is part of
    its return (Kool et al. 2019; Ahmadian et al. 2024).

    per: whether the ratio, its clip and the mean are taken over answers or over tokens. normalise: scale advantages to mean 0 and
    variance 1 over the batch. clip_low, clip_high, entropy: as in GRPO.
    """

    samples_per_prompt = 2
    per: Literal["sequence", "token"] = "sequence"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: RewardKL = field(default_factory=RewardKL)
    normalise: bool = False
    std_eps: Coefficient = 1e-4
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards, group_ids, old_logprobs, ref_logprobs; adds advantages, the same on every action token of a row."""
        returns = batch.rewards - self.kl.penalties(batch).sum(1)
        gains = advantages.leave_one_out(returns, batch.groups())
        if self.normalise:
            gains = advantages.batch_normalised(gains - gains.mean(), gains, self.std_eps)
        return batch.with_columns(advantages=advantages.on_tokens(gains, batch.action_mask))

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            ratio="product" if self.per == "sequence" else "token",
            average=self.per,
            entropy_coef=self.entropy,
        )
        return {"policy": policy}


@dataclass(frozen=True)
class OPO(Algorithm):
    """REINFORCE exactly on policy, without penalty or clip. Its baseline is the mean of the prompt's rewards weighted by the
    answers' lengths, which has the least variance (Hao et al. 2025).

    entropy: coefficient of the entropy bonus.
    """

    needs = frozenset({"old_logprobs"})
    samples_per_prompt = 2
    entropy: Coefficient = 0.0

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids; adds advantages, the same on every action token of a row."""
        mask = batch.action_mask
        gains = advantages.length_weighted_centred(batch.rewards, mask.sum(1), batch.groups())
        return batch.with_columns(advantages=advantages.on_tokens(gains, mask))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": Reinforce(entropy_coef=self.entropy)}
