"""Loads objects of the user's own modules, which a config names as `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

from data.errors import UserError


def names_object(spec: str) -> bool:
    """Whether the text has the form `module:attribute`, which no path has."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec) is not None


def load_object(spec: str) -> Any:
    """The object that `module:attribute` names. The attribute may be dotted; modules of the working directory are found too.

    Raises UserError where the spec, the module or the attribute is wrong. Errors inside the module pass through.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UserError(f"{spec!r} is not of the form module:attribute, such as my_rewards:brevity")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: a user's file must not hide an installed package
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, but another module that it imports does not
        raise UserError(
            f"{spec!r}: there is no module {error.name!r}; "
            f"put {module_name.replace('.', '/')}.py into {os.getcwd()} or install it"
        ) from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{spec!r}: module {module_name!r} has no {attribute!r}{hint}") from error


def load_call(spec: str, args: Mapping[str, Any], option: str) -> Callable[[], Any]:
    """The function that `spec` names, bound to the keyword arguments `args`. `option` is their setting's name, for messages.

    Raises UserError as `load_object` does, and where the arguments do not fit the function.
    """
    function = load_object(spec)
    try:
        inspect.signature(function).bind(**args)
    except TypeError as error:
        raise UserError(f"{spec}: {option} do not fit the function: {error}") from error
    return partial(function, **args)
