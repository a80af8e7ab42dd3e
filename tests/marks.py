"""Marks for parameters."""

from __future__ import annotations

from typing import Any

import pytest


def long(*values: Any) -> Any:
    """Parameters of a case that only `make test-all` runs: others cover its parts in other combinations."""
    return pytest.param(*values, marks=pytest.mark.long)
