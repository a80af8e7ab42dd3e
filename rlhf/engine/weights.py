"""A model's weights leaving the ranks: gathered in buckets, or all of them as a directory of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlhf.engine.grid import Grid
from rlhf.engine.tensor import whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# numpy has no bfloat16: its bits travel as uint16 beside the name of their dtype
NumpyWeight = tuple[str, str, np.ndarray]


def plan_buckets(sizes: Sequence[tuple[str, int]], bucket_bytes: int) -> list[list[str]]:
    """Names, in their order, in buckets of at most `bucket_bytes`; a larger tensor has a bucket of its own."""
    buckets: list[list[str]] = []
    room = 0
    for name, size in sizes:
        if not buckets or size > room:
            buckets.append([])
            room = bucket_bytes
        buckets[-1].append(name)
        room -= size
    return buckets


class WeightReader:
    """Reads a model's parameters whole. Tied weights come once, under the name that the model's body gives them.

    axes: {name: axis} of the weights that lie in parts. stages: {name: stage} of all weights, where the layers lie in stages; a rank
    has the shapes of the others' weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        grid: Grid,
        axes: Mapping[str, int] | None = None,
        stages: Mapping[str, int] | None = None,
    ) -> None:
        self._model, self._grid, self._axes, self._stages = model, grid, axes or {}, stages or {}
        parameters = dict(model.named_parameters())
        self._parameters = {name: parameters[name] for name in self._stages or parameters}

    def buckets(self, bucket_bytes: int) -> list[list[str]]:
        """The names in each bucket, the same on every rank."""
        sizes = [
            (name, _numel(weight) * weight.element_size() * (self._grid.parts if name in self._axes else 1))
            for name, weight in self._parameters.items()
        ]
        return plan_buckets(sizes, bucket_bytes)

    def read(self, names: Sequence[str]) -> list[tuple[str, Tensor]] | None:
        """Copies of these weights in CPU memory on rank 0, None on the others; every rank must call."""
        weights = [self._parameters[name] for name in names]
        with _gathered(weights):
            found = [(name, self._whole(name, weight.detach())) for name, weight in zip(names, weights)]
            if dist.get_rank() != 0:
                return None
            return [(name, weight.cpu().clone()) for name, weight in found]

    def export(self, directory: Path, bucket_bytes: int = 2**28) -> None:
        """Writes config.json and safetensors on rank 0, in the dtype that the ranks hold; every rank must call."""
        saved = self._model.state_dict().keys()
        state = {name: buffer for name, buffer in self._model.named_buffers() if name in saved}
        for names in self.buckets(bucket_bytes):
            state.update(self.read(names) or [])
        if dist.get_rank() == 0:
            self._model.save_pretrained(directory, state_dict=state)

    def _whole(self, name: str, weight: Tensor) -> Tensor:
        """The weight with all its parts, on the ranks of its stage and on rank 0."""
        axis, stage, rank = self._axes.get(name), self._stages.get(name, 0), dist.get_rank()
        if axis is not None and self._grid.place(rank).stage == stage:
            weight = whole(weight, axis, self._grid)
        owner = self._grid.leaders(stage)[0]
        if owner != 0 and rank == owner:
            dist.send(weight.contiguous(), 0)
        elif owner != 0 and rank == 0:
            shape = list(weight.shape)
            if axis is not None:
                shape[axis] *= self._grid.parts
            weight = torch.empty(shape, dtype=weight.dtype, device=self._model.device)
            dist.recv(weight, owner)
        return weight


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, in fp32 and CPU memory: the whole model on each rank, and with
    ZeRO 3 the rank's own part of it."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self._average = [_own(parameter).float().cpu().clone() for parameter in self._parameters]

    def update(self) -> None:
        """After an optimizer step."""
        for average, parameter in zip(self._average, self._parameters):
            average.lerp_(_own(parameter).float().cpu(), 1 - self._decay)

    def put_in_place(self) -> None:
        """The model's weights become the average. Training on is not meant: the optimizer keeps its own fp32 weights."""
        for average, parameter in zip(self._average, self._parameters):
            if hasattr(parameter, "ds_tensor"):
                parameter.partition()  # ZeRO 3 keeps small ones whole, too: that copy would stay as it is
            _own(parameter).copy_(average)

    def state(self) -> list[Tensor]:
        return self._average

    def load(self, state: list[Tensor]) -> None:
        self._average = state


def to_numpy(name: str, weight: Tensor) -> NumpyWeight:
    """(name, "float32" or "bfloat16", array): bfloat16 as uint16."""
    dtype = str(weight.dtype).removeprefix("torch.")
    return name, dtype, (weight.view(torch.uint16) if dtype == "bfloat16" else weight).numpy()


def _numel(weight: nn.Parameter) -> int:
    return getattr(weight, "ds_numel", weight.numel())


@contextmanager
def _gathered(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """The weights are whole within: ZeRO 3 leaves a rank with its part of them."""
    if not any(hasattr(weight, "ds_id") for weight in weights):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(weights)):
        yield


@torch.no_grad()
def _own(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of the parameter: under ZeRO 3 a part."""
    return getattr(parameter, "ds_tensor", parameter).detach()
