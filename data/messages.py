"""Values of a row as messages: plain strings, message lists, and `\\n\\nHuman:` / `\\n\\nAssistant:` dialogues."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from data.errors import UserError, describe

Message = dict[str, Any]  # {"role": …, "content": …} and whatever else the chat template reads

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant):")
# a minus sign counts only where it is no operator: "16-3" ends in 3
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of a dotted name that reaches into a nested one; None where there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a row, in its order: messages are nested."""
    if isinstance(value, str):
        yield value
    else:
        children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        for child in children:
            yield from strings_in(child)


def text_of(row: Mapping[str, Any], column: str, origin: str) -> str:
    """The column's text. Raises UserError where it is anything else."""
    value = row.get(column)
    if not isinstance(value, str):
        raise UserError(f"{origin}: column {column!r} must be text, found {describe(value)}")
    return value


def messages_of(row: Mapping[str, Any], column: str, origin: str, role: str = "user") -> list[Message]:
    """The column's messages: a message list, a dialogue in one string, or else one message of `role`.

    Raises UserError where it is neither text nor a list of {"role", "content"}.
    """
    value = row.get(column)
    if isinstance(value, str):
        return parse_dialogue(value) or [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise UserError(f"{origin}: column {column!r} must be text or a list of messages, found {describe(value)}")
    return [
        _checked(message, f"{origin}: column {column!r}, message {number}") for number, message in enumerate(value, 1)
    ]


def prompt_of(row: Mapping[str, Any], origin: str) -> list[Message]:
    """The messages of the column `prompt`; a dialogue's closing `Assistant:` with nothing after it is the question's end."""
    messages = messages_of(row, "prompt", origin)
    unanswered = messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip()
    return messages[:-1] if unanswered else messages


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


def prompt_key(messages: Sequence[Message]) -> str:
    """Stands for the messages before an answer, in few characters; blanks around a content, which many templates strip, do
    not count."""
    stripped = [{**message, "content": message["content"].strip()} for message in messages]
    text = json.dumps(stripped, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def parse_dialogue(text: str) -> list[Message]:
    """The messages of a dialogue in hh-rlhf's form, each without its surrounding blanks; [] where the text is not one.

    A marker counts as a turn wherever it stands: the form has no way to quote one.
    """
    opening, *turns = TURN.split(text)
    if opening.strip() or not turns or turns[0] != "Human":
        return []
    return [{"role": SPEAKERS[who], "content": said.strip()} for who, said in zip(turns[::2], turns[1::2], strict=True)]


def number_in(text: str) -> Decimal | None:
    """The first number after the text's last `####` (GSM8K's mark, Cobbe et al. 2021); without the mark, its last. None
    where there is none."""
    _, mark, marked = text.rpartition("####")
    numbers = NUMBER.findall(marked)
    if not numbers:
        return None
    return Decimal(numbers[0 if mark else -1].replace(",", ""))


def _checked(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise UserError(f"{where} must be an object with role and content, found {describe(message)}")
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            raise UserError(f"{where}: {key!r} must be text, found {describe(message.get(key))}")
    # Arrow gives every message the keys of all; a template must not see those that the row does not have
    return {key: value for key, value in message.items() if value is not None}
