"""The configuration of a phase's data: where the rows are, how they are put into words, and how several data sets are mixed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data.templates import Wording
from rlhf.config.node import Node, Short

# of a part: settings name it, as in data.mix.<part>.path
PartName = Annotated[str, Field(pattern=r"^\w[\w-]*$", description="letters, digits, '_' and '-'")]


class Template(Node):
    """How a row is put into words: its columns stand in braces, `{{` is a brace. `text`, or `prompt` and `response`; `prompt`
    alone where answers are yet to be sampled. Of several, one that the row has all columns for is drawn, by the row's number."""

    text: str | None = None
    prompt: str | None = None
    response: str | None = None
    weight: float = Field(1.0, gt=0)  # how often it is drawn beside the others

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
    path: str | list[str] = ""  # files, a directory, a data set's name, or module:function that yields rows
    split: str = "train"  # of a named data set
    columns: dict[str, str] = {}  # name that the phase wants: name in the file
    args: dict[str, Any] = {}  # keyword arguments of module:function
    limit: int | None = Field(None, ge=1)  # first rows only
    # rows, chosen by the seed, set aside for evaluation; of a corpus, which has set documents aside, how many windows are used (0: 1,000)
    holdout: int = Field(0, ge=0)
    templates: list[Template] = []  # each row is put into words by one of them
    mix: dict[PartName, Part] = {}  # of pretrain and sft, instead of a path: several data sets, trained on together
    temperature: float = Field(1.0, ge=1)  # of a mix without weights: shares go by rows ** (1 / temperature)

    @model_validator(mode="after")
    def _path_or_mix(self) -> Data:
        if not self.path and not self.mix:
            raise ValueError("give either path or mix")
        return self

    def sets(self, name: str) -> dict[str, Data]:
        """By setting, those of a mix, or this one, whose setting is `name`."""
        return {f"{name}.mix.{part}": data for part, data in self.mix.items()} or {name: self}

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Part(Data):
    """One data set of a mix."""

    mix: dict[str, Part] = Field({}, max_length=0)
    weight: float | None = Field(None, ge=0)  # share of the rows trained on, 0: only evaluated; default: by its rows
    cap: int | None = Field(None, ge=1)  # rows that it counts for at most where shares go by rows (Raffel et al. 2020)
    rows: Literal["text", "chat"] | None = None  # default: what the phase reads


Data.model_rebuild()  # with Part, which was not there yet
