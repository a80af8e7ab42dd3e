"""What to minimise: which output of the model, which unit to divide by, which columns to ship, and a call into `ops`.

Each follows `Objective` in rlhf/interfaces.py: a call gives the loss's sum over the unit, and sums of metrics.
"""

from __future__ import annotations

from typing import Any

from rlhf.interfaces import Objective
from rlhf.named import build
from rlhf.objectives.policy import CISPO, ClippedPolicy, Reinforce
from rlhf.objectives.preference import DPO, IPO, KTO, Hinge, Mix, Robust
from rlhf.objectives.pretraining import (
    DenoisersLanguageModel,
    MaskedLanguageModel,
    PrefixLanguageModel,
    SpanLanguageModel,
)
from rlhf.objectives.reference_free import CPO, NLL, ORPO, SimPO
from rlhf.objectives.reward import Binary, KWise, Pairwise, PlackettLuce, Pointwise, Process
from rlhf.objectives.supervised import LanguageModel
from rlhf.objectives.value import ClippedValue

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
    "causal": "rlhf.objectives.supervised:LanguageModel",
    "prefix": "rlhf.objectives.pretraining:PrefixLanguageModel",
    "masked": "rlhf.objectives.pretraining:MaskedLanguageModel",
    "spans": "rlhf.objectives.pretraining:SpanLanguageModel",
    "denoisers": "rlhf.objectives.pretraining:DenoisersLanguageModel",
}

LOSSES = {  # by name, of phases of kind dpo
    "dpo": "rlhf.objectives.preference:DPO",
    "ipo": "rlhf.objectives.preference:IPO",
    "hinge": "rlhf.objectives.preference:Hinge",
    "robust": "rlhf.objectives.preference:Robust",
    "kto": "rlhf.objectives.preference:KTO",
    "orpo": "rlhf.objectives.reference_free:ORPO",
    "simpo": "rlhf.objectives.reference_free:SimPO",
    "cpo": "rlhf.objectives.reference_free:CPO",
    "nll": "rlhf.objectives.reference_free:NLL",
    "mix": "rlhf.objectives.preference:Mix",
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
