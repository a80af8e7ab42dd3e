"""What every part of the configuration is built of: frozen nodes that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A pattern's description is what the error message says was wanted.
Fraction = Annotated[float, Field(ge=0, le=1)]
Function = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")]


class Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def given(self) -> set[str]:
        """The settings that say something: a run's own config.yaml also writes out those that are as by default."""
        fields = type(self).model_fields
        return {name for name in self.model_fields_set if getattr(self, name) != fields[name].get_default()}


class Short(Node):
    """A node that a plain value may stand for: that of the one field that is nearly always set."""

    short: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.short: value} if isinstance(value, str | list) else value


class Named(Short):
    """`name` is a built-in one or module:Class; the other keys are its fields, checked against the class."""

    model_config = ConfigDict(extra="allow")
    short = "name"
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})
