"""How a row is put into words: texts whose braces name the row's columns, and which of several is taken for a row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

Piece = tuple[str, str | None]  # text, and the name of the column whose value follows it, if any


def parsed(text: str) -> list[Piece]:
    """`{name}` stands for a column's value, `{{` and `}}` for braces. Raises ValueError, one line, for anything else in braces:
    attributes, indices and formats would reach into values that the data's author chose."""
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{_shown(text)}: {error}; write a brace that is meant as {{{{ or }}}}") from error
    for _, column, form, conversion in pieces:
        if column is not None and (form or conversion or not column.isidentifier()):
            inside = f"{column}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
            raise ValueError(
                f"{_shown(text)}: {{{inside}}} is not the plain name of a column; map others with data.columns: "
                "{name: <its name>}, and write a brace that is meant as {{ or }}"
            )
    return [(before, column) for before, column, _, _ in pieces]


@dataclass(frozen=True)
class Wording:
    """One way to say a row: several phrasings of a task, its inverse, or its answer after the reasoning are wordings, each.

    forms: by the column that is made, its text. weight: how often it is taken beside the others.
    """

    forms: Mapping[str, str]
    weight: float = 1.0

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Those that it needs."""
        return tuple(dict.fromkeys(name for pieces in self._pieces.values() for _, name in pieces if name is not None))

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a value in every column that it needs; blanks are none."""
        return all(row.get(name) is not None and str(row[name]).strip() for name in self.columns)

    def words(self, row: Mapping[str, Any]) -> dict[str, str]:
        """By made column, its text."""
        return {
            made: "".join(before + ("" if name is None else str(row[name])) for before, name in pieces)
            for made, pieces in self._pieces.items()
        }

    @cached_property
    def _pieces(self) -> dict[str, list[Piece]]:
        return {made: parsed(text) for made, text in self.forms.items()}


def drawn(wordings: Sequence[Wording], row: Mapping[str, Any], number: int) -> Wording | None:
    """One of those that fit the row, by their weights and the row's number alone: the same in every epoch, run and process.
    None where none fits."""
    fitting = [wording for wording in wordings if wording.fits(row)]
    weights = [wording.weight for wording in fitting]
    return random.Random(number).choices(fitting, weights)[0] if fitting else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
