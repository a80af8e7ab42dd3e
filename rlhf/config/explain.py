"""Turns each of pydantic's errors into one line: the setting, the value found, the value wanted, the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from inspect import isclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rlhf.config.schema import Config, Short

Path = tuple[str | int, ...]  # keys and indices from the root of the YAML tree

SCALARS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "of length at least"}


def explain(error: ValidationError, tree: Any, origin: Callable[[Path], str]) -> list[str]:
    """One line per mistake. tree: the validated value; origin: names the file or override that set a path."""
    details = {_locate(detail, tree): detail for detail in error.errors(include_url=False)}
    # members of a union that do not fit also raise errors about the whole value: keep the innermost error
    innermost = [path for path in details if not any(other[: len(path)] == path for other in details if other != path)]
    return [f"{origin(path)}: {_describe(path, details[path], tree)}" for path in innermost]


def dotted(path: Path) -> str:
    """`phases[3].optim.lr`"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean …?` or, without a similar name, a list of the known names."""
    known = list(known)
    nested = [path for path in known if path.endswith(f".{name}")]
    near = nested or difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is {', '.join(path for path in known if '.' not in path)}" if known else ""


def _hint(name: object, known: list[str]) -> str:
    """`did_you_mean` for a sentence that lists the known names itself."""
    return did_you_mean(name, known) if difflib.get_close_matches(str(name), known) else ""


def field_at(path: Path, tree: Any) -> FieldInfo | None:
    """The schema's field at this path; values of the tree select members of unions. None for an unknown path."""
    field, value = FieldInfo.from_annotation(Config), tree
    for part in path:
        member = _member(field.annotation, value)
        value = _child(value, part)
        if isclass(member) and issubclass(member, BaseModel):
            field = member.model_fields.get(str(part))
        elif get_origin(member) in (dict, list, tuple):
            field = FieldInfo.from_annotation(get_args(member)[-1])
        else:
            return None
        if field is None:
            return None
    return field


def node_at(path: Path, tree: Any) -> type[BaseModel] | None:
    """The schema's node at this path, if any."""
    field = field_at(path, tree)
    member = _member(field.annotation, _value_at(path, tree)) if field else None
    return member if isclass(member) and issubclass(member, BaseModel) else None


def _locate(detail: ErrorDetails, tree: Any) -> Path:
    """The error's path in the YAML tree. Pydantic's own path also contains the members of unions that it tried."""
    location = detail["loc"]
    path: list[str | int] = []
    value = tree
    for index, part in enumerate(location):
        is_kind = index == 2 and location[0] == "phases"
        if is_kind:
            continue
        child = _child(value, part)
        missing = detail["type"] == "missing" and index == len(location) - 1
        if child is not None or missing or (isinstance(value, dict) and part in value):
            path.append(part)
            value = child
    return tuple(path)


def _describe(path: Path, detail: ErrorDetails, tree: Any) -> str:
    where, problem, found = dotted(path), detail["type"], detail["input"]
    if problem.startswith("string_") and detail["loc"][-1:] == ("[key]",) and (named := _named(path, tree)):
        return f"{where}: found the name {_shown(path[-1])}, wanted {named}"
    if problem in ("extra_forbidden", "invalid_key") or detail["loc"][-1:] == ("[key]",):
        return f"{where} is not a setting{did_you_mean(path[-1], _known(path[:-1], tree))}"
    if problem == "missing":
        return f"{where} is missing"
    if problem == "value_error":  # raised by a validator of the schema, whose message is complete
        return f"{where}: {detail['ctx']['error']}"
    if problem == "union_tag_invalid":
        kinds = [tag.strip("' ") for tag in detail["ctx"]["expected_tags"].split(",")]
        return f"{where}.kind: found {_shown(found.get('kind'))}, wanted one of {', '.join(kinds)}{_hint(found.get('kind'), kinds)}"
    if problem == "union_tag_not_found":
        return f"{where}.kind is missing"
    field, node = field_at(path, tree), node_at(path, tree)
    if node is not None and issubclass(node, Short) and node.short in detail["loc"][len(path) :]:
        field = node.model_fields[node.short]  # the value of a short form is wrong
    wanted = _wanted(field) if field else detail["msg"]
    return f"{where}: found {_shown(found)}, wanted {wanted}{_hint(found, _choices(field) if field else [])}"


def _named(path: Path, tree: Any) -> str | None:
    """The schema's description of valid names at the path's end, if any."""
    field = field_at(path[:-1], tree)
    keys = get_args(field.annotation)[:1] if field and get_origin(field.annotation) is dict else ()
    return FieldInfo.from_annotation(keys[0]).description if keys else None


def _known(path: Path, tree: Any) -> list[str]:
    """The valid names at this path, and those one level down as `node.name`."""
    field = field_at(path, tree)
    keys = get_args(field.annotation)[:1] if field and get_origin(field.annotation) is dict else ()
    if keys:
        return list(get_args(keys[0]))
    node = node_at(path, tree)
    if node is None:
        return []
    below = {name: _member(field.annotation, None) for name, field in node.model_fields.items()}
    nodes = {name: member for name, member in below.items() if isclass(member) and issubclass(member, BaseModel)}
    return [*node.model_fields, *(f"{name}.{inner}" for name, member in nodes.items() for inner in member.model_fields)]


def _member(annotation: Any, value: Any) -> Any:
    """The member of a union, or the annotation itself, that fits the shape of the value."""
    options = _options(annotation)
    for option in options:
        origin = get_origin(option) or option
        if isinstance(value, list) and origin in (list, tuple):
            return option
        fits = isclass(origin) and issubclass(origin, BaseModel | dict)
        if fits and (len(options) == 1 or _is_of_kind(origin, value)):
            return option
    return None


def _is_of_kind(node: type, value: Any) -> bool:
    field = getattr(node, "model_fields", {}).get("kind")
    return field is None or (isinstance(value, dict) and value.get("kind") in get_args(field.annotation))


def _options(annotation: Any) -> list[Any]:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    return [option for option in options if option is not NoneType]


def _choices(field: FieldInfo) -> list[str]:
    return [
        str(choice)
        for option in _options(field.annotation)
        if get_origin(option) is Literal
        for choice in get_args(option)
    ]


def _wanted(field: FieldInfo) -> str:
    """The values that the schema allows, in words."""
    if field.description:
        return field.description
    kinds = " or ".join(dict.fromkeys(_words(option) for option in _options(field.annotation)))
    bounds = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in BOUNDS.items()
        if hasattr(limit, name)
    ]
    return f"{kinds} {' and '.join(bounds)}" if bounds else kinds


def _words(option: Any) -> str:
    origin = get_origin(option) or option
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(option)))}"
    if origin in (list, tuple):
        return f"a list of {len(get_args(option))}" if origin is tuple else "a list"
    if isclass(origin) and issubclass(origin, Short):
        return f"text (its {origin.short}) or a mapping"
    return SCALARS.get(origin, "a mapping")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def _value_at(path: Path, tree: Any) -> Any:
    for part in path:
        tree = _child(tree, part)
    return tree
