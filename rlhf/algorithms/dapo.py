"""DAPO: GRPO with a higher upper clip, so that rare tokens may grow, a mean over all tokens, and prompts that are all
solved or all failed replaced by others. Its soft punishment of long answers is the phase's `shaping.overlong` (Yu et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rlhf.algorithms.group import GroupRelative
from rlhf.algorithms.penalty import Coefficient
from rlhf.interfaces import Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class DAPO(GroupRelative):
    """refills: how many more times a step draws prompts in place of those that teach nothing. The others: as in GRPO."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    std_eps: Coefficient = 1e-6
    refills: Annotated[int, Field(ge=0)] = 3

    def keep(self, batch: Batch) -> Tensor:
        """(B,) bool: the rows of groups whose rewards are not all the same (equation 11)."""
        kept = batch.action_mask.new_zeros(len(batch))
        for rows in batch.groups():
            own = batch.rewards[rows]
            kept[rows] = (own != own[0]).any()
        return kept

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        return {"policy": ClippedPolicy(self.clip_low, self.clip_high, average="token", **self.terms())}
