"""The configuration of a corpus: where its texts come from, what they pass, and what is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from data.corpus.source import SourceKind
from rlhf.config.node import Fraction, Named, Node, Short

LanguageCode = Annotated[str, Field(pattern=r"^([a-z]{2,3})?$", description="a language code such as en")]


class Source(Node):
    """Texts of one kind. The order of sources is their rank: of duplicates, the first source's document is kept."""

    name: str = Field(pattern=r"^\w[\w-]*$", description="letters, digits, '_' and '-'")
    path: str | list[str]  # files, directories, or module:function that yields dict rows
    # web: HTML, WARC; text; book: one document a file; code; scientific: LaTeX and Markdown; dialogue: turns, also as trees.
    # Each also as rows of .jsonl, .parquet or .arrow
    kind: SourceKind = "text"
    language: LanguageCode = ""  # of all its documents; "": as the rows or the step `language` say
    column: str = "text"  # of rows: where the text is
    split: Literal["file", "lines", "paragraphs"] = "file"  # how a plain text file becomes documents
    args: dict[str, Any] = {}  # keyword arguments of module:function
    weight: float | None = Field(None, ge=0)  # share of the training mixture; default: as many as it has tokens
    reference: bool = False  # text that is known already: what repeats it is dropped, and it is not written out


class StepConfig(Named):
    """A step of rlhf/corpus/cleaning_steps.py, or module:Class; the other keys are its parameters."""


class Tokenizer(Node):
    """Trained from the phase's own data, or loaded."""

    path: str | None = None  # of one to load; nothing is trained then
    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"  # all over bytes: any text comes back as it was
    vocab_size: int = Field(4096, ge=260)
    special_tokens: list[str] = []  # beside those of chat and end of text


class CorpusTokenizer(Tokenizer):
    """Its path may also be phase:<name>, that of a model or of another corpus."""

    sample_mb: float = Field(100.0, gt=0)  # of the corpus that it is trained from, drawn evenly from all units


class Mixture(Node):
    """How much a pretraining phase takes of each source of its corpus."""

    weights: dict[str, float] = {}  # by source; default: those of the corpus, else tokens ** (1 / temperature)
    temperature: float = Field(1.0, ge=1)  # above 1, small sources count for more (Conneau & Lample 2019)
    # [share of the training done, weights], in order: between two points weights go over linearly
    schedule: list[tuple[Fraction, dict[str, float]]] = []


class Reserved(Short):
    """Texts that the corpus must not contain, beside those that this run evaluates on."""

    short = "path"
    path: str | list[str]
    columns: list[str] = []  # of its rows; default: every text in them


STEPS = ["gopher_repetition", "gopher_quality", "exact_duplicates", "near_duplicates", "decontaminate", "pii"]
DEFAULT_STEPS = [StepConfig(name=name) for name in STEPS]
