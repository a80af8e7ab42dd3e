"""Values of feedback rows, each checked: numbers, flags, lists; and what a row tells of itself."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from data.diagnose import describe
from data.errors import UserError
from data.messages import Message, prompt_key


def number(value: Any, where: str, least: float = -math.inf, most: float = math.inf, wanted: str = "a number") -> float:
    """The value as a finite number of least..most. Raises UserError, `where` in front, where it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or math.isinf(value):
        raise UserError(f"{where} must be {wanted}, found {reprlib.repr(value)}")
    return float(value)


def flag(value: Any, where: str, meaning: str = "") -> bool:
    """True or False, which may be written as 1 or 0."""
    if not isinstance(value, int | float) or value not in (0, 1):  # True and False are among them
        hint = f": {meaning}" if meaning else ""
        raise UserError(f"{where} must be true or false (or 1 or 0{hint}), found {reprlib.repr(value)}")
    return bool(value)


def items(row: Mapping[str, Any], column: str, origin: str, like: tuple[str, int] | None = None) -> list[Any]:
    """The column's list. like: another column and how many items it has, which this one must have, too."""
    value = row.get(column)
    if not isinstance(value, list | tuple):
        raise UserError(f"{origin}: column {column!r} must be a list, found {describe(value)}")
    if like is not None and len(value) != like[1]:
        raise UserError(f"{origin}: column {column!r} has {len(value)} items, but column {like[0]!r} has {like[1]}")
    return list(value)


def item(column: str, origin: str, place: int) -> str:
    """Where an item is found, to name it in an error; counted from 1."""
    return f"{origin}: column {column!r}, item {place + 1}"


def annotator(row: Mapping[str, Any], origin: str) -> dict[str, str]:
    """{"annotator": name} for the row's meta; {} where the row names none."""
    value = row.get("annotator")
    if value is None:
        return {}
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{origin}: column 'annotator' must be a name, found {reprlib.repr(value)}")
    return {"annotator": value}


def meta(number: int, row: Mapping[str, Any], prompt: Sequence[Message], origin: str) -> dict[str, Any]:
    """What every unit of feedback says of where it is from: its row, its prompt's key, and its annotator where the row names
    one."""
    return {"row": number, "prompt_key": prompt_key(prompt), **annotator(row, origin)}
