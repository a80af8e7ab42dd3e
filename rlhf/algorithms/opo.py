"""OPO: REINFORCE exactly on policy, without penalty or clip, whose baseline is the mean of the prompt's rewards weighted by
the answers' lengths, that of the least variance (Hao et al. 2025). It wants one optimizer step on each rollout:
minibatches 1, epochs 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.algorithms.penalty import Coefficient
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import Reinforce
from rlhf.ops import advantages

if TYPE_CHECKING:
    from data.batch import Batch


@dataclass(frozen=True)
class OPO(Algorithm):
    """Needs several samples of each prompt. entropy: coefficient of the bonus."""

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
