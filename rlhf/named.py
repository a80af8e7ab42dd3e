"""Builds an algorithm or loss with its fields set from the config: a built-in, or the user's `module:Class`."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data.errors import UserError
from data.imports import load_object


def build(what: str, name: str, parameters: Mapping[str, Any], built_in: Mapping[str, str], base: type = object) -> Any:
    """The object, with its fields checked against their types. what: "algorithm" or "loss", for messages; built_in:
    import paths by name.

    Raises UserError where the name, a parameter or a value is wrong, or the class is no dataclass derived from `base`.
    """
    if name not in built_in and ":" not in name:
        raise UserError(f"there is no {what} {name!r}; built in are {', '.join(built_in)}, your own is module:Class")
    kind = load_object(built_in.get(name, name))
    if not (isinstance(kind, type) and issubclass(kind, base) and dataclasses.is_dataclass(kind)):
        wanted = "" if base is object else f" that derives from {base.__module__}.{base.__name__}"
        raise UserError(f"{what} {name!r} must be a dataclass{wanted}, got {kind!r}")
    for parameter in parameters:
        if parameter not in _fields(kind):
            raise UserError(_unknown(what, name, kind, [parameter]))
    try:
        return TypeAdapter(kind).validate_python(dict(parameters))
    except ValidationError as error:
        raise UserError(_advice(what, name, kind, error)) from error


def _advice(what: str, name: str, kind: type, error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] != "unexpected_keyword_argument":
        return f"{what} {name!r}: {'.'.join(path)}: {first['msg']}, got {first['input']!r}"
    for part in path[:-1]:
        kind = typing.get_type_hints(kind)[part]
    return _unknown(what, name, kind, path)


def _unknown(what: str, name: str, kind: type, path: list[str]) -> str:
    known = _fields(kind)
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    return f"{what} {name!r} has no parameter {'.'.join(path)!r}; {hint}"


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
