"""What to minimise: which output of the model, which unit to divide by, which columns to ship, and a call into `ops`.

Each follows `Objective` in rlhf/interfaces.py: a call gives the loss's sum over the unit, and sums of metrics.
"""

from __future__ import annotations

from typing import Any

from rlhf.interfaces import Objective
from rlhf.named import build
from rlhf.objectives.policy import ClippedPolicy, ClippedValue
from rlhf.objectives.preference import DPO
from rlhf.objectives.supervised import LanguageModel, Pairwise

__all__ = ["DPO", "ClippedPolicy", "ClippedValue", "LanguageModel", "Pairwise"]

LOSSES = {"dpo": "rlhf.objectives.preference:DPO"}  # by name, of phases of kind dpo


def resolve_loss(name: str, parameters: dict[str, Any]) -> Objective:
    """The objective of a preference phase, built in or `module:Class`.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    return build("loss", name, parameters, LOSSES)
