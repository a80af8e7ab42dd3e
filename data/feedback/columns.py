"""Columns of feedback rows: options for reading them, the conversions that they imply, and checks of their values."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from data.errors import UserError, describe
from data.messages import Message, prompt_key

# columns that order a row's `responses`; the first one present counts
ORDERED_BY = ("ratings", "ranks", "correct", "answer")

CONVERSIONS = {  # (kind to train on, form of the rows) -> the conversion
    ("preference", "ratings"): "ratings → pairs with margin",
    ("preference", "ranking"): "ranking → pairs",
    ("preference", "verifiable"): "verifiable answers → pairs",
    ("ranking", "ratings"): "ratings → ranking",
    ("ranking", "verifiable"): "verifiable answers → ranking",
    ("thumbs", "pairs"): "pairs → thumbs",
    ("binary", "pairs"): "pairs → thumbs",
}
MANY = {"ranking": "rankings", "ratings": "rows of ratings", "verifiable answers": "rows of verifiable answers"}


@dataclass(frozen=True)
class FeedbackOptions:
    """How to read feedback rows.

    attributes: {attribute of ratings: weight}; empty = equal weights. annotators: {name: weight of their rows}, 1 for others; or
    "agreement", which takes each annotator's agreement with the others. ties: keep answers that were judged equally good, for a
    loss that learns from them.

    Raises UserError where all attributes have weight 0, or an annotator's weight is below 0.
    """

    attributes: Mapping[str, float] = field(default_factory=dict)
    annotators: Mapping[str, float] | Literal["agreement"] = field(default_factory=dict)
    ties: bool = False

    def __post_init__(self) -> None:
        if self.attributes and not any(self.attributes.values()):
            raise UserError("attributes: all weights are 0, so that every rating would be; give one attribute a weight")
        if isinstance(self.annotators, Mapping):
            below = next((name for name, weight in self.annotators.items() if not weight >= 0), None)
            if below is not None:
                raise UserError(f"annotators: the weight of {below!r} is {self.annotators[below]}; wanted 0 or more")


def order_column(columns: Collection[str]) -> str | None:
    """The column that orders a row's responses; None = they are listed from best to worst."""
    return next((name for name in ORDERED_BY if name in columns), None)


def conversion_of(kind: str, columns: Collection[str]) -> str | None:
    """The conversion, such as "ranking → pairs", of rows with these columns for a phase that trains on `kind`
    (`data.examples.KINDS`). None where rows are read without conversion, or cannot be read."""
    return CONVERSIONS.get((kind, _form(kind, columns)))


def counted(conversion: str, rows: int, units: int) -> str:
    """The conversion with counts: "1,000 rankings into 3,112 pairs"."""
    source, target = conversion.split(" → ")
    return f"{rows:,} {MANY.get(source, source)} into {units:,} {MANY.get(target, target)}"


def _form(kind: str, columns: Collection[str]) -> str | None:
    present = set(columns)
    judged_alone = {"label"} if kind == "thumbs" else {"label", "rule", "question"}
    if kind in ("thumbs", "binary") and "response" in present and judged_alone & present:
        return None
    if {"chosen", "rejected"} <= present:
        return "pairs"
    if "responses" not in present:
        return None
    column = order_column(present)
    return {"ratings": "ratings", "correct": "verifiable", "answer": "verifiable"}.get(column, "ranking")


def checked_number(
    value: Any, where: str, least: float = -math.inf, most: float = math.inf, wanted: str = "a number"
) -> float:
    """The value as a float from `least` to `most`. Raises UserError, which begins with `where`, for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or math.isinf(value):
        raise UserError(f"{where} must be {wanted}, found {reprlib.repr(value)}")
    return float(value)


def checked_flag(value: Any, where: str, meaning: str = "") -> bool:
    """True or False, also from 1 or 0. Raises UserError for any other value."""
    if not isinstance(value, int | float) or value not in (0, 1):  # True == 1 and False == 0
        hint = f": {meaning}" if meaning else ""
        raise UserError(f"{where} must be true or false (or 1 or 0{hint}), found {reprlib.repr(value)}")
    return bool(value)


def checked_items(row: Mapping[str, Any], column: str, origin: str, like: tuple[str, int] | None = None) -> list[Any]:
    """The column's list. like: (another column, its number of items), which this list must have too. Raises UserError otherwise."""
    value = row.get(column)
    if not isinstance(value, list | tuple):
        raise UserError(f"{origin}: column {column!r} must be a list, found {describe(value)}")
    if like is not None and len(value) != like[1]:
        raise UserError(f"{origin}: column {column!r} has {len(value)} items, but column {like[0]!r} has {like[1]}")
    return list(value)


def item_place(column: str, origin: str, place: int) -> str:
    """An item's place for messages, counted from 1."""
    return f"{origin}: column {column!r}, item {place + 1}"


def _annotator(row: Mapping[str, Any], origin: str) -> dict[str, str]:
    """{"annotator": name}, or {} where the row names none."""
    value = row.get("annotator")
    if value is None:
        return {}
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{origin}: column 'annotator' must be a name, found {reprlib.repr(value)}")
    return {"annotator": value}


def row_meta(number: int, row: Mapping[str, Any], prompt: Sequence[Message], origin: str) -> dict[str, Any]:
    """The meta of every unit of feedback: row, prompt key, and the annotator where the row names one."""
    return {"row": number, "prompt_key": prompt_key(prompt), **_annotator(row, origin)}


def rating_of(value: Any, where: str, options: FeedbackOptions) -> float:
    """A rating as one number. Attributes become their mean, weighted by options.attributes and divided by the sum of the weights'
    absolute values, so that a weight below 0 counts against an answer.

    Raises UserError where the value is neither a number nor an object of numbers, or lacks an attribute that has a weight.
    """
    if not isinstance(value, Mapping):
        rating = checked_number(value, where, wanted="a number, or an object of numbers by attribute")
        if options.attributes:
            named = ", ".join(options.attributes)
            raise UserError(
                f"{where} is one number, so that the attributes {named} cannot be weighted: remove attributes"
            )
        return rating
    # Arrow gives every object the keys of all objects
    rated = {name: checked_number(each, f"{where}, {name!r}") for name, each in value.items() if each is not None}
    if not rated:
        raise UserError(f"{where} must be a number, or an object of numbers by attribute, found one without any")
    missing = next((name for name in options.attributes if name not in rated), None)
    if missing is not None:
        raise UserError(
            f"{where} has no attribute {missing!r}, to which attributes gives a weight; it has {', '.join(rated)}"
        )
    weights = options.attributes or dict.fromkeys(rated, 1.0)
    return sum(weight * rated[name] for name, weight in weights.items()) / sum(map(abs, weights.values()))
