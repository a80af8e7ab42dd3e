"""How feedback rows are read: what each attribute of a rating counts, and each annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from data.errors import UserError


@dataclass(frozen=True)
class FeedbackOptions:
    """attributes: of ratings by attribute, {name: weight}; empty: all alike. annotators: {name: weight} of their rows, 1 where
    not named, or "agreement": each annotator's agreement with the others. ties: whether answers that were found equally good
    are kept, for a loss that learns from them.

    Raises UserError where no attribute counts, or an annotator counts less than nothing."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    annotators: Mapping[str, float] | Literal["agreement"] = field(default_factory=dict)
    ties: bool = False

    def __post_init__(self) -> None:
        if self.attributes and not any(self.attributes.values()):
            raise UserError("attributes: all weights are 0, so that every rating would be; give one attribute a weight")
        if isinstance(self.annotators, Mapping):
            below = next((name for name, weight in self.annotators.items() if not weight >= 0), None)
            if below is not None:
                raise UserError(f"annotators: the weight of {below!r} is {self.annotators[below]}; wanted 0 or more")
