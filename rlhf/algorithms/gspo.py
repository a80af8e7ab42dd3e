"""GSPO: GRPO whose ratio, and so whose clip, is that of the whole answer, the geometric mean over its tokens: an answer is
kept or left out as one, which steadies mixture-of-experts models (Zheng et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.algorithms.group import GroupRelative
from rlhf.algorithms.penalty import Coefficient
from rlhf.interfaces import Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class GSPO(GroupRelative):
    """clip_low, clip_high: how far the mean ratio may move from 1, a thousandth of what single tokens may. The others: as in
    GRPO."""

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    std_eps: Coefficient = 1e-6

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            ratio="sequence",
            average="sequence",
            **self.terms(),
        )
        return {"policy": policy}
