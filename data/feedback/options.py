"""How feedback rows are read: what each attribute of a rating counts, and each annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FeedbackOptions:
    """attributes: of ratings by attribute, {name: weight}; empty: all alike. annotators: {name: weight} of their rows, 1 where
    not named, or "agreement": each annotator's agreement with the others."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    annotators: Mapping[str, float] | Literal["agreement"] = field(default_factory=dict)
