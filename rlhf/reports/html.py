"""HTML pages from the templates in `templates/`: each page is one file that needs nothing from outside."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """The page that a file of `templates/` makes of the values. Every value is escaped, so that no answer of a model
    and no row of data can become markup; a chart is `Markup` and is not.

    Raises jinja2.UndefinedError where the template names a value that is not given.
    """
    return _environment().get_template(template).render(values)


def png(path: Path) -> Markup:
    """An `<img>` that holds the file's bytes."""
    from markupsafe import Markup

    data = base64.b64encode(path.read_bytes()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(path.stem, data)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment
