"""Settings of a corpus: the sources of its texts, the cleaning steps, the tokenizer, and the mixture for training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from data.corpus.source import SourceKind
from rlhf.config.node import Fraction, Named, Node, Short

LanguageCode = Annotated[str, Field(pattern=r"^([a-z]{2,3})?$", description="a language code such as en")]


class Source(Node):
    """Texts of one kind. Of duplicate documents, the one from the source that is listed first is kept."""

    name: str = Field(pattern=r"^\w[\w-]*$", description="letters, digits, '_' and '-'")
    path: str | list[str]  # files, directories, or module:function that yields dict rows
    # web: HTML, WARC; text; book: one document per file; code; scientific: LaTeX and Markdown; dialogue: turns or trees of
    # turns. Each kind may also be rows of .jsonl, .parquet or .arrow
    kind: SourceKind = "text"
    language: LanguageCode = ""  # of all documents; "": taken from the rows or the step `language`
    column: str = "text"  # of rows: the column that holds the text
    split: Literal["file", "lines", "paragraphs"] = "file"  # how to split a plain text file into documents
    args: dict[str, Any] = {}  # keyword arguments of module:function
    weight: float | None = Field(None, ge=0)  # share of the training mixture; default: its share of the tokens
    reference: bool = False  # only for deduplication: documents that repeat it are dropped, and it is not written out


class StepConfig(Named):
    """A step of rlhf/corpus/cleaning_steps.py, or module:Class; the other keys are its parameters."""


class Tokenizer(Node):
    """A tokenizer that the phase trains on its own data, or loads."""

    path: str | None = None  # of a tokenizer to load, instead of training one
    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"  # all work on bytes, so decoding restores any text exactly
    vocab_size: int = Field(4096, ge=260)
    special_tokens: list[str] = []  # in addition to those of chat and end of text


class CorpusTokenizer(Tokenizer):
    """`path` may also be phase:<name>, the tokenizer of an earlier model or corpus."""

    sample_mb: float = Field(100.0, gt=0)  # of text to train it on, drawn evenly from the whole corpus


class Mixture(Node):
    """The share of each source of the corpus in a pretraining phase."""

    weights: dict[
        str, float
    ] = {}  # by source; default: the weights in the corpus phase, else tokens ** (1 / temperature)
    temperature: float = Field(1.0, ge=1)  # above 1: raises the shares of small sources (Conneau & Lample 2019)
    # [share of the training done, weights], in order; weights between two points are interpolated linearly
    schedule: list[tuple[Fraction, dict[str, float]]] = []


class Reserved(Short):
    """Texts to keep out of the corpus, in addition to the data that this run evaluates on."""

    short = "path"
    path: str | list[str]
    columns: list[str] = []  # of its rows; default: all texts of a row


STEPS = ["gopher_repetition", "gopher_quality", "exact_duplicates", "near_duplicates", "decontaminate", "pii"]
DEFAULT_STEPS = [StepConfig(name=name) for name in STEPS]
