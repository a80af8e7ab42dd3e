"""RL algorithms by name: a built-in one, or `module:Class` of the user's."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data.errors import UserError
from data.imports import load_object
from rlhf.interfaces import Algorithm

BUILT_IN = {"ppo": "rlhf.algorithms.ppo:PPO", "grpo": "rlhf.algorithms.grpo:GRPO"}


def resolve(name: str, parameters: dict[str, Any]) -> Algorithm:
    """The algorithm with its fields set from `parameters`, checked against their types.

    Raises UserError where the name, a parameter's name or its value is wrong.
    """
    if name not in BUILT_IN and ":" not in name:
        raise UserError(f"there is no algorithm {name!r}; built in are {', '.join(BUILT_IN)}, your own is module:Class")
    kind = load_object(BUILT_IN.get(name, name))
    if not (isinstance(kind, type) and issubclass(kind, Algorithm) and dataclasses.is_dataclass(kind)):
        raise UserError(
            f"algorithm {name!r} must be a dataclass that derives from rlhf.interfaces.Algorithm, got {kind!r}"
        )
    try:
        algorithm = TypeAdapter(kind).validate_python(parameters)
    except ValidationError as error:
        raise UserError(_advice(name, kind, error)) from error
    algorithm.objectives()  # they check their own parameters: before anything is spawned, not at the first step
    return algorithm


def _advice(name: str, kind: type, error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] != "unexpected_keyword_argument":
        return f"algorithm {name!r}: {'.'.join(path)}: {first['msg']}, got {first['input']!r}"
    for part in path[:-1]:
        kind = typing.get_type_hints(kind)[part]
    known = [field.name for field in dataclasses.fields(kind)]
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    return f"algorithm {name!r} has no parameter {'.'.join(path)!r}; {hint}"
