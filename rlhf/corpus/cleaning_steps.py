"""The cleaning steps by name; makes the steps and sources of `data.corpus` from those of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.corpus.source import CorpusSource
from data.corpus.step import Step
from rlhf.config.corpus import Source as SourceConfig
from rlhf.config.corpus import StepConfig
from rlhf.config.kinds import PHASE
from rlhf.named import build

if TYPE_CHECKING:
    from rlhf.rundir import Artifact

STEPS = {
    "gopher_quality": "data.corpus.heuristics:GopherQuality",
    "gopher_repetition": "data.corpus.heuristics:GopherRepetition",
    "c4": "data.corpus.heuristics:C4",
    "c4_paragraphs": "data.corpus.heuristics:C4Paragraphs",
    "fineweb": "data.corpus.heuristics:FineWeb",
    "language": "data.corpus.languages:Language",
    "word_list": "data.corpus.wordlist:WordList",
    "classifier": "data.corpus.classifier:Classifier",
    "perplexity": "rlhf.corpus.perplexity:Perplexity",
    "exact_duplicates": "data.corpus.dedup.exact:ExactDuplicates",
    "near_duplicates": "data.corpus.dedup.near:NearDuplicates",
    "sentence_duplicates": "data.corpus.dedup.sentences:SentenceDuplicates",
    "decontaminate": "data.corpus.decontaminate:Decontaminate",
    "pii": "data.corpus.pii:Pii",
}


def resolve_steps(configured: Sequence[StepConfig], artifacts: Mapping[str, Artifact] = {}) -> list[tuple[str, Step]]:
    """(name, step) of each step, in order. Numbers a repeated name, for the report. Replaces a parameter phase:<name>
    by the directory of that phase's artifact, if there is one.

    Raises UserError if a step or one of its parameters is wrong.
    """
    found: list[tuple[str, Step]] = []
    for each in configured:
        parameters = {name: _resolved(value, artifacts) for name, value in each.parameters.items()}
        step = build("step", each.name, parameters, STEPS, Step)
        times = sum(name.split(" ")[0] == each.name for name, _ in found)
        found.append((f"{each.name} {times + 1}" if times else each.name, step))
    return found


def plain_source(source: SourceConfig) -> CorpusSource:
    values = source.model_dump(exclude={"weight"})
    return CorpusSource(**{**values, "path": (source.path,) if isinstance(source.path, str) else tuple(source.path)})


def _resolved(value: Any, artifacts: Mapping[str, Artifact]) -> Any:
    name = value.removeprefix(PHASE) if isinstance(value, str) and value.startswith(PHASE) else None
    return str(artifacts[name].path) if name in artifacts else value
