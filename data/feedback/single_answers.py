"""Readers of answers judged one by one: ratings, thumbs up or down, verdicts on rules, and answers to questions about them.

A verdict (Sparrow, Glaese et al. 2022) or a question (WebGPT, Nakano et al. 2021) is a user's turn after the dialogue. Its score is
that of the last token, where the next answer would start.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.batch import Batch
from data.errors import UserError
from data.feedback.columns import FeedbackOptions, checked_flag, checked_items, item_place, rating_of, row_meta
from data.feedback.comparisons import answer_of, pair_of
from data.messages import Message, dialogue_of, text_of
from data.render import ChatTemplate, Dialogue
from data.sample import Sample
from data.sources import Rows
from data.tokenizer import Tokenizer
from data.unit import DataReport, TrainingUnit

YES_NO = {"yes": 1.0, "no": 0.0}


def rating_dialogues(
    rows: Rows, template: ChatTemplate, report: DataReport, options: FeedbackOptions
) -> Iterator[Dialogue]:
    """One dialogue for each answer, with the column `ratings`. Read from `response` and `rating`, or from `responses` and
    `ratings`: answers to `prompt` or, without that column, full dialogues. A rating is a number, or an object
    {attribute: number}.

    Drops empty answers. The report counts each answer as a row.
    """
    several = "response" not in rows.columns and "responses" in rows.columns
    rows.require(*(("responses", "ratings") if several else ("response", "rating")))
    answers = 0
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        if several:
            responses = checked_items(row, "responses", origin)
            ratings = checked_items(row, "ratings", origin, like=("responses", len(responses)))
            rated = [
                ({**row, "response": response}, rating, item_place("ratings", origin, place))
                for place, (response, rating) in enumerate(zip(responses, ratings, strict=True))
            ]
        else:
            rated = [(row, row.get("rating"), f"{origin}: column 'rating'")]
        answers += len(rated)
        for each, rating, where in rated:
            columns = {"ratings": rating_of(rating, where, options)}
            messages = dialogue_of(each, "response", origin)
            if messages[-1]["content"].strip():
                meta = row_meta(number, row, messages[:-1], origin)
                yield template.dialogue(messages, origin, last_only=True, columns=columns, **meta)
            else:
                report.drop("with an empty answer")
    report.rows = answers


class Judged(NamedTuple):
    """A dialogue, and whether its last answer is good."""

    messages: list[Message]
    desirable: bool
    origin: str
    meta: dict[str, Any]


def thumb_dialogues(
    rows: Rows, template: ChatTemplate, report: DataReport, options: FeedbackOptions
) -> Iterator[Dialogue]:
    """One dialogue for each answer, with the column `desirable`, 1 or 0. Read from `label` (true or 1 = good, false or 0 = bad)
    and `response`, an answer to `prompt` or, without that column, a full dialogue; or from preference rows, see `from_pairs`.
    Only the last answer is trained on.

    Drops rows with an empty answer. Raises UserError where a label is neither.
    """
    if {"response", "label"} <= set(rows.columns):
        found = from_label(rows)
    elif {"chosen", "rejected"} <= set(rows.columns):
        found = from_pairs(rows, report)
    else:
        raise UserError(
            f"{rows.name}: rows of thumbs need the columns response and label, or chosen and rejected; the columns are "
            f"{', '.join(rows.columns)}; name them with data.columns: {{response: <column>, label: <column>}}"
        )
    for judged in found:
        if judged.messages[-1]["content"].strip():
            columns = {"desirable": float(judged.desirable)}
            yield template.dialogue(judged.messages, judged.origin, last_only=True, columns=columns, **judged.meta)
        else:
            report.drop("with an empty answer")


def expect_both_thumbs(units: Sequence[TrainingUnit], name: str) -> None:
    """Raises UserError where all kept answers are good, or all are bad: KTO would only learn to make all answers likelier, or all
    less likely."""
    kept = {unit[0].columns["desirable"] > 0 for unit in units}
    if len(kept) == 1:
        found, other = ("up", "down") if kept.pop() else ("down", "up")
        raise UserError(
            f"KTO needs thumbs up and thumbs down; all {len(units)} rows of {name} that can be used are {found}: bring "
            f"some that are {other}"
        )


def from_label(rows: Rows) -> Iterator[Judged]:
    """The answer `response` of each row, with its `label`."""
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        good = checked_flag(row.get("label"), f"{origin}: column 'label'", "thumbs up or down")
        messages = dialogue_of(row, "response", origin)
        yield Judged(messages, good, origin, row_meta(number, row, messages[:-1], origin))


def from_pairs(rows: Rows, report: DataReport) -> Iterator[Judged]:
    """Two answers of each row: `chosen` is good, `rejected` is bad. The report counts each answer as a row. Drops equal answers,
    and ties, which call neither answer good or bad."""
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
                yield Judged(messages, good, origin, row_meta(number, row, messages[:-1], origin))


def mismatched(batch: Batch, max_length: int) -> Batch:
    """Each row's prompt with the answer of the row half the batch further on (modulo the batch), cut to max_length: the rows on
    which KTO measures its baseline (Ethayarajh et al. 2024, section 4.1).

    batch: at least two rows. Each has a prompt of at most max_length - 1 tokens and an answer, from the first action token to the
    row's end. Returns tokens, lengths and the answers' action_mask.

    Raises UserError where the batch has only one row.
    """
    if len(batch) < 2:
        raise UserError(
            "KTO compares each answer with answers to other prompts, but the batch has one row only: raise batch_size (for "
            "held-out rows data.holdout) to at least 2"
        )
    starts, lengths = batch.action_mask.int().argmax(1).tolist(), batch.lengths.tolist()
    tokens, masks = [], []
    for row, start in enumerate(starts):
        other = (row + len(batch) // 2) % len(batch)  # far off, because a pair's two answers may be neighbours
        answer = slice(starts[other], lengths[other])
        tokens.append([*batch.tokens[row, :start].tolist(), *batch.tokens[other, answer].tolist()][:max_length])
        masks.append([*[False] * start, *batch.action_mask[other, answer].tolist()][:max_length])
    return Batch.from_rows(tokens, masks)


def binary_dialogues(
    rows: Rows, template: ChatTemplate, report: DataReport, options: FeedbackOptions
) -> Iterator[Dialogue]:
    """Good and bad answers, with the column `desirable`: thumbs (see `thumb_dialogues`), or verdicts and answers to questions (see
    `question_dialogues`), depending on the columns."""
    columns = set(rows.columns)
    if not {"label", "rule", "question", "chosen"} & columns:
        raise UserError(
            f"{rows.name}: rows of good and bad need the columns response and label, or response, rule and violated, or response, "
            f"question and answer; the columns are {', '.join(rows.columns)}; name them with data.columns"
        )
    asks = "label" not in columns and bool({"rule", "question"} & columns)
    return (question_dialogues if asks else thumb_dialogues)(rows, template, report, options)


def warn_of_one_side(units: Sequence[TrainingUnit], report: DataReport) -> None:
    """Adds a warning to the report where all rows are good, or all are bad."""
    found = {unit[0].columns["desirable"] for unit in units}
    if len(found) == 1:
        report.warnings.append(
            f"all {len(units):,} rows of {report.name} say {found.pop():g} (1 = good, 0 = bad): nothing can be told apart by them"
        )


def question_dialogues(
    rows: Rows, template: ChatTemplate, report: DataReport, options: FeedbackOptions
) -> Iterator[Dialogue]:
    """One dialogue for each row, followed by a question about its last answer. Read from `response`, an answer to `prompt` or a
    full dialogue, and from `rule` and `violated` (true or false), or `question` and `answer` (yes or no, true or false, or a
    number from 0 to 1). `desirable` is 1 where the rule is kept, or the answer as a number; meta has the question.

    Drops rows with an empty answer.
    """
    rows.require(*(("response", "rule", "violated") if "rule" in rows.columns else ("response", "question", "answer")))
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        messages = dialogue_of(row, "response", origin)
        if "rule" in rows.columns:
            question = rule_question(_filled(row, "rule", origin))
            label = 1.0 - checked_flag(row.get("violated"), f"{origin}: column 'violated'")
        else:
            question, label = _filled(row, "question", origin), _answer(row.get("answer"), origin)
        if not messages[-1]["content"].strip():
            report.drop("with an empty answer")
            continue
        meta = row_meta(number, row, messages[:-1], origin)
        columns = {"desirable": label}
        yield template.question(asked(messages, question), origin, columns=columns, question=question, **meta)


def question_batch(samples: Sequence[Sample], questions: Sequence[str], tokenizer: Tokenizer) -> Batch:
    """A row for each sample and question, as `question_dialogues` writes it: the first sample with all questions, then the second.
    `rule_question(rule)` asks about a rule."""
    template = ChatTemplate(tokenizer)
    dialogues = (
        template.question(
            asked([*sample.prompt.messages, {"role": "assistant", "content": sample.text}], question),
            f"the answer to prompt row {sample.prompt.row}",
            question=question,
        )
        for sample in samples
        for question in questions
    )
    examples = list(template.encode(dialogues))
    tokens, masks, meta = ([getattr(each, part) for each in examples] for part in ("tokens", "mask", "meta"))
    return Batch.from_rows(tokens, masks, meta)


def rule_question(rule: str) -> str:
    """The question whether an answer keeps to a rule; yes = it does."""
    return f"Does the answer keep to this rule: {rule}"


def asked(messages: Sequence[Message], question: str) -> list[Message]:
    """The dialogue, followed by a question about its last answer."""
    return [*messages, {"role": "user", "content": question}]


def _filled(row: Mapping[str, Any], column: str, origin: str) -> str:
    text = text_of(row, column, origin)
    if not text.strip():
        raise UserError(f"{origin}: column {column!r} is empty")
    return text


def _answer(value: Any, origin: str) -> float:
    """The answer to a question as a number: 1 = yes, 0 = no."""
    if isinstance(value, str) and value.strip().lower() in YES_NO:
        return YES_NO[value.strip().lower()]
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise UserError(
        f"{origin}: column 'answer' must be yes or no, true or false, or a number from 0 to 1, found {reprlib.repr(value)}"
    )
