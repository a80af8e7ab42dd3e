"""Questions about an answer, each with an answer of its own: verdicts whether it keeps to a rule (Sparrow, Glaese et al.
2022), and whatever else can be told by yes or no (as in WebGPT, Nakano et al. 2021).

A row is the dialogue and a user's turn that asks; what is scored is its last token, where the next answer would start.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.batch import Batch
from data.errors import UserError
from data.feedback import values
from data.feedback.options import FeedbackOptions
from data.feedback.thumbs import thumb_units
from data.messages import Message, dialogue_of, text_of
from data.render import Dialogue, Template
from data.sample import Sample
from data.sources import Rows
from data.unit import DataReport, Unit

YES_NO = {"yes": 1.0, "no": 0.0}


def binary_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[Unit]:
    """Whatever says good or bad of an answer, in the column desirable: thumbs (see `thumb_units`), verdicts or answers to
    questions (see `question_units`), by the columns that are there. The report warns where all are alike."""
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
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[Unit]:
    """Columns `response`, an answer to `prompt` or a full dialogue, and `rule` and `violated` (true or false), or `question`
    and `answer` (yes or no, true or false, or a number from 0 to 1). desirable is 1 where the rule is kept, or the answer;
    meta keeps the question.

    Dropped: rows with an empty answer, rows longer than max_length.
    """
    rows.require(*(("response", "rule", "violated") if "rule" in rows.columns else ("response", "question", "answer")))
    template = Template(tokenizer)
    for example in template.encode(_dialogues(rows, template, report)):
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        else:
            yield (example,)


def question_batch(samples: Sequence[Sample], questions: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Each sample's prompt and answer with each question after it, as `question_units` writes them: the first sample with all
    questions, then the second. A rule is asked by `rule_question(rule)`."""
    template = Template(tokenizer)
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
    """What is asked about a rule; yes = it is kept."""
    return f"Does the answer keep to this rule: {rule}"


def asked(messages: Sequence[Message], question: str) -> list[Message]:
    """The dialogue with the question about its last answer."""
    return [*messages, {"role": "user", "content": question}]


def _dialogues(rows: Rows, template: Template, report: DataReport) -> Iterator[Dialogue]:
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        messages = dialogue_of(row, "response", origin)
        if "rule" in rows.columns:
            question = rule_question(_filled(row, "rule", origin))
            label = 1.0 - values.flag(row.get("violated"), f"{origin}: column 'violated'")
        else:
            question, label = _filled(row, "question", origin), _answer(row.get("answer"), origin)
        if not messages[-1]["content"].strip():
            report.drop("with an empty answer")
            continue
        meta = values.meta(number, row, messages[:-1], origin)
        columns = {"desirable": label}
        yield template.question(asked(messages, question), origin, columns=columns, question=question, **meta)


def _filled(row: Mapping[str, Any], column: str, origin: str) -> str:
    text = text_of(row, column, origin)
    if not text.strip():
        raise UserError(f"{origin}: column {column!r} is empty")
    return text


def _answer(value: Any, origin: str) -> float:
    """How much of a yes the value is, 0..1."""
    if isinstance(value, str) and value.strip().lower() in YES_NO:
        return YES_NO[value.strip().lower()]
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise UserError(
        f"{origin}: column 'answer' must be yes or no, true or false, or a number from 0 to 1, found {reprlib.repr(value)}"
    )
