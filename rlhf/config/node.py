"""Base classes of the config: frozen nodes that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

# The description of a pattern is quoted in the error message.
Fraction = Annotated[float, Field(ge=0, le=1)]
Function = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")]


class Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def given(self) -> set[str]:
        """The settings that differ from their defaults. `model_fields_set` is no help: a run's config.yaml sets all."""
        fields = type(self).model_fields
        return {name for name in self.model_fields_set if getattr(self, name) != fields[name].get_default()}


class Short(Node):
    """A node that may be written as a plain value, the value of its field `short`."""

    short: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.short: value} if isinstance(value, str | list) else value


class Named(Short):
    """`name` is built in or module:Class; the other keys are fields of that class."""

    model_config = ConfigDict(extra="allow")
    short = "name"
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
