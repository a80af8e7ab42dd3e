"""The configuration of `launch.py scaling`: a grid of small trainings that says what a larger one would reach."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlhf.config.node import Node

FEWEST = 3  # sizes and token counts that a fit must see: two tell a slope, and not that it becomes flatter
NARROWEST = 2.0  # the largest of either over the smallest
SizeName = Annotated[
    str, Field(pattern=r"^[A-Za-z_][\w-]*$", description="a letter, then letters, digits, '_' and '-'")
]


class Size(Node):
    """One model of the grid: what differs from the config's own."""

    architecture: dict[str, Any] = Field(min_length=1)  # fields laid over the policy's
    lr: float | None = Field(None, gt=0)  # default: the phase's; wider models want smaller ones
    batch_size: int | None = Field(None, ge=1)  # default: the phase's; few tokens want many small steps


class Training(Node):
    """A size and the tokens that it is trained on."""

    size: str
    tokens: int = Field(ge=1)


class Scaling(Node):
    phase: str = ""  # which pretrain phase is trained; default: the config's only one
    sizes: dict[SizeName, Size]
    tokens: list[Annotated[int, Field(ge=1)]]  # each size is trained on each; a row counts as max_length tokens
    # trainings that the fit does not see, and whose loss it must predict: their sizes are trained on these tokens alone
    held_out: list[Training] = []
    held_out_error: float | None = Field(None, gt=0)  # of these losses, relative; above it the command exits with 1
    # floating-point operations for which the best size is told; default: 1, 10 and 100 times the largest training's
    budgets: list[Annotated[float, Field(gt=0)]] = []


def steps_for(tokens: int, batch_size: int, max_length: int) -> int:
    """Optimizer steps that come nearest to these tokens, a row counted as max_length of them."""
    return max(1, round(tokens / (batch_size * max_length)))
