"""Weights as they travel to rollout engines: tensors under their checkpoint names, and their checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# (checkpoint name, torch dtype, values), as rlhf/engine/weights.py makes it: bfloat16 as uint16.
WeightItem = tuple[str, str, np.ndarray]


def decode(dtype: str, array: np.ndarray) -> Tensor:
    """A copy of a `WeightItem`'s tensor: the object store's memory is read-only and should soon be free."""
    import torch  # a rollout engine sets its environment first (`actors.vllm_engine`)

    tensor = torch.from_numpy(np.array(array))
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def checksum(items: Iterable[WeightItem]) -> int:
    """A 64-bit sum over tensors, independent of their order and of the buckets.

    Each tensor adds a hash of its name, dtype, shape and the wrapping sum of its bytes as 64-bit words. Swapped tensors, lost
    elements and changed bits change the sum. Runs at memory speed.
    """
    total = 0
    for name, dtype, array in items:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = len(raw) - len(raw) % 8
        words = int(raw[:whole].view(np.uint64).sum(dtype=np.uint64)) + int.from_bytes(raw[whole:].tobytes(), "little")
        digest = hashlib.blake2b(repr((name, dtype, array.shape, words % 2**64)).encode(), digest_size=8)
        total += int.from_bytes(digest.digest(), "little")
    return total % 2**64
