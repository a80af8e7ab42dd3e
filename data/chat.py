"""Chat rows: dialogues of which the assistant's turns are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.errors import UserError
from data.messages import Message, messages_of, prompt_of, text_of
from data.render import Dialogue, Template
from data.sources import Rows
from data.unit import DataReport, Unit

FORMS = (("messages",), ("prompt", "response"), ("instruction", "output"))  # the first whose columns are all there


def chat_units(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport) -> Iterator[Unit]:
    """Columns `messages`, or `prompt` and `response`, or `instruction`, `output` and perhaps `input`.

    Dropped: rows with an empty answer, rows longer than max_length (a cut answer would teach to stop anywhere).
    """
    template = Template(tokenizer)
    for example in template.encode(_dialogues(rows, template, report)):
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        else:
            yield (example,)


def _dialogues(rows: Rows, template: Template, report: DataReport) -> Iterator[Dialogue]:
    form = next((form for form in FORMS if set(form) <= set(rows.columns)), None)
    if form is None:
        wanted = ", or ".join(" and ".join(form) for form in FORMS)
        raise UserError(
            f"{rows.name}: chat rows need the columns {wanted}; the columns are {', '.join(rows.columns)}; "
            "name them with data.columns: {prompt: <column>, response: <column>}"
        )
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        messages = _messages(row, form, origin)
        if any(not message["content"].strip() for message in messages if message["role"] == "assistant"):
            report.drop("with an empty answer")
        else:
            yield template.dialogue(messages, origin, row=number)


def _messages(row: Mapping[str, Any], form: tuple[str, ...], origin: str) -> list[Message]:
    if form == ("messages",):
        return messages_of(row, "messages", origin)
    if form == ("prompt", "response"):
        return [*prompt_of(row, origin), {"role": "assistant", "content": text_of(row, "response", origin)}]
    question = text_of(row, "instruction", origin)
    if row.get("input"):
        question += "\n\n" + text_of(row, "input", origin)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": text_of(row, "output", origin)}]
