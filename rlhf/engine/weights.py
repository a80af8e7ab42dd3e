"""A model's weights leaving the ranks: gathered in buckets, or all of them as a directory of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
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
    """Reads a model's parameters whole. Tied weights come once, under the name that the model's body gives them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._parameters = dict(model.named_parameters())

    def buckets(self, bucket_bytes: int) -> list[list[str]]:
        """The names in each bucket, the same on every rank."""
        sizes = [(name, _numel(weight) * weight.element_size()) for name, weight in self._parameters.items()]
        return plan_buckets(sizes, bucket_bytes)

    def read(self, names: Sequence[str]) -> list[tuple[str, Tensor]] | None:
        """Copies of these weights in CPU memory on rank 0, None on the others; every rank must call."""
        weights = [self._parameters[name] for name in names]
        with _gathered(weights):
            if dist.get_rank() != 0:
                return None
            return [(name, weight.detach().cpu().clone()) for name, weight in zip(names, weights)]

    def export(self, directory: Path, bucket_bytes: int = 2**28) -> None:
        """Writes config.json and safetensors on rank 0, in the dtype that the ranks hold; every rank must call."""
        saved = self._model.state_dict().keys()
        state = {name: buffer for name, buffer in self._model.named_buffers() if name in saved}
        for names in self.buckets(bucket_bytes):
            state.update(self.read(names) or [])
        if dist.get_rank() == 0:
            self._model.save_pretrained(directory, state_dict=state)


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
