"""What the reader of each kind of rows makes: units of ready rows, and a report of what became of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One row of a batch, not padded."""

    tokens: np.ndarray  # (T,) int32
    mask: np.ndarray  # (T,) bool, True = trained on
    meta: dict[str, Any] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)  # further row columns of the batch
    token_columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # (T,) fp32 each


TrainingUnit = tuple[Example, ...]  # what is drawn as a whole: one row, or those of a comparison, the best first


def pieces_of(rows: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """The rows' text in pieces, each with whether it is trained on; rows are set off by a line."""
    pieces: list[tuple[str, bool]] = []
    for row in rows:
        if pieces:
            pieces.append(("\n", False))
        for trained, run in groupby(range(len(row.tokens)), key=lambda place, row=row: bool(row.mask[place])):
            pieces.append((tokenizer.decode(row.tokens[list(run)], clean_up_tokenization_spaces=False), trained))
    return pieces


@dataclass
class DataReport:
    """What became of a data set's rows. `units` and the token counts are those that are left to train on."""

    name: str
    rows: int
    units: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0  # documents that were cut into several rows; nothing of them is lost
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    shortest_long: int | None = None  # tokens of the shortest row that was too long
    converted: str = ""  # where rows became others: how many of what became how many of what
    agreement: dict[str, Any] = field(default_factory=dict)  # of annotators, see data/feedback/agreement.py
    warnings: list[str] = field(default_factory=list)  # what is usable, but looks wrong

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def drop_long(self, length: int, limit: int) -> None:
        self.drop(f"longer than {limit} tokens")
        self.shortest_long = min(length, self.shortest_long or length)

    def check_any_left(self, limit: int, advice: str) -> None:
        """Raises UserError where no unit is left."""
        if self.units:
            return
        if self.dropped[f"longer than {limit} tokens"] == self.rows:
            raise UserError(
                f"all {self.rows} rows of {self.name} are longer than {limit} tokens (shortest {self.shortest_long}): {advice}"
            )
        raise UserError(f"no row of {self.name} can be used: {self._dropped()} of {self.rows} rows")

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "rows": self.rows,
            "units": self.units,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "truncated": self.truncated,
            "dropped": dict(self.dropped),
            "converted": self.converted,
            "agreement": self.agreement,
            "warnings": self.warnings,
        }

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows", f"{self.units:,} units", f"{self.tokens:,} tokens"]
        if self.trained_tokens:
            parts.append(f"{self.trained_tokens:,} trained")
        if self.truncated:
            parts.append(f"{self.truncated:,} cut into several")
        if self.dropped:
            parts.append(f"{self.dropped.total():,} dropped ({self._dropped()})")
        if self.converted:
            parts.append(self.converted)
        if "alpha" in self.agreement:
            parts.append(
                f"agreement of {self.agreement['annotators']} annotators {self.agreement['alpha']:.2f} (alpha)"
            )
        return "\n".join([f"{self.name}: {', '.join(parts)}", *(f"warning: {text}" for text in self.warnings)])

    def _dropped(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
