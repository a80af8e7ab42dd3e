"""Dr. GRPO: GRPO without its two biases. It divides neither by a group's spread, which favours questions that are nearly
always or never solved, nor by a sample's length, which favours long wrong answers (Liu et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.algorithms.group import GroupRelative
from rlhf.interfaces import Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class DrGRPO(GroupRelative):
    """divisor: what a row's sum over tokens is divided by, the same for every row; the longest possible answer
    (sampling.max_new_tokens) keeps the loss at the scale of GRPO's. The others: as in GRPO."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    divisor: float = 128.0

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_centred(batch.rewards, batch.groups())

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            average="constant",
            divisor=self.divisor,
            **self.terms(),
        )
        return {"policy": policy}
