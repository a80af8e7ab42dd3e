"""Thumbs up and thumbs down: answers found good or bad one by one. What KTO learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from data.batch import Batch
from data.errors import UserError
from data.feedback import values
from data.feedback.comparisons import answer_of, pair_of
from data.feedback.options import FeedbackOptions
from data.messages import Message, dialogue_of
from data.render import Dialogue, Template
from data.sources import Rows
from data.unit import DataReport, Unit


class Judged(NamedTuple):
    """A dialogue whose last answer was found good or bad."""

    messages: list[Message]
    desirable: bool
    origin: str
    meta: dict[str, Any]


def thumbs_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[Unit]:
    """`thumb_units` for KTO. Raises UserError where all answers that are left are good, or all are bad: KTO would learn
    nothing from them but to write more, or less, of all."""
    kept: Counter[bool] = Counter()
    for unit in thumb_units(rows, tokenizer, max_length, report, options):
        kept[unit[0].columns["desirable"] > 0] += 1
        yield unit
    if len(kept) == 1:
        [(desirable, count)] = kept.items()
        found, other = ("up", "down") if desirable else ("down", "up")
        raise UserError(
            f"KTO needs thumbs up and thumbs down; all {count} rows of {rows.name} that can be used are {found}: bring "
            f"some that are {other}"
        )


def thumb_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[Unit]:
    """Columns `label` (true or 1 for good, false or 0 for bad) and `response`: an answer to `prompt`, or, without that
    column, a full dialogue. Or the columns of preference rows, see `from_pairs`. Only the last answer is trained on; the
    column desirable says 1 or 0.

    Dropped: rows with an empty answer, rows longer than max_length. Raises UserError where a label is none.
    """
    template = Template(tokenizer)
    for example in template.encode(_dialogues(rows, template, report)):
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        else:
            yield (example,)


def from_label(rows: Rows) -> Iterator[Judged]:
    """One answer of each row, in the column `response`, with its `label`."""
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        good = values.flag(row["label"], f"{origin}: column 'label'", "thumbs up or down")
        messages = dialogue_of(row, "response", origin)
        yield Judged(messages, good, origin, values.meta(number, row, messages[:-1], origin))


def from_pairs(rows: Rows, report: DataReport) -> Iterator[Judged]:
    """Two answers of each row, `chosen` as a good one and `rejected` as a bad one; the report counts each as a row.
    Equal answers are dropped, for they cannot be both, and so are ties, which say of neither that it is good or bad."""
    report.rows = 2 * len(rows)
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        pair = pair_of(row, origin)
        chosen, rejected = pair.answers
        if chosen[:-1] == rejected[:-1] and answer_of(chosen) == answer_of(rejected):
            report.dropped["with equal answers"] += 2
        elif pair.ranks[0] == pair.ranks[1]:
            report.dropped["without a better answer"] += 2
        else:
            for messages, good in ((chosen, True), (rejected, False)):
                yield Judged(messages, good, origin, values.meta(number, row, messages[:-1], origin))


def mismatched(batch: Batch, max_length: int) -> Batch:
    """Each row's prompt followed by the answer of the row half the batch away, counted round; cut to max_length. What KTO
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
            columns = {"desirable": float(judged.desirable)}
            yield template.dialogue(judged.messages, judged.origin, last_only=True, columns=columns, **judged.meta)
        else:
            report.drop("with an empty answer")


def _judged(rows: Rows, report: DataReport) -> Iterator[Judged]:
    if {"response", "label"} <= set(rows.columns):
        return from_label(rows)
    if {"chosen", "rejected"} <= set(rows.columns):
        return from_pairs(rows, report)
    raise UserError(
        f"{rows.name}: rows of thumbs need the columns response and label, or chosen and rejected; the columns are "
        f"{', '.join(rows.columns)}; name them with data.columns: {{response: <column>, label: <column>}}"
    )
