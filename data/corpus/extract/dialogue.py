"""Dialogues: message lists, `\\n\\nHuman:` text and trees of turns, which become their root-to-leaf conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.corpus.extract.found import Extracted
from data.corpus.extract.text import clean_text
from data.corpus.source import Record
from data.corpus.step import Dropped
from data.messages import lookup, parse_dialogue

Turn = dict[str, str]  # role and content

# where a row has its dialogue, after the source's own column; last, the row itself may be a tree's first turn
COLUMNS = ("messages", "conversations", "conversation", "prompt", "conversation_tree", "conversation tree")
ROLES = {"prompter": "user", "human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
NOT_FOUND = Dropped("no dialogue in the row")
NO_TEXT = Dropped("a turn without text or role")


def extract_dialogues(record: Record) -> list[Extracted] | Dropped:
    """One document a conversation, "User: …\\n\\nAssistant: …", with its messages ({role, content}) in marks["messages"]."""
    row = record.content
    values = [lookup(row, record.unit.source.column), *(row.get(name) for name in COLUMNS), row]
    for value in values:
        conversations = _conversations(value)
        if conversations is None:
            continue
        found = [messages for messages in conversations if messages]
        if not found or any(not turn["role"] or not turn["content"] for messages in found for turn in messages):
            return NO_TEXT
        language = record.language or _language(value)
        return [Extracted(rendered(messages), language, {"messages": messages}) for messages in found]
    return NOT_FOUND


def rendered(messages: list[Turn]) -> str:
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages)


def _conversations(value: Any) -> list[list[Turn]] | None:
    """None where the value is no dialogue."""
    if isinstance(value, str):
        turns = parse_dialogue(value)
        if turns and not turns[-1]["content"]:
            turns.pop()  # an `Assistant:` that asks for an answer
        return [[_turn(turn) for turn in turns]] if turns else None
    if isinstance(value, Mapping):
        return list(_paths(value)) if _is_turn(value) else None
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        if any(turn.get("replies") for turn in value):
            return [path for root in value for path in _paths(root)]
        return [[_turn(turn) for turn in value]]
    return None


def _paths(root: Mapping[str, Any]) -> Iterator[list[Turn]]:
    """From the root to every leaf, in the order in which the replies stand."""
    left: list[tuple[Mapping[str, Any], list[Turn]]] = [(root, [])]
    while left:
        node, before = left.pop()
        path = [*before, _turn(node)]
        replies = [reply for reply in node.get("replies") or () if isinstance(reply, Mapping)]
        if not replies:
            yield path
        left.extend((reply, path) for reply in reversed(replies))


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def _turn(value: Mapping[str, Any]) -> Turn:
    """Empty strings where there is no text."""
    role = value.get("role") or value.get("from")
    said = next((value[name] for name in ("content", "text", "value") if isinstance(value.get(name), str)), "")
    role = role.strip().lower() if isinstance(role, str) else ""
    return {"role": ROLES.get(role, role), "content": clean_text(said).strip()}


def _language(value: Any) -> str:
    """What the first turn says of itself, as in OpenAssistant's trees."""
    language = value.get("lang") if isinstance(value, Mapping) else None
    return language if isinstance(language, str) else ""
