"""Online DPO: the best and the worst of a prompt's fresh samples are a pair to learn from by DPO, so that the reward judges
the present policy and not a stored one (Guo et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives.dpo import DPO

if TYPE_CHECKING:
    from data.batch import Batch


@dataclass(frozen=True)
class OnlineDPO(Algorithm):
    """beta: strength of the pull towards the reference."""

    needs = frozenset({"ref_logprobs"})
    samples_per_prompt = 2
    beta: float = 0.1

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids. Two rows of each group remain, adjacent: the best, then the worst; none of a group
        without a difference. Rows with nothing to train on are not compared."""
        pairs: list[int] = []
        trained = batch.action_mask.any(1)
        for rows in batch.groups():
            rows = rows[trained[rows]].tolist()
            own = batch.rewards[rows].tolist()
            if own and max(own) > min(own):
                pairs += [rows[own.index(max(own))], rows[own.index(min(own))]]
        return batch.select(pairs)

    def objectives(self) -> dict[str, Objective]:
        return {"policy": DPO(self.beta)}
