"""RLOO: REINFORCE whose baseline is the mean return of the prompt's other samples; an answer is one action, and its KL is
part of its return (Kool et al. 2019; Ahmadian et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rlhf.algorithms.penalty import Coefficient, RewardKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from data.batch import Batch


@dataclass(frozen=True)
class RLOO(Algorithm):
    """per: the ratio, its clip and the mean are of answers, or of tokens. normalise: advantages to mean 0 and variance 1 over
    the batch. clip_low, clip_high, entropy: as in GRPO."""

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
