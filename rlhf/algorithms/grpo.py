"""Group relative policy optimisation: the other samples of a prompt are the baseline, no critic (Shao et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data.batch import Batch
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages


@dataclass(frozen=True)
class GRPO(Algorithm):
    """Needs several samples of each prompt: one that is alone in its group teaches nothing.

    The loss is a mean over all tokens (DAPO, Yu et al. 2025), not first over those of a sample.

    clip_low, clip_high: how far the ratio may move from 1. normalise_std: divide by the group's standard deviation;
    without it the advantage is that of Dr. GRPO (Liu et al. 2025).
    """

    needs = frozenset({"old_logprobs"})
    samples_per_prompt = 2
    clip_low: float = 0.2
    clip_high: float = 0.2
    normalise_std: bool = True

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids; adds advantages, the same on every action token of a row."""
        relative = advantages.group_normalised if self.normalise_std else advantages.group_centred
        gains = relative(batch.rewards, batch.groups())  # (B,)
        return batch.with_columns(advantages=torch.where(batch.action_mask, gains[:, None], 0))

    def objectives(self) -> dict[str, Objective]:
        return {"policy": ClippedPolicy(self.clip_low, self.clip_high)}
