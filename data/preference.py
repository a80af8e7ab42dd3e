"""Preference rows: two answers to the same question, the chosen one first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.errors import UserError
from data.messages import Message, messages_of, prompt_of
from data.render import Dialogue, Template
from data.sources import Rows
from data.unit import DataReport, Unit


def preference_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport
) -> Iterator[Unit]:
    """Columns `chosen` and `rejected`: answers to `prompt`, or, without that column, full dialogues (message lists or
    hh-rlhf text) that differ in their last answer. Only that answer is trained on.

    Dropped: pairs with an empty answer, with equal answers, with dialogues that part before the last answer, or with a row
    longer than max_length.
    """
    rows.require("chosen", "rejected")
    template = Template(tokenizer)
    examples = template.encode(_dialogues(rows, template, report))
    for chosen, rejected in zip(examples, examples, strict=True):
        length = max(len(chosen.tokens), len(rejected.tokens))
        if length > max_length:
            report.drop_long(length, max_length)
        else:
            yield chosen, rejected


def _dialogues(rows: Rows, template: Template, report: DataReport) -> Iterator[Dialogue]:
    """Chosen and rejected in turn."""
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        chosen, rejected = (dialogue_of(row, column, origin) for column in ("chosen", "rejected"))
        reason = _unusable(chosen, rejected)
        if reason:
            report.drop(reason)
            continue
        for messages in (chosen, rejected):
            yield template.dialogue(messages, origin, last_only=True, row=number)


def dialogue_of(row: Mapping[str, Any], column: str, origin: str) -> list[Message]:
    """The whole dialogue; an answer in `column` may be given with or without the prompt's messages before it."""
    if row.get("prompt") is None:
        messages = messages_of(row, column, origin)
    else:
        prompt, answer = prompt_of(row, origin), messages_of(row, column, origin, role="assistant")
        messages = answer if answer[: len(prompt)] == prompt else prompt + answer
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise UserError(
            f"{origin}: column {column!r} must end with an assistant's answer to something: give the question in the column "
            "'prompt', or full dialogues (message lists, or text of \\n\\nHuman: and \\n\\nAssistant: turns)"
        )
    return messages


def _unusable(chosen: list[Message], rejected: list[Message]) -> str | None:
    if not chosen[-1]["content"].strip() or not rejected[-1]["content"].strip():
        return "with an empty answer"
    if chosen[:-1] != rejected[:-1]:
        return "with dialogues that part before the last answer"
    if chosen == rejected:
        return "with equal answers"
    return None
