"""The arrays that trl, OpenRLHF and verl computed from the same inputs, and comparison with them, forward and gradients.

Theirs speak about response tokens alone, so their columns are used as they are: the functions below the batch only need
that masks and columns agree. Where a convention differs, the test converts.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / "shared/oracle"
COMPARED: set[str] = set()  # names of the arrays that `agrees` has compared in this process
needs_oracle = pytest.mark.skipif(not FOLDER.exists(), reason="the oracle is not beside this checkout")


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "oracle.npz") as file:
        return dict(file)


@cache
def described() -> dict[str, dict]:
    """{array: shape, dtype, source, params, note}"""
    return json.loads((FOLDER / "oracle.json").read_text())["arrays"]


class Oracle:
    """Inputs in one dtype, and comparison at that dtype's tolerance."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        value = torch.from_numpy(arrays()[name].copy())
        return value.to(self.dtype) if value.is_floating_point() else value

    @property
    def mask(self) -> torch.Tensor:
        return self["in/ppo_mask"].bool()

    @property
    def groups(self) -> list[torch.Tensor]:
        index = self["in/group_index"]
        return [(index == group).nonzero()[:, 0] for group in index.unique()]

    def agrees(self, actual: torch.Tensor, name: str, mask: torch.Tensor | None = None) -> None:
        COMPARED.add(name)
        expected = arrays()[name]
        exact = self.dtype == torch.float64 and expected.dtype == np.float64
        tolerance = 1e-6 if exact else 1e-5
        expected = torch.as_tensor(expected, dtype=self.dtype)
        if mask is not None:
            actual, expected = actual[mask], expected[mask]
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{name}: {text}")

    def agrees_with_gradient(self, loss: torch.Tensor, leaf: torch.Tensor, name: str, suffix: str = "grad") -> None:
        self.agrees(loss.detach(), name)
        self.agrees(torch.autograd.grad(loss, leaf)[0], f"{name}/{suffix}")
