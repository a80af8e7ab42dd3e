"""Settings of `launch.py scaling`: a grid of small trainings that predicts the loss of larger ones."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rlhf.config.node import Node

FEWEST = 3  # sizes and token counts in a fit, at least: two show a slope, but not that it flattens
NARROWEST = 2.0  # smallest allowed ratio of the largest to the smallest
SizeName = Annotated[
    str, Field(pattern=r"^[A-Za-z_][\w-]*$", description="a letter, then letters, digits, '_' and '-'")
]


class Size(Node):
    """One model of the grid: its differences from the config's model."""

    architecture: dict[str, Any] = Field(min_length=1)  # fields that replace the policy's
    lr: float | None = Field(None, gt=0)  # default: the phase's; wider models want smaller ones
    batch_size: int | None = Field(None, ge=1)  # default: the phase's; few tokens want many small steps


class Training(Node):
    """One training: a size and its number of tokens."""

    size: str
    tokens: int = Field(ge=1)


class Scaling(Node):
    phase: str = ""  # the pretrain phase to scale; default: the config's only one
    sizes: dict[SizeName, Size]
    tokens: list[
        Annotated[int, Field(ge=1)]
    ]  # each size is trained on each of these; a row counts as max_length tokens
    # trainings left out of the fit, whose loss it must predict; their sizes are trained on these tokens only
    held_out: list[Training] = []
    # largest relative error of these predictions; above it the command exits with 1
    held_out_error: float | None = Field(None, gt=0)
    # floating-point operations to compute the best size for; default: 1, 10 and 100 times the largest training's
    budgets: list[Annotated[float, Field(gt=0)]] = []


def steps_for(tokens: int, batch_size: int, max_length: int) -> int:
    """The number of optimizer steps nearest to `tokens`; a row counts as max_length tokens."""
    return max(1, round(tokens / (batch_size * max_length)))
