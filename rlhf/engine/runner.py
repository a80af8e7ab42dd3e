"""Micro-batches through a model that this rank runs from end to end, forward and backward; `pipeline.Pipeline` is its twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data.batch import Batch
from rlhf.engine.inputs import Form, outputs
from rlhf.interfaces import Output

# (index of the micro-batch, what `inputs.outputs` says of it, the routers' loss) -> the loss, where it is to be learnt from
Finish = Callable[[int, Tensor, Tensor | None], Tensor | None]


class Runner(Protocol):
    """All ranks call alike, with as many micro-batches each."""

    def train(self, mode: bool) -> None:
        """Whether the model drops out units."""

    def run(self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish) -> None:
        """Calls `finish` on the ranks that have outputs."""

    def learn(
        self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish, last: bool
    ) -> None:
        """Adds the gradients of what `finish` returns; with `last` they are then averaged over replicas."""

    def step(self) -> None:
        """The optimizer's."""

    def shared(self, result: Tensor) -> Tensor:
        """What the ranks of a replica that have outputs made of them, in CPU memory, on all of its ranks."""


class Whole:
    """module: an EngineModel, or DeepSpeed's wrapper of one, which alone can learn."""

    def __init__(self, module: nn.Module | Any, form: Form, device: torch.device) -> None:
        self._module, self._form, self._device = module, form, device

    def train(self, mode: bool) -> None:
        self._module.train(mode)

    def run(self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish) -> None:
        for index, microbatch in enumerate(microbatches):
            finish(index, *self._outputs(microbatch, output, temperature))

    def learn(
        self, microbatches: Sequence[Batch], output: Output, temperature: float, finish: Finish, last: bool
    ) -> None:
        for index, microbatch in enumerate(microbatches, 1):
            self._module.set_gradient_accumulation_boundary(last and index == len(microbatches))
            self._module.backward(finish(index - 1, *self._outputs(microbatch, output, temperature)))

    def step(self) -> None:
        self._module.step()

    def shared(self, result: Tensor) -> Tensor:
        return result

    def _outputs(self, microbatch: Batch, output: Output, temperature: float) -> tuple[Tensor, Tensor | None]:
        return outputs(self._module, microbatch, output, temperature, self._form, self._device)
