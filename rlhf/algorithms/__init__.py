"""RL algorithms by name: a built-in one, or `module:Class` of the user's."""

from __future__ import annotations

from typing import Any

from rlhf.interfaces import Algorithm
from rlhf.named import build

BUILT_IN = {
    "ppo": "rlhf.algorithms.ppo:PPO",
    "grpo": "rlhf.algorithms.grpo:GRPO",
    "dr_grpo": "rlhf.algorithms.grpo:DrGRPO",
    "dapo": "rlhf.algorithms.grpo:DAPO",
    "gspo": "rlhf.algorithms.grpo:GSPO",
    "cispo": "rlhf.algorithms.grpo:CISPO",
    "rloo": "rlhf.algorithms.reinforce:RLOO",
    "reinforce": "rlhf.algorithms.reinforce:REINFORCE",
    "reinforce_pp": "rlhf.algorithms.reinforce:ReinforcePlusPlus",
    "reinforce_pp_baseline": "rlhf.algorithms.reinforce:ReinforcePlusPlusBaseline",
    "remax": "rlhf.algorithms.reinforce:ReMax",
    "opo": "rlhf.algorithms.reinforce:OPO",
    "online_dpo": "rlhf.algorithms.online_dpo:OnlineDPO",
}


def resolve(name: str, parameters: dict[str, Any]) -> Algorithm:
    """The algorithm with its fields set from `parameters`, checked against their types.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    algorithm = build("algorithm", name, parameters, BUILT_IN, Algorithm)
    algorithm.objectives()  # they check their own parameters: before anything is spawned, not at the first step
    return algorithm
