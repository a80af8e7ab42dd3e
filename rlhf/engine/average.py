"""An exponential moving average of a model's weights, kept beside them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def _own(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of the parameter: under ZeRO 3 a part."""
    return getattr(parameter, "ds_tensor", parameter).detach()
