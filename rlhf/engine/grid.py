"""Where a rank stands: which replica of the model, which stage of its layers, which part of its matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

UNCUT = "set it to 1 and shard with zero_stage 3, or take an architecture such as llama or qwen3"  # advice


@dataclass(frozen=True)
class Place:
    replica: int  # data parallel: replicas see different rows
    stage: int  # pipeline parallel: stages hold different layers
    part: int  # tensor parallel: parts hold different columns or rows of each matrix


@dataclass(frozen=True)
class Grid:
    """`world` ranks = stages x replicas x parts, in DeepSpeed's order: the parts of a matrix, which talk most, are neighbours; then
    come replicas, then stages. Raises ValueError where they do not divide."""

    world: int
    parts: int = 1
    stages: int = 1

    def __post_init__(self) -> None:
        if self.world % (self.parts * self.stages):
            raise ValueError(f"{self.world} ranks are no multiple of {self.parts} parts x {self.stages} stages")

    @property
    def replicas(self) -> int:
        return self.world // (self.parts * self.stages)

    @property
    def cut(self) -> bool:
        """Whether a replica is more than one rank."""
        return self.replicas < self.world

    def place(self, rank: int) -> Place:
        return Place(rank // self.parts % self.replicas, rank // (self.parts * self.replicas), rank % self.parts)

    def rank(self, place: Place) -> int:
        return (place.stage * self.replicas + place.replica) * self.parts + place.part

    def leaders(self, stage: int = 0) -> list[int]:
        """One rank of this stage of each replica."""
        return [self.rank(Place(replica, stage, 0)) for replica in range(self.replicas)]


@functools.cache
def process_groups(grid: Grid) -> Any:
    """DeepSpeed's PipelineParallelGrid, the groups of these ranks. Every rank must call; once a process, for they stay."""
    from deepspeed.runtime.pipe.topology import PipelineParallelGrid

    with redirect_stdout(StringIO()):  # it prints
        return PipelineParallelGrid(topology(grid))


def topology(grid: Grid) -> Any:
    """DeepSpeed's words for the grid."""
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    return PipeModelDataParallelTopology(num_pp=grid.stages, num_mp=grid.parts, num_dp=grid.replicas)


def gradient_norm(parameters: Iterable[nn.Parameter], grid: Grid) -> float:
    """The norm of the whole model's gradient, of which this rank has all, a stage or a part. Of what all parts hold alike, and of
    tied weights, only one counts. Every rank must call."""
    gradients = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    if not grid.cut:
        return float(torch.nn.utils.get_total_norm(list(gradients.values())))
    from deepspeed.runtime.utils import is_model_parallel_parameter

    first_part = grid.place(dist.get_rank()).part == 0
    mine = [
        gradient
        for parameter, gradient in gradients.items()
        if (first_part or is_model_parallel_parameter(parameter))
        and not getattr(parameter, "ds_pipe_replicated", False)
    ]
    square = torch.nn.utils.get_total_norm(mine).double().square() if mine else torch.zeros((), dtype=torch.float64)
    square = square.to(next(iter(gradients.values())).device)
    dist.all_reduce(square, group=process_groups(grid).get_model_parallel_group())
    return math.sqrt(float(square))
