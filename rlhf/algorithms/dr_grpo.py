"""Dr. GRPO: GRPO without its two biases. It divides neither by a group's spread, which favours questions that are nearly
always or never solved, nor by a sample's length, which favours long wrong answers (Liu et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.batch import Batch
from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages


@dataclass(frozen=True)
class DrGRPO(Algorithm):
    """divisor: what a row's sum over tokens is divided by, the same for every row; the longest possible answer
    (sampling.max_new_tokens) keeps the loss at the scale of GRPO's. The others: as in GRPO."""

    samples_per_prompt = 2
    clip_low: float = 0.2
    clip_high: float = 0.2
    divisor: float = 128.0
    kl: LossKL = field(default_factory=LossKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids; adds advantages, the same on every action token of a row."""
        gains = advantages.group_centred(batch.rewards, batch.groups())
        return batch.with_columns(advantages=advantages.on_tokens(gains, batch.action_mask))

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            average="constant",
            divisor=self.divisor,
            entropy_coef=self.entropy,
            **self.kl.options(),
        )
        return {"policy": policy}
