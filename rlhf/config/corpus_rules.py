"""Rules about corpora: their sources, their steps, and the mixtures that are made of them."""

from __future__ import annotations

from pathlib import Path

from data.errors import UserError
from rlhf.config.explain import did_you_mean
from rlhf.config.model_rules import FILE, Advice
from rlhf.config.roles import CORPUS, PHASE, corpus_of
from rlhf.config.schema import Config, Phase


def sources_are_there(config: Config, phase: Phase) -> Advice:
    if phase.kind != CORPUS:
        return
    names = [source.name for source in phase.sources]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"phases.{phase.name}.sources: two are named {name!r}; give each its own name"
    for source in phase.sources:
        for path in [source.path] if isinstance(source.path, str) else source.path:
            if (FILE.match(path) or ":" not in path) and not Path(path).expanduser().exists():
                yield f"phases.{phase.name}.sources.{source.name}: there is no {path}; relative paths start at {Path.cwd()}"
    if all(source.reference for source in phase.sources):
        yield f"phases.{phase.name}.sources: all are references, so nothing would be written; set reference=false for one"


def reserved_exists(config: Config, phase: Phase) -> Advice:
    for name, data in phase.reserved.items() if phase.kind == CORPUS else ():
        for path in [data.path] if isinstance(data.path, str) else data.path:
            if FILE.match(path) and not Path(path).exists():
                yield f"phases.{phase.name}.reserved.{name}: there is no {path}; relative paths start at {Path.cwd()}"


def steps_name_earlier_phases(config: Config, phase: Phase) -> Advice:
    if phase.kind != CORPUS:
        return
    names = [other.name for other in config.phases]
    earlier = names[: names.index(phase.name)]
    for step in phase.steps:
        for parameter, value in step.parameters.items():
            if isinstance(value, str) and value.startswith(PHASE) and value.removeprefix(PHASE) not in earlier:
                name = value.removeprefix(PHASE)
                yield (
                    f"phases.{phase.name}.steps.{step.name}.{parameter}: no phase {name!r} runs before {phase.name!r}"
                    f"{did_you_mean(name, earlier)}"
                )


def mixture_fits_the_corpus(config: Config, phase: Phase) -> Advice:
    if phase.kind != "pretrain":
        return
    corpus, where = corpus_of(config, phase), f"phases.{phase.name}"
    if corpus is None:
        if phase.mixture.model_fields_set:
            yield f"{where}.mixture: it mixes the sources of a corpus; set {where}.data to phase:<name> of a corpus phase"
        return
    if phase.data.holdout and not corpus.holdout:
        yield f"{where}.data.holdout: the corpus set no document aside; set phases.{corpus.name}.holdout to a share of them"
    if phase.tokenizer is not None:
        yield f"{where}.tokenizer: the corpus {corpus.name!r} is tokenised already; set it there (phases.{corpus.name}.tokenizer)"
    if corpus.tokenizer is None:
        yield f"{where}.data: phases.{corpus.name}.tokenizer is null, so there are no tokens to train on; set its vocab_size or path"
    if phase.mixture.weights and phase.mixture.schedule:
        yield f"{where}.mixture: weights and a schedule of weights; keep one of them"
    shares = [share for share, _ in phase.mixture.schedule]
    if shares != sorted(set(shares)):
        yield f"{where}.mixture.schedule: shares of the training must rise, found {shares}"
    names = [source.name for source in corpus.sources if not source.reference]
    for weights in (phase.mixture.weights, *(weights for _, weights in phase.mixture.schedule)):
        for name in weights:
            if name not in names:
                yield f"{where}.mixture: the corpus has no source {name!r}{did_you_mean(name, names)}"
        if weights and (min(weights.values()) < 0 or not sum(weights.values()) > 0):
            yield f"{where}.mixture: weights are shares, none below 0 and one above; found {weights}"


def corpus_steps_fit(config: Config) -> Advice:
    """Steps are found and take their parameters."""
    from rlhf.corpus.steps import resolve_steps

    for phase in config.phases:
        if phase.kind == CORPUS:
            try:
                resolve_steps(phase.steps)
            except UserError as error:
                yield f"phases.{phase.name}.steps: {error}"


CORPUS_RULES = (sources_are_there, reserved_exists, steps_name_earlier_phases, mixture_fits_the_corpus)
