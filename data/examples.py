"""A data set ready to train on: rows of tokens and masks, stored flat, drawn as units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.batch import Batch
from data.chat import chat_units
from data.errors import UserError
from data.feedback.thumbs import feedback_units
from data.preference import preference_units
from data.sources import Rows
from data.text import text_units
from data.unit import DataReport, Example

KINDS = {"text": text_units, "chat": chat_units, "preference": preference_units, "feedback": feedback_units}


@dataclass(frozen=True)
class Examples:
    """Units of one row each, or of two for preference. All rows lie after each other in flat arrays; `order` says which
    units belong to this set, so that a split shares the arrays."""

    tokens: np.ndarray  # (all tokens,) int32
    mask: np.ndarray  # (all tokens,) bool, True = trained on
    offsets: np.ndarray  # (rows + 1,) int64: row r is tokens[offsets[r] : offsets[r + 1]]
    meta: tuple[dict[str, Any], ...]  # per row
    rows_per_unit: int
    order: np.ndarray  # (units of this set,) int64
    tokenizer: PreTrainedTokenizerBase
    report: DataReport  # of the whole data set, before any split
    token_columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # (all tokens,) fp32 each

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, unit: int) -> list[Example]:
        """The unit's rows; of a comparison the chosen one comes first."""
        return [Example(self.tokens[span], self.mask[span], self.meta[row]) for row, span in self._places([unit])]

    def spans_of(self, units: Sequence[int]) -> list[slice]:
        """Where in the flat arrays each row of these units is."""
        return [span for _, span in self._places(units)]

    def batch(self, units: Sequence[int]) -> Batch:
        """These units under each other: tokens, lengths, action_mask, the token columns, and meta. For preference also
        group_ids: the two rows of a unit are adjacent and share one. For feedback also desirable."""
        places = self._places(units)
        rows = [Example(self.tokens[span], self.mask[span], self.meta[row]) for row, span in places]
        columns: dict[str, Any] = {}
        if self.rows_per_unit > 1:
            columns["group_ids"] = np.arange(len(rows)) // self.rows_per_unit
        if rows and "desirable" in rows[0].meta:
            columns["desirable"] = [float(row.meta["desirable"]) for row in rows]
        batch = Batch.from_rows(
            [row.tokens for row in rows], [row.mask for row in rows], [row.meta for row in rows], **columns
        )
        padded = {name: np.zeros(batch.tokens.shape, np.float32) for name in self.token_columns}
        for name, column in padded.items():
            for row, (_, span) in enumerate(places):
                column[row, : span.stop - span.start] = self.token_columns[name][span]
        return batch.with_columns(**padded)

    def with_token_column(self, name: str, values: np.ndarray) -> Examples:
        """values: (all tokens,) fp32, 0 where this set has no row."""
        return replace(self, token_columns={**self.token_columns, name: values})

    def _places(self, units: Sequence[int]) -> list[tuple[int, slice]]:
        """(row, its span in the flat arrays) of each row of these units."""
        firsts = [int(self.order[unit]) * self.rows_per_unit for unit in units]
        rows = [row for first in firsts for row in range(first, first + self.rows_per_unit)]
        return [(row, slice(*self.offsets[row : row + 2].tolist())) for row in rows]

    def split(self, holdout: int, seed: int) -> tuple[Examples, Examples]:
        """(to train on, held out): `holdout` units drawn by the seed, the others in their order.

        Raises UserError where nothing would be left to train on.
        """
        if holdout >= len(self):
            raise UserError(
                f"{self.report.name}: data.holdout is {holdout}, but there are {len(self)} rows to train on: lower it"
            )
        drawn = np.zeros(len(self), bool)
        drawn[np.random.default_rng(seed).permutation(len(self))[:holdout]] = True
        return replace(self, order=self.order[~drawn]), replace(self, order=self.order[drawn])

    def spans(self, unit: int) -> list[tuple[str, bool]]:
        """The unit's text in pieces, each with whether it is trained on; the rows of a comparison are set off by a line."""
        pieces: list[tuple[str, bool]] = []
        for row in self.rows(unit):
            if pieces:
                pieces.append(("\n", False))
            for trained, run in groupby(range(len(row.tokens)), key=lambda place, row=row: bool(row.mask[place])):
                pieces.append(
                    (self.tokenizer.decode(row.tokens[list(run)], clean_up_tokenization_spaces=False), trained)
                )
        return pieces


def build_examples(
    kind: Literal["text", "chat", "preference", "feedback"],
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Examples:
    """Reads, renders and tokenises all rows.

    Raises UserError, one line, where a column is missing or a row cannot be used, and where no row is left.
    """
    report = DataReport(rows.name, len(rows))
    units = list(KINDS[kind](rows, tokenizer, max_length, report))
    report.units = len(units)
    report.check_any_left(max_length, "raise max_length")
    examples = [row for unit in units for row in unit]
    tokens = np.concatenate([row.tokens for row in examples])
    mask = np.concatenate([row.mask for row in examples])
    report.tokens, report.trained_tokens = len(tokens), int(mask.sum())
    return Examples(
        tokens=tokens,
        mask=mask,
        offsets=np.cumsum([0, *(len(row.tokens) for row in examples)], dtype=np.int64),
        meta=tuple(row.meta for row in examples),
        rows_per_unit=len(units[0]),
        order=np.arange(len(units)),
        tokenizer=tokenizer,
        report=report,
    )
