"""A data set in memory, ready to train on: rows of tokens and masks in flat arrays, drawn in units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from data.batch import Batch
from data.errors import UserError
from data.feedback.annotators import annotator_of, tell_agreement, weighted
from data.feedback.columns import FeedbackOptions, conversion_of, counted
from data.feedback.comparisons import preference_units, ranking_units
from data.feedback.consistency import contradictions
from data.feedback.single_answers import (
    binary_dialogues,
    expect_both_thumbs,
    rating_dialogues,
    thumb_dialogues,
    warn_of_one_side,
)
from data.feedback.step_labels import step_units
from data.plain_rows import chat_units, text_units
from data.render import ChatTemplate
from data.sources import Rows
from data.tokenizer import Tokenizer
from data.unit import DataReport, Example, TrainingUnit, pieces_of

PLAIN = {"text": text_units, "chat": chat_units}
DIALOGUES = {"rating": rating_dialogues, "thumbs": thumb_dialogues, "binary": binary_dialogues}  # a unit has one
FEEDBACK = {"preference": preference_units, "ranking": ranking_units, "steps": step_units, **DIALOGUES}
KINDS = {**PLAIN, **FEEDBACK}
AS_GIVEN = FeedbackOptions()


@dataclass(frozen=True)
class Examples:
    """Units of one row each, or of several rows for comparisons. Flat arrays hold all rows one after another. `order` lists the
    units of this set, so that the two sets of a split share the arrays."""

    tokens: np.ndarray  # (all tokens,) int32
    mask: np.ndarray  # (all tokens,) bool, True = trained on
    offsets: np.ndarray  # (rows + 1,) int64: row r is tokens[offsets[r] : offsets[r + 1]]
    meta: tuple[dict[str, Any], ...]  # per row
    units: np.ndarray  # (units + 1,) int64: unit u is the rows units[u] : units[u + 1]
    sources: np.ndarray  # (units,) int64: units of the same source stay together in a split
    order: np.ndarray  # (units of this set,) int64
    tokenizer: Tokenizer
    report: DataReport  # of the whole data set, before a split
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # (rows,) fp32 each
    token_columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # (all tokens,) fp32 each

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def rows_of_largest_unit(self) -> int:
        """Over the whole data set, before a split."""
        return int(np.diff(self.units).max())

    def rows(self, unit: int) -> list[Example]:
        """The unit's rows; a comparison's best row comes first."""
        return [
            Example(
                self.tokens[span],
                self.mask[span],
                self.meta[row],
                {name: float(column[row]) for name, column in self.columns.items()},
                {name: column[span] for name, column in self.token_columns.items()},
            )
            for row, span in self._places([unit])
        ]

    def spans_of(self, units: Sequence[int]) -> list[slice]:
        """The place of each row of these units in the flat arrays."""
        return [span for _, span in self._places(units)]

    def batch(self, units: Sequence[int]) -> Batch:
        """The rows of these units: tokens, lengths, action_mask, row columns, token columns and meta. Comparisons also have
        group_ids: the rows of a unit are adjacent and share an id."""
        places = self._places(units)
        rows = [row for row, _ in places]
        columns: dict[str, Any] = {name: column[rows] for name, column in self.columns.items()}
        if self.rows_of_largest_unit > 1:
            columns["group_ids"] = np.repeat(np.arange(len(units)), [len(self._rows_of(unit)) for unit in units])
        batch = Batch.from_rows(
            [self.tokens[span] for _, span in places],
            [self.mask[span] for _, span in places],
            [self.meta[row] for row in rows],
            **columns,
        )
        padded = {name: np.zeros(batch.tokens.shape, np.float32) for name in self.token_columns}
        for name, column in padded.items():
            for row, (_, span) in enumerate(places):
                column[row, : span.stop - span.start] = self.token_columns[name][span]
        return batch.with_columns(**padded)

    def with_token_column(self, name: str, values: np.ndarray) -> Examples:
        """Adds a token column. values: (all tokens,) fp32, 0 at rows outside this set."""
        return replace(self, token_columns={**self.token_columns, name: values})

    def _rows_of(self, unit: int) -> range:
        return range(*self.units[self.order[unit] : self.order[unit] + 2].tolist())

    def _places(self, units: Sequence[int]) -> list[tuple[int, slice]]:
        """(row, its span in the flat arrays) of each row of these units."""
        rows = [row for unit in units for row in self._rows_of(unit)]
        return [(row, slice(*self.offsets[row : row + 2].tolist())) for row in rows]

    def split(self, holdout: int, seed: int) -> tuple[Examples, Examples]:
        """(training set, held-out set). Draws sources by the seed until they hold `holdout` units; the last source may bring more.
        Both sets keep the order of units.

        Raises UserError where no unit would be left to train on.
        """
        sources, counts = np.unique(self.sources[self.order], return_counts=True)
        shuffled = np.random.default_rng(seed).permutation(len(sources))
        drawn_sources = (
            shuffled[: np.searchsorted(np.cumsum(counts[shuffled]), holdout) + 1] if holdout else shuffled[:0]
        )
        drawn = np.isin(self.sources[self.order], sources[drawn_sources])
        if drawn.all():
            grouped = len(sources) < len(self)
            together = f", and a prompt's rows stay together (distinct prompts: {len(sources)})" if grouped else ""
            raise UserError(
                f"{self.report.name}: data.holdout is {holdout}, but there are {len(self)} rows to train on{together}: lower "
                "it, or name eval_data"
            )
        return replace(self, order=self.order[~drawn]), replace(self, order=self.order[drawn])

    def spans(self, unit: int) -> list[tuple[str, bool]]:
        """The unit's text as (piece, whether it is trained on), with a line break between a comparison's rows."""
        return pieces_of(self.rows(unit), self.tokenizer)


def build_examples(
    kind: str,
    rows: Rows,
    tokenizer: Tokenizer,
    max_length: int,
    options: FeedbackOptions = AS_GIVEN,
) -> Examples:
    """Reads, renders and tokenises all rows. kind: one of `KINDS`. options: for kinds of feedback.

    Raises UserError where a column is missing or a row has a wrong value, and where no row is left.
    """
    report = DataReport(rows.name, len(rows))
    if kind in PLAIN:
        units = list(PLAIN[kind](rows, tokenizer, max_length, report))
    else:
        units = _feedback_units(kind, rows, tokenizer, max_length, report, options)
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
        units=np.cumsum([0, *map(len, units)], dtype=np.int64),
        sources=np.arange(len(units)) if kind in PLAIN else _prompts(units),
        order=np.arange(len(units)),
        tokenizer=tokenizer,
        report=report,
        columns={name: np.array([row.columns[name] for row in examples], np.float32) for name in examples[0].columns},
        token_columns={
            name: np.concatenate([row.token_columns[name] for row in examples]) for name in examples[0].token_columns
        },
    )


def _prompts(units: Sequence[TrainingUnit]) -> np.ndarray:
    """(units,) int64, a number for each prompt: feedback on answers to one prompt must not be in both sets of a split."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(unit[0].meta["prompt_key"], len(numbers)) for unit in units])


def _feedback_units(
    kind: str,
    rows: Rows,
    tokenizer: Tokenizer,
    max_length: int,
    report: DataReport,
    options: FeedbackOptions,
) -> list[TrainingUnit]:
    """All units of a kind of feedback. Reports conversions, contradictions and annotators' agreement.

    Raises UserError where a row is wrong, and where an option needs a missing column.
    """
    if options.attributes and not {"rating", "ratings"} & set(rows.columns):
        raise UserError(
            f"{rows.name}: attributes are given weights, but no column 'rating' or 'ratings' has attributes"
        )
    if options.annotators and "annotator" not in rows.columns:
        raise UserError(f"{rows.name}: annotators are given weights, but there is no column 'annotator'")
    if kind in DIALOGUES:
        template = ChatTemplate(tokenizer)
        dialogues = DIALOGUES[kind](rows, template, report, options)
        units = list(report.fitting(template.encode(dialogues), max_length))
    else:
        units = list(FEEDBACK[kind](rows, tokenizer, max_length, report, options))
    if not units:
        return units
    if kind == "thumbs":
        expect_both_thumbs(units, rows.name)
    if kind == "binary":
        warn_of_one_side(units, report)
    conversion = conversion_of(kind, rows.columns)
    if conversion:
        report.converted = counted(conversion, len({unit[0].meta["row"] for unit in units}), len(units))
    if kind in ("preference", "ranking"):
        report.warnings += contradictions(units)
    if any(annotator_of(unit) is not None for unit in units):
        tell_agreement(kind, units, report)
    return weighted(units, options, report) if options.annotators else units
