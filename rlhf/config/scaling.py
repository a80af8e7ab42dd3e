"""The configuration of `launch.py scaling`: a grid of small trainings that says what a larger one would reach."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlhf.config.node import Node


class Measured(Node):
    """One training: a size and how many tokens it sees."""

    size: str
    tokens: int = Field(ge=1)


class Scaling(Node):
    phase: str = ""  # which pretrain phase is trained; default: the config's only one
    sizes: dict[str, dict[str, Any]] = Field(min_length=2)  # by name, the fields laid over the policy's architecture
    tokens: list[int] = Field(min_length=2)  # that each size is trained on
    held_out: list[Measured] = []  # trainings that the fit does not see, and whose loss it must predict
    budgets: list[float] = []  # floating-point operations for which the best size is told
