"""Settings of a phase's data: where the rows are, templates that turn them into text, and mixes of data sets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data.templates import Wording
from rlhf.config.node import Node, Short

# of a part of a mix: used in settings, as in data.mix.<part>.path
PartName = Annotated[str, Field(pattern=r"^\w[\w-]*$", description="letters, digits, '_' and '-'")]


class Template(Node):
    """Text with column names in braces; `{{` is a brace. `text`, or `prompt` and `response`, or `prompt` alone where
    answers are sampled. Of several templates, the row number draws one whose columns the row has."""

    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    weight: float = Field(1.0, gt=0)  # how often it is drawn, relative to the others

    @model_validator(mode="after")
    def _one_form(self) -> Template:
        if (self.text is None) == (self.prompt is None) or (self.prompt is None and self.response is not None):
            raise ValueError("give either text, or prompt and response")
        if not self.wording.columns:
            raise ValueError("it names no column, so every row would read the same; write {name} for a column's value")
        return self

    @property
    def wording(self) -> Wording:
        forms = {name: text for name in ("text", "prompt", "response") if (text := getattr(self, name)) is not None}
        return Wording(forms, self.weight)


class Data(Short):
    short = "path"
    path: str | list[str] = ""  # files, a directory, the name of a data set, or module:function that yields rows
    split: str = "train"  # of a data set given by name
    columns: dict[str, str] = {}  # {name that the phase reads: name in the file}
    args: dict[str, Any] = {}  # keyword arguments of module:function
    limit: int | None = Field(None, ge=1)  # reads only this many rows
    # rows set aside for evaluation, drawn by the seed. Of a corpus, which has its own held-out documents: windows of
    # them to evaluate on (0: 1,000)
    holdout: int = Field(0, ge=0)
    templates: list[Template] = []  # each row is turned into text by one of them
    mix: dict[PartName, Part] = {}  # pretrain and sft: several data sets to train on together, instead of a path
    # of a mix without weights: shares are proportional to rows ** (1 / temperature)
    temperature: float = Field(1.0, ge=1)

    @model_validator(mode="after")
    def _path_or_mix(self) -> Data:
        if not self.path and not self.mix:
            raise ValueError("give either path or mix")
        return self

    def sets(self, name: str) -> dict[str, Data]:
        """{setting: data set} of the parts of a mix, or of this data set, whose setting is `name`."""
        return {f"{name}.mix.{part}": data for part, data in self.mix.items()} or {name: self}

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Part(Data):
    """One data set of a mix."""

    mix: dict[str, Part] = Field({}, max_length=0)
    # share of the rows trained on; 0: only evaluated; default: by its number of rows
    weight: float | None = Field(None, ge=0)
    cap: int | None = Field(None, ge=1)  # the most rows it counts for where shares go by rows (Raffel et al. 2020)
    rows: Literal["text", "chat"] | None = None  # default: the kind of rows that the phase reads


Data.model_rebuild()  # resolves the annotation `Part`, which is defined after Data
