"""Readers of answers judged one by one: ratings, thumbs up or down, verdicts on rules, and answers to questions about them.

A verdict (Sparrow, Glaese et al. 2022) or a question (WebGPT, Nakano et al. 2021) is a user's turn after the dialogue. Its score is
that of the last token, where the next answer would start.
"""

from __future__ import annotations

import reprlib
from collections import Counter
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


def rating_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """One unit for each answer, with the column `ratings`. Read from `response` and `rating`, or from `responses` and `ratings`:
    answers to `prompt` or, without that column, full dialogues. A rating is a number, or an object {attribute: number}.

    Drops empty answers, and answers longer than max_length. The report counts each answer as a row.
    """
    template = ChatTemplate(tokenizer)
    return report.fitting(template.encode(_rating_dialogues(rows, template, report, options)), max_length)


def _rating_dialogues(
    rows: Rows, template: ChatTemplate, report: DataReport, options: FeedbackOptions
) -> Iterator[Dialogue]:
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


def thumbs_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """`thumb_units` for KTO. Raises UserError where all kept answers are good, or all are bad: KTO would only learn to make all
    answers likelier, or all less likely."""
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
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """One unit for each answer, with the column `desirable`, 1 or 0. Read from `label` (true or 1 = good, false or 0 = bad) and
    `response`, an answer to `prompt` or, without that column, a full dialogue; or from preference rows, see `from_pairs`. Only the
    last answer is trained on.

    Drops rows with an empty answer, and rows longer than max_length. Raises UserError where a label is neither.
    """
    template = ChatTemplate(tokenizer)
    return report.fitting(template.encode(_thumb_dialogues(rows, template, report)), max_length)


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


def _thumb_dialogues(rows: Rows, template: ChatTemplate, report: DataReport) -> Iterator[Dialogue]:
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


def binary_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """Good and bad answers, with the column `desirable`: thumbs (see `thumb_units`), or verdicts and answers to questions (see
    `question_units`), depending on the columns. The report warns where all rows are good, or all are bad."""
    columns = set(rows.columns)
    if not {"label", "rule", "question", "chosen"} & columns:
        raise UserError(
            f"{rows.name}: rows of good and bad need the columns response and label, or response, rule and violated, or response, "
            f"question and answer; the columns are {', '.join(rows.columns)}; name them with data.columns"
        )
    asks = "label" not in columns and bool({"rule", "question"} & columns)
    found, count = set(), 0
    for unit in (question_units if asks else thumb_units)(rows, tokenizer, max_length, report, options):
        found.add(unit[0].columns["desirable"])
        count += 1
        yield unit
    if len(found) == 1:
        report.warnings.append(
            f"all {count:,} rows of {rows.name} say {found.pop():g} (1 = good, 0 = bad): nothing can be told apart by them"
        )


def question_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """One unit for each row: the dialogue and a question about its last answer. Read from `response`, an answer to `prompt` or a
    full dialogue, and from `rule` and `violated` (true or false), or `question` and `answer` (yes or no, true or false, or a
    number from 0 to 1). `desirable` is 1 where the rule is kept, or the answer as a number; meta has the question.

    Drops rows with an empty answer, and rows longer than max_length.
    """
    rows.require(*(("response", "rule", "violated") if "rule" in rows.columns else ("response", "question", "answer")))
    template = ChatTemplate(tokenizer)
    return report.fitting(template.encode(_question_dialogues(rows, template, report)), max_length)


def question_batch(samples: Sequence[Sample], questions: Sequence[str], tokenizer: Tokenizer) -> Batch:
    """A row for each sample and question, as `question_units` writes it: the first sample with all questions, then the second.
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


def _question_dialogues(rows: Rows, template: ChatTemplate, report: DataReport) -> Iterator[Dialogue]:
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
