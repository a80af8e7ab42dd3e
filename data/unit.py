"""The result of every reader: tokenised examples, drawn in units, and a report of how many rows were kept and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """One row of a batch, without padding."""

    tokens: np.ndarray  # (T,) int32
    mask: np.ndarray  # (T,) bool, True = trained on
    meta: dict[str, Any] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)  # further row columns of the batch
    token_columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # (T,) fp32 each


TrainingUnit = tuple[Example, ...]  # rows that are drawn together: one row, or a comparison's rows, the best first


def pieces_of(rows: Sequence[Example], tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The rows' text as (piece, whether it is trained on), with a line break between rows."""
    pieces: list[tuple[str, bool]] = []
    for row in rows:
        if pieces:
            pieces.append(("\n", False))
        for trained, run in groupby(range(len(row.tokens)), key=lambda place, row=row: bool(row.mask[place])):
            pieces.append((tokenizer.decode(row.tokens[list(run)], clean_up_tokenization_spaces=False), trained))
    return pieces


@dataclass
class DataReport:
    """How many rows of a data set were read, dropped and kept. `units` and the token counts are of the kept rows."""

    name: str
    rows: int
    units: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0  # documents that were cut into several rows, without loss
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    shortest_long: int | None = None  # tokens of the shortest row that was too long
    converted: str = ""  # a conversion of rows with its counts: "1,000 rankings into 3,112 pairs"
    agreement: dict[str, Any] = field(default_factory=dict)  # of annotators, see `data.feedback.agreement.agreement`
    warnings: list[str] = field(default_factory=list)  # usable data that looks wrong

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def drop_long(self, length: int, limit: int) -> None:
        self.drop(f"longer than {limit} tokens")
        self.shortest_long = min(length, self.shortest_long or length)

    def fitting(self, examples: Iterable[Example], max_length: int) -> Iterator[TrainingUnit]:
        """A unit of each example of at most max_length tokens; counts the longer ones as dropped."""
        for example in examples:
            if len(example.tokens) > max_length:
                self.drop_long(len(example.tokens), max_length)
            else:
                yield (example,)

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
        """The report as JSON values."""
        told = {name: value for name, value in vars(self).items() if name != "shortest_long"}
        return {**told, "dropped": dict(self.dropped)}

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
