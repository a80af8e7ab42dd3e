"""The objective of the critic: how far its values are from the returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import losses

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class ClippedValue:
    """Half the squared error of the critic, the value kept within `clip` of the one before this step's updates; clip
    None leaves it free. Raises UserError where clip is not above 0."""

    output: ClassVar[Output] = "values"
    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset({"values", "returns"})
    clip: float | None = 0.2

    def __post_init__(self):
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"the value clip must be above 0, got {self.clip}; 0.2 is usual, null turns it off")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) values."""
        token_losses, clipped = losses.clipped_value(
            out, microbatch.values, microbatch.returns, microbatch.action_mask, self.clip
        )
        return token_losses.sum(), {"clip_fraction": clipped.sum()}
