"""Dialogues: message lists, `\\n\\nHuman:` text, and trees of turns, which become one conversation for each leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data.corpus.extract.plain_text import Extracted, clean_text, refused
from data.corpus.source import Quarantined, Record
from data.corpus.step import Dropped
from data.messages import lookup, parse_dialogue

# columns where a dialogue may be, after the source's own column; last, the row itself may be the root of a tree
PLACES = ("messages", "conversations", "conversation", "prompt", "conversation_tree", "conversation tree")
ROLE_NAMES, CONTENT_NAMES = ("role", "from"), ("content", "text", "value")
COLUMNS = (*PLACES, *ROLE_NAMES, *CONTENT_NAMES, "replies", "lang")  # all columns that are read
ROLES = {"prompter": "user", "human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
NOT_FOUND = Dropped("no dialogue in the row")
NO_TEXT = Dropped("a turn without text or role")
BETWEEN = "\n\n"
# The conversations of a tree repeat the turns that they share. All together they may have the greater of: this many
# times the characters of the tree, and this many characters (a small tree may have a long question and many short
# answers).
MAX_REPEATED = 8
ALWAYS_ALLOWED_CHARACTERS = 2**20
MAX_CONVERSATIONS = 100_000  # of a row; they are in memory together


class Said(NamedTuple):
    """A turn as text. In depth-first order, the parent of a turn is the last turn before it with a smaller depth."""

    depth: int
    text: str  # "" if the role or the content is empty
    ends: bool  # whether a conversation ends here


def extract_dialogues(record: Record) -> list[Extracted] | Dropped | Quarantined:
    """One document for each conversation: "User: …\\n\\nAssistant: …"."""
    row = record.content
    values = [lookup(row, record.unit.source.column), *(row.get(name) for name in PLACES), row]
    for value in values:
        turns = _turns(value)
        if turns is None:
            continue
        if not turns or not all(turn.text for turn in turns):
            return NO_TEXT
        count, characters = _size(turns)
        own_characters = sum(len(turn.text) for turn in turns)
        allowed_characters = max(MAX_REPEATED * own_characters, ALWAYS_ALLOWED_CHARACTERS)
        if characters > allowed_characters or count > MAX_CONVERSATIONS:
            times = characters // own_characters
            return refused(record, f"a tree of {count:,} conversations, together {times:,} times as long as the tree")
        language = record.language or _language(value)
        return [Extracted(text, language) for text in _conversations(turns)]
    return NOT_FOUND


def _turns(value: Any) -> list[Said] | None:
    """None if the value is not a dialogue."""
    if isinstance(value, str):
        turns = parse_dialogue(value)
        if turns and not turns[-1]["content"]:
            return _sequence(turns[:-1])  # without the `Assistant:` that asks for an answer
        return _sequence(turns) if turns else None
    if isinstance(value, Mapping):
        return list(_tree([value])) if _is_turn(value) else None
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        return list(_tree(value)) if any(map(_replies, value)) else _sequence(value)
    return None


def _sequence(turns: Sequence[Mapping[str, Any]]) -> list[Said]:
    return [Said(depth, _said(turn), depth == len(turns) - 1) for depth, turn in enumerate(turns)]


def _tree(roots: Sequence[Mapping[str, Any]]) -> Iterator[Said]:
    """All turns depth first: each turn, then its replies in order."""
    left = [(0, root) for root in reversed(roots)]
    while left:
        depth, turn = left.pop()
        replies = _replies(turn)
        yield Said(depth, _said(turn), not replies)
        left.extend((depth + 1, reply) for reply in reversed(replies))


def _size(turns: Sequence[Said]) -> tuple[int, int]:
    """(number of conversations, sum of their characters)."""
    count, characters = 0, 0
    before = [0]  # characters of the current conversation up to each depth
    for turn in turns:
        del before[turn.depth + 1 :]
        before.append(before[-1] + len(turn.text) + len(BETWEEN))
        if turn.ends:
            count, characters = count + 1, characters + before[-1]
    return count, characters


def _conversations(turns: Sequence[Said]) -> Iterator[str]:
    path: list[str] = []
    for turn in turns:
        del path[turn.depth :]
        path.append(turn.text)
        if turn.ends:
            yield BETWEEN.join(path)


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and any(name in value for name in ROLE_NAMES)


def _replies(turn: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    replies = turn.get("replies")  # some data sets have the number of replies here
    return [reply for reply in replies if isinstance(reply, Mapping)] if isinstance(replies, list) else []


def _said(turn: Mapping[str, Any]) -> str:
    role = next((value for name in ROLE_NAMES if (value := turn.get(name))), "")
    role = role.strip().lower() if isinstance(role, str) else ""
    said = next((value for name in CONTENT_NAMES if isinstance(value := turn.get(name), str)), "")
    content = clean_text(said).strip()
    return f"{ROLES.get(role, role).capitalize()}: {content}" if role and content else ""


def _language(value: Any) -> str:
    """The `lang` of the first turn, as in OpenAssistant's trees."""
    language = value.get("lang") if isinstance(value, Mapping) else None
    return language if isinstance(language, str) else ""
