"""Rows put into words by templates: several phrasings of a task, its inverse, answers after their reasoning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from data.diagnose import describe
from data.errors import UserError
from data.sources import Rows, missing_column
from data.wording import Wording, drawn

PLAIN = (str, int, float)  # values that have one obvious wording; bool is an int


class Templated(Rows):
    """The rows of `source`, each with the columns that one of the wordings makes; which one, its number decides. A row that no
    wording fits, because it has no value in a column that each of them needs, has these columns empty, so that its reader drops
    it. The other columns stay, but for `messages`, which a reader would take instead.

    Raises UserError where a column that a wording needs is in no row, and where a value is a list or a mapping.
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
        """A hash of the content and of the wordings, in hexadecimal."""
        described = [self._source.fingerprint, [[dict(wording.forms), wording.weight] for wording in self._wordings]]
        return hashlib.blake2b(json.dumps(described).encode(), digest_size=16).hexdigest()
