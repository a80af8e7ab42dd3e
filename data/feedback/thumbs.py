"""Feedback rows: answers found good or bad one by one, thumbs up and thumbs down. What KTO learns from."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from data.batch import Batch
from data.errors import UserError
from data.messages import Message
from data.preference import dialogue_of
from data.render import Dialogue, Template
from data.sources import Rows
from data.unit import DataReport, Unit


class Judged(NamedTuple):
    """A dialogue whose last answer was found good or bad."""

    row: int
    messages: list[Message]
    desirable: bool


def feedback_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport
) -> Iterator[Unit]:
    """Columns `label` (true or 1 for good, false or 0 for bad) and `response`: an answer to `prompt`, or, without that
    column, a full dialogue. Or the columns of preference rows, see `from_pairs`. Only the last answer is trained on; meta
    tells its row and whether it is desirable.

    Dropped: rows with an empty answer, rows longer than max_length. Raises UserError where a label is none, and where all
    answers that are left are good, or all are bad: KTO would learn nothing from them but to write more, or less, of all.
    """
    template = Template(tokenizer)
    kept: Counter[bool] = Counter()
    for example in template.encode(_dialogues(rows, template, report)):
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        else:
            kept[example.meta["desirable"]] += 1
            yield (example,)
    if len(kept) == 1:
        [(desirable, count)] = kept.items()
        found, other = ("up", "down") if desirable else ("down", "up")
        raise UserError(
            f"KTO needs thumbs up and thumbs down; all {count} rows of {rows.name} that can be used are {found}: bring "
            f"some that are {other}"
        )


def from_label(rows: Rows) -> Iterator[Judged]:
    """One answer of each row, in the column `response`, with its `label`."""
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        yield Judged(number, dialogue_of(row, "response", origin), _is_good(row["label"], origin))


def from_pairs(rows: Rows, report: DataReport) -> Iterator[Judged]:
    """Two answers of each row, `chosen` as a good one and `rejected` as a bad one; the report counts each as a row.
    Equal answers are dropped: they cannot be both."""
    report.rows = 2 * len(rows)
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        chosen, rejected = (dialogue_of(row, column, origin) for column in ("chosen", "rejected"))
        if chosen == rejected:
            report.dropped["with equal answers"] += 2
        else:
            yield Judged(number, chosen, True)
            yield Judged(number, rejected, False)


def mismatched(batch: Batch, max_length: int) -> Batch:
    """Each row's prompt followed by the next row's answer, the last row's by the first's; cut to max_length. What KTO
    measures its baseline on (Ethayarajh et al. 2024, section 4.1).

    batch: at least two rows, each with a prompt of up to max_length - 1 tokens and an answer, which starts at the row's
    first action token and ends with the row. Returns tokens, lengths and action_mask, which is the answer's.

    Raises UserError where there is only one row.
    """
    if len(batch) < 2:
        raise UserError(
            "KTO compares each answer with answers to other prompts, but the batch has one row only: raise batch_size (for "
            "held-out rows data.holdout) to at least 2"
        )
    starts, lengths = batch.action_mask.int().argmax(1).tolist(), batch.lengths.tolist()
    tokens, masks = [], []
    for row, start in enumerate(starts):
        other = (row + len(batch) // 2) % len(batch)  # far off: a pair's two answers may lie side by side
        answer = slice(starts[other], lengths[other])
        tokens.append([*batch.tokens[row, :start].tolist(), *batch.tokens[other, answer].tolist()][:max_length])
        masks.append([*[False] * start, *batch.action_mask[other, answer].tolist()][:max_length])
    return Batch.from_rows(tokens, masks)


def _dialogues(rows: Rows, template: Template, report: DataReport) -> Iterator[Dialogue]:
    for judged in _judged(rows, report):
        if judged.messages[-1]["content"].strip():
            yield template.dialogue(
                judged.messages, rows.origin(judged.row), last_only=True, row=judged.row, desirable=judged.desirable
            )
        else:
            report.drop("with an empty answer")


def _judged(rows: Rows, report: DataReport) -> Iterator[Judged]:
    if {"response", "label"} <= set(rows.columns):
        return from_label(rows)
    if {"chosen", "rejected"} <= set(rows.columns):
        return from_pairs(rows, report)
    raise UserError(
        f"{rows.name}: feedback rows need the columns response and label, or chosen and rejected; the columns are "
        f"{', '.join(rows.columns)}; name them with data.columns: {{response: <column>, label: <column>}}"
    )


def _is_good(label: Any, origin: str) -> bool:
    if label not in (0, 1):  # True and False are among them
        raise UserError(
            f"{origin}: column 'label' must be true or false (or 1 or 0: thumbs up or down), found {reprlib.repr(label)}"
        )
    return bool(label)
