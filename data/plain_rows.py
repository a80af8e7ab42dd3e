"""Readers of rows without feedback: texts and dialogues to train on, and prompts for reinforcement learning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data.errors import UserError
from data.messages import Message, messages_of, prompt_of, text_of
from data.render import TOKENIZED_AT_ONCE, ChatTemplate, Dialogue, batched
from data.sample import Prompt
from data.sources import Rows
from data.tokenizer import Tokenizer, end_of_text
from data.unit import DataReport, Example, TrainingUnit

# columns of a chat row; the first form whose columns all exist is read
FORMS = (("messages",), ("prompt", "response"), ("instruction", "output"))


def text_units(rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport) -> Iterator[TrainingUnit]:
    """Documents from the column `text`, each ended by the end-of-text token and cut into rows of at most max_length tokens.

    All tokens of a row but its first are trained on. Each row starts with the last token of the row before, so that every token
    of a document but its first is predicted once.
    """
    rows.require("text")
    end = end_of_text(tokenizer)
    for numbers in batched(range(len(rows)), TOKENIZED_AT_ONCE):
        texts = [text_of(rows[number], "text", rows.origin(number)) for number in numbers]
        for number, text, tokens in zip(numbers, texts, tokenizer(texts, verbose=False)["input_ids"], strict=True):
            if not text.strip():
                report.drop("without text")
                continue
            if tokens[-1:] != [end]:
                tokens.append(end)
            report.truncated += len(tokens) > max_length
            document = np.array(tokens, np.int32)
            for start in range(0, len(document) - 1, max_length - 1):
                chunk = document[start : start + max_length]
                mask = np.ones(len(chunk), bool)
                mask[0] = False
                yield (Example(chunk, mask, {"row": number}),)


def chat_units(rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport) -> Iterator[TrainingUnit]:
    """Dialogues from the columns `messages`, or `prompt` and `response`, or `instruction`, `output` and optionally `input`. All
    of the assistant's turns are trained on.

    Drops rows with an empty answer, and rows longer than max_length: a cut answer would teach to stop anywhere.
    """
    template = ChatTemplate(tokenizer)
    return report.fitting(template.encode(_chat_dialogues(rows, template, report)), max_length)


def _chat_dialogues(rows: Rows, template: ChatTemplate, report: DataReport) -> Iterator[Dialogue]:
    form = next((form for form in FORMS if set(form) <= set(rows.columns)), None)
    if form is None:
        wanted = ", or ".join(" and ".join(form) for form in FORMS)
        raise UserError(
            f"{rows.name}: chat rows need the columns {wanted}; the columns are {', '.join(rows.columns)}; "
            "name them with data.columns: {prompt: <column>, response: <column>}"
        )
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        messages = _chat_messages(row, form, origin)
        if any(not message["content"].strip() for message in messages if message["role"] == "assistant"):
            report.drop("with an empty answer")
        else:
            yield template.dialogue(messages, origin, row=number)


def _chat_messages(row: Mapping[str, Any], form: tuple[str, ...], origin: str) -> list[Message]:
    if form == ("messages",):
        return messages_of(row, "messages", origin)
    if form == ("prompt", "response"):
        return [*prompt_of(row, origin), {"role": "assistant", "content": text_of(row, "response", origin)}]
    question = text_of(row, "instruction", origin)
    if row.get("input"):
        question += "\n\n" + text_of(row, "input", origin)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": text_of(row, "output", origin)}]


def build_prompts(rows: Rows, tokenizer: Tokenizer, max_prompt_tokens: int) -> tuple[list[Prompt], DataReport]:
    """Prompts from the column `prompt`, a string or messages, rendered with the generation prompt. `meta` has the other columns.

    An answer at the end of a dialogue is removed, so that a preference file's `chosen` can serve as prompts. Drops empty prompts,
    and prompts longer than max_prompt_tokens.

    Raises UserError where no prompt is left.
    """
    if max_prompt_tokens < 1:
        raise UserError("no room for a prompt: max_length must be greater than sampling.max_new_tokens")
    rows.require("prompt")
    report = DataReport(rows.name, len(rows))
    prompts = list(_prompts(rows, tokenizer, max_prompt_tokens, report))
    report.units = len(prompts)
    report.tokens = sum(len(prompt.tokens) for prompt in prompts)
    report.check_any_left(max_prompt_tokens, "raise max_length or lower sampling.max_new_tokens")
    return prompts, report


def _prompts(rows: Rows, tokenizer: Tokenizer, limit: int, report: DataReport) -> Iterator[Prompt]:
    for asked in batched(_rendered_prompts(rows, ChatTemplate(tokenizer), report), TOKENIZED_AT_ONCE):
        encoded = tokenizer([text for text, *_ in asked], add_special_tokens=False, verbose=False)["input_ids"]
        for tokens, (_, number, meta, messages) in zip(encoded, asked, strict=True):
            if len(tokens) > limit:
                report.drop_long(len(tokens), limit)
            else:
                yield Prompt(tuple(tokens), messages[-1]["content"], number, meta, tuple(messages))


def _rendered_prompts(
    rows: Rows, template: ChatTemplate, report: DataReport
) -> Iterator[tuple[str, int, dict[str, Any], list[Message]]]:
    """(text, row number, meta, messages) of each prompt that is not empty."""
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        messages = messages_of(row, "prompt", origin)
        if messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if messages and messages[-1]["content"].strip():
            meta = {name: value for name, value in row.items() if name != "prompt"}
            yield template.prompt(messages, origin), number, meta, messages
        else:
            report.drop("with an empty prompt")
