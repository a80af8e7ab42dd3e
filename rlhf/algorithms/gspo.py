"""GSPO: GRPO whose ratio, and so whose clip, is that of the whole answer, the geometric mean over its tokens: an answer is
kept or left out as one, which steadies mixture-of-experts models (Zheng et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.batch import Batch
from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages


@dataclass(frozen=True)
class GSPO(Algorithm):
    """clip_low, clip_high: how far the mean ratio may move from 1, a thousandth of what single tokens may. The others: as in
    GRPO."""

    samples_per_prompt = 2
    clip_low: float = 3e-4
    clip_high: float = 4e-4
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
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            ratio="sequence",
            average="sequence",
            entropy_coef=self.entropy,
            **self.kl.options(),
        )
        return {"policy": policy}
