"""Templates that word a row as text: several phrasings of a task, the inverse task, answers after their reasoning."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

from data.errors import UserError, describe
from data.sources import Rows, missing_column

Piece = tuple[str, str | None]  # text, and the column whose value follows it, if any
PLAIN = (str, int, float)  # types of values with one obvious text; bool is an int


def parsed(text: str) -> list[Piece]:
    """The pieces of a template, in which `{name}` stands for a column's value, and `{{` and `}}` for braces.

    Raises ValueError for anything else in braces: attributes, indices and formats would reach into values that the data's author
    chose.
    """
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
    """One way to word a row. forms: {column to make: its template}. weight: how often this wording is drawn, relative to others."""

    forms: Mapping[str, str]
    weight: float = 1.0

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values the templates need."""
        return tuple(dict.fromkeys(name for pieces in self._pieces.values() for _, name in pieces if name is not None))

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a value in every needed column. Blank text is no value."""
        return all(row.get(name) is not None and str(row[name]).strip() for name in self.columns)

    def words(self, row: Mapping[str, Any]) -> dict[str, str]:
        """{made column: its text}."""
        return {
            made: "".join(before + ("" if name is None else str(row[name])) for before, name in pieces)
            for made, pieces in self._pieces.items()
        }

    @cached_property
    def _pieces(self) -> dict[str, list[Piece]]:
        return {made: parsed(text) for made, text in self.forms.items()}


def drawn(wordings: Sequence[Wording], row: Mapping[str, Any], number: int) -> Wording | None:
    """A wording that fits the row, drawn by weight with the row's number as seed, so that every epoch, run and process draws the
    same one. None where no wording fits."""
    fitting = [wording for wording in wordings if wording.fits(row)]
    weights = [wording.weight for wording in fitting]
    return random.Random(number).choices(fitting, weights)[0] if fitting else None


class Templated(Rows):
    """Wraps `source`: fills one wording, chosen by row number, and adds the columns it makes. Where no wording fits a row, these
    columns are empty, so that the reader drops the row. Keeps other columns except `messages`, which a reader would prefer.

    Raises UserError where a wording needs a column that no row has, and where a needed value is a list or a mapping.
    """

    def __init__(self, source: Rows, wordings: Sequence[Wording]):
        self.name, self._source, self._wordings = source.name, source, wordings
        self._made = tuple(dict.fromkeys(made for wording in wordings for made in wording.forms))
        for place, wording in enumerate(wordings):
            for name in wording.columns:
                if name not in source.columns:
                    raise UserError(missing_column(f"{source.name}: data.templates[{place}]", name, source.columns))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {name: value for name, value in self._source[index].items() if name != "messages"}
        wording = drawn(self._wordings, row, index)
        if wording is None:
            return row | dict.fromkeys(self._made, "")
        for name in wording.columns:
            if not isinstance(row[name], PLAIN):
                raise UserError(
                    f"{self.origin(index)}: column {name!r} must be text or a number to be put into a template, found "
                    f"{describe(row[name])}; reach into it with data.columns: {{<a name>: {name}.<key>}}"
                )
        return row | wording.words(row)

    def origin(self, index: int) -> str:
        return self._source.origin(index)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(name for name in self._source.columns if name != "messages"), *self._made]))

    @cached_property
    def fingerprint(self) -> str:
        """Hex hash of the content and of the wordings."""
        described = [self._source.fingerprint, [[dict(wording.forms), wording.weight] for wording in self._wordings]]
        return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
