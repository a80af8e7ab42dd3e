"""Errors that a user can fix, told in one line: what is wrong, where, and the remedy.

The command line prints a `UserError` and exits with code 2.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

NAMES = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


class UserError(Exception):
    """Its message is one line: what is wrong, where, and what to do about it."""


def describe(value: Any) -> str:
    """The value's type, in JSON's words."""
    return "null" if value is None else NAMES.get(type(value), type(value).__name__)


def missing_file(path: Path) -> str:
    """One line: the missing path, and files of similar names in its directory."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path} does not exist: there is no directory {folder}"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=3)
    return f"{path} does not exist" + (f"; {folder} has {', '.join(near)}" if near else "")
