"""What to minimise: which output of the model, which unit to divide by, which columns to ship, and a call into `ops`.

Each follows `Objective` in rlhf/interfaces.py: a call gives the loss's sum over the unit, and sums of metrics.
"""

from __future__ import annotations

from typing import Any

from rlhf.interfaces import Objective
from rlhf.named import build
from rlhf.objectives.dpo import DPO, IPO, KTO, Hinge, Mix, Robust
from rlhf.objectives.language_model import (
    DenoisersLanguageModel,
    LanguageModel,
    MaskedLanguageModel,
    PrefixLanguageModel,
    SpanLanguageModel,
)
from rlhf.objectives.policy import CISPO, ClippedPolicy, ClippedValue, Reinforce
from rlhf.objectives.reference_free import CPO, NLL, ORPO, SimPO
from rlhf.objectives.reward import Binary, KWise, Pairwise, PlackettLuce, Pointwise, Process

__all__ = [
    "CISPO",
    "CPO",
    "DPO",
    "IPO",
    "KTO",
    "NLL",
    "ORPO",
    "Binary",
    "ClippedPolicy",
    "ClippedValue",
    "DenoisersLanguageModel",
    "Hinge",
    "KWise",
    "LanguageModel",
    "MaskedLanguageModel",
    "Mix",
    "Pairwise",
    "PlackettLuce",
    "Pointwise",
    "PrefixLanguageModel",
    "Process",
    "Reinforce",
    "Robust",
    "SimPO",
    "SpanLanguageModel",
]

TEXT_OBJECTIVES = {  # by name, of phases of kind pretrain and sft
    "causal": "rlhf.objectives.language_model:LanguageModel",
    "prefix": "rlhf.objectives.language_model:PrefixLanguageModel",
    "masked": "rlhf.objectives.language_model:MaskedLanguageModel",
    "spans": "rlhf.objectives.language_model:SpanLanguageModel",
    "denoisers": "rlhf.objectives.language_model:DenoisersLanguageModel",
}

LOSSES = {  # by name, of phases of kind dpo
    "dpo": "rlhf.objectives.dpo:DPO",
    "ipo": "rlhf.objectives.dpo:IPO",
    "hinge": "rlhf.objectives.dpo:Hinge",
    "robust": "rlhf.objectives.dpo:Robust",
    "kto": "rlhf.objectives.dpo:KTO",
    "orpo": "rlhf.objectives.reference_free:ORPO",
    "simpo": "rlhf.objectives.reference_free:SimPO",
    "cpo": "rlhf.objectives.reference_free:CPO",
    "nll": "rlhf.objectives.reference_free:NLL",
    "mix": "rlhf.objectives.dpo:Mix",
}

REWARD_LOSSES = {  # by name, of phases of kind reward
    "pairwise": "rlhf.objectives.reward:Pairwise",
    "kwise": "rlhf.objectives.reward:KWise",
    "plackett_luce": "rlhf.objectives.reward:PlackettLuce",
    "pointwise": "rlhf.objectives.reward:Pointwise",
    "binary": "rlhf.objectives.reward:Binary",
    "process": "rlhf.objectives.reward:Process",
}


def resolve_text_objective(name: str, parameters: dict[str, Any]) -> Objective:
    """The objective of pretraining or SFT, built in or `module:Class`.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    return build("objective", name, parameters, TEXT_OBJECTIVES)


def resolve_loss(name: str, parameters: dict[str, Any]) -> Objective:
    """The objective of a preference phase, built in or `module:Class`.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    return build("loss", name, parameters, LOSSES)


def resolve_reward_loss(name: str, parameters: dict[str, Any]) -> Objective:
    """The objective of a reward model, built in or `module:Class`.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    return build("loss", name, parameters, REWARD_LOSSES)
