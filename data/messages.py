"""Reads a row's values: text, messages (plain strings, message lists, `\\n\\nHuman:` / `\\n\\nAssistant:` dialogues), answers' numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from data.errors import UserError, describe

Message = dict[str, Any]  # {"role": …, "content": …} and further keys for the chat template

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
TURN = re.compile(r"\n\n(Human|Assistant):")
# a minus sign after a digit, letter or bracket is an operator: "16-3" ends in 3
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; a dotted name reaches into a nested column. None where the row has no such value."""
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a row, in order, those of nested values (messages) too."""
    if isinstance(value, str):
        yield value
    else:
        children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        for child in children:
            yield from strings_in(child)


def text_of(row: Mapping[str, Any], column: str, origin: str) -> str:
    """The column's text. Raises UserError where the value is not text."""
    value = row.get(column)
    if not isinstance(value, str):
        raise UserError(f"{origin}: column {column!r} must be text, found {describe(value)}")
    return value


def messages_of(row: Mapping[str, Any], column: str, origin: str, role: str = "user") -> list[Message]:
    """The column's messages: its message list, the turns of a dialogue in one string, or one message of `role` for other text.

    Raises UserError where the value is neither text nor a list of {"role", "content"}.
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
    """The messages of the column `prompt`, without an empty `Assistant:` turn at the end."""
    messages = messages_of(row, "prompt", origin)
    unanswered = messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip()
    return messages[:-1] if unanswered else messages


def dialogue_of(row: Mapping[str, Any], column: str, origin: str) -> list[Message]:
    """The prompt's messages and the answer in `column`, which may itself begin with the prompt's messages.

    Raises UserError where the dialogue does not end with an assistant's answer to some message.
    """
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
    """Hex hash of the messages before an answer. Ignores blanks around contents, which many templates strip."""
    stripped = [{**message, "content": message["content"].strip()} for message in messages]
    text = json.dumps(stripped, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def parse_dialogue(text: str) -> list[Message]:
    """The messages of a dialogue in hh-rlhf's form, their contents stripped; [] where the text is no such dialogue.

    Every marker begins a turn: the form has no way to quote one.
    """
    opening, *turns = TURN.split(text)
    if opening.strip() or not turns or turns[0] != "Human":
        return []
    return [{"role": SPEAKERS[who], "content": said.strip()} for who, said in zip(turns[::2], turns[1::2], strict=True)]


def number_in(text: str) -> Decimal | None:
    """The number that a text gives as its answer: the first after the last `####` (GSM8K's mark, Cobbe et al. 2021) or, without
    the mark, the text's last. None where there is no number. 72, 72.0 and $72 are equal."""
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
    # Arrow gives every message the keys of all messages; the chat template must see only the row's own
    return {key: value for key, value in message.items() if value is not None}
