"""CISPO: GRPO's advantages with REINFORCE weighted by the bounded ratio, so that no token loses its gradient to a clip
(MiniMax-M1 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.batch import Batch
from rlhf import objectives
from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.ops import advantages


@dataclass(frozen=True)
class CISPO(Algorithm):
    """clip_low, clip_high: the weight is kept in [1 - clip_low, 1 + clip_high]; clip_low None, as published: no lower bound.
    The published upper bound was tuned and not named; 5 is that of ScaleRL (Khatri et al. 2025). The others: as in GRPO."""

    samples_per_prompt = 2
    clip_low: float | None = None
    clip_high: float = 4.0
    std_eps: Coefficient = 1e-6
    kl: LossKL = field(default_factory=LossKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids; adds advantages, the same on every action token of a row."""
        gains = advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)
        return batch.with_columns(advantages=advantages.on_tokens(gains, batch.action_mask))

    def objectives(self) -> dict[str, Objective]:
        policy = objectives.CISPO(self.clip_low, self.clip_high, entropy_coef=self.entropy, **self.kl.options())
        return {"policy": policy}
