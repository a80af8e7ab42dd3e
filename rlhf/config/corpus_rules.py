"""Rules about corpora: their sources, their steps, and the mixtures that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from data.errors import UserError
from rlhf.config.data import Data
from rlhf.config.explain import did_you_mean
from rlhf.config.model_rules import FILE, Advice
from rlhf.config.roles import CORPUS, PHASE, corpora_of
from rlhf.config.schema import Config, Corpus, Phase, Pretrain


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
        if "." in name:
            yield f"phases.{phase.name}.reserved: {name!r}: names with a dot are those of the run's own data; give it another"
        for path in [data.path] if isinstance(data.path, str) else data.path:
            if FILE.match(path) and not Path(path).exists():
                yield f"phases.{phase.name}.reserved.{name}: there is no {path}; relative paths start at {Path.cwd()}"


def steps_name_what_is_there(config: Config, phase: Phase) -> Advice:
    if phase.kind != CORPUS:
        return
    names = [other.name for other in config.phases]
    earlier, sources = names[: names.index(phase.name)], [source.name for source in phase.sources]
    for step in phase.steps:
        for name in step.parameters.get("sources", ()):
            if name not in sources:
                yield f"phases.{phase.name}.steps.{step.name}.sources: there is no source {name!r}{did_you_mean(name, sources)}"
        for parameter, value in step.parameters.items():
            if isinstance(value, str) and value.startswith(PHASE) and value.removeprefix(PHASE) not in earlier:
                name = value.removeprefix(PHASE)
                yield (
                    f"phases.{phase.name}.steps.{step.name}.{parameter}: no phase {name!r} runs before {phase.name!r}"
                    f"{did_you_mean(name, earlier)}"
                )


def tokenizer_can_be_had(config: Config, phase: Phase) -> Advice:
    settings = phase.tokenizer if phase.kind == CORPUS else None
    if settings is None or settings.path is None:
        return
    where, names = f"phases.{phase.name}.tokenizer", [other.name for other in config.phases]
    others = settings.given - {"path", "sample_mb"}
    if others:
        yield f"{where}: path loads a tokenizer, so {', '.join(sorted(others))} would do nothing; remove path or the others"
    if settings.path.startswith(PHASE):
        earlier = names[: names.index(phase.name)]
        source = settings.path.removeprefix(PHASE)
        if source not in earlier:
            yield f"{where}.path: no phase {source!r} runs before {phase.name!r}"
        elif (other := config.phases[names.index(source)]).kind == CORPUS and other.tokenizer is None:
            yield f"{where}.path: phases.{source}.tokenizer is null, so there is none to load; set its vocab_size or path"
    elif FILE.match(settings.path) and not Path(settings.path).is_dir():
        yield f"{where}.path: there is no directory {settings.path}; relative paths start at {Path.cwd()}"


def mixture_fits_the_corpus(config: Config, phase: Phase) -> Advice:
    if phase.kind != "pretrain":
        return
    corpora, where = corpora_of(config, phase), f"phases.{phase.name}"
    if not corpora:
        if phase.mixture.given:
            yield f"{where}.mixture: it mixes the sources of a corpus; set {where}.data to phase:<name> of a corpus phase"
        return
    if phase.max_length < 3:
        yield f"{where}.max_length is {phase.max_length}: windows of a corpus have at least 3 tokens; raise it"
    if phase.data.mix and phase.mixture.schedule:
        yield f"{where}.mixture.schedule: it follows a training on one corpus alone; in a mix, give weights"
    for setting, corpus in corpora.items():
        yield from _trains_on(phase, f"{where}.{setting}", phase.data.sets("data")[setting], corpus)
    if len(corpora) > 1 and phase.mixture.weights:
        names = " and ".join(corpus.name for corpus in corpora.values())
        yield f"{where}.mixture.weights: of which corpus, {names}? give weights to their sources, where they are defined"
    else:
        for corpus in corpora.values():
            yield from _mixture_fits(phase, corpus)
    yield from _one_tokenizer(config, where, {corpus.name for corpus in corpora.values() if corpus.tokenizer})


def _trains_on(phase: Pretrain, where: str, data: Data, corpus: Corpus) -> Advice:
    if data.holdout and not corpus.holdout:
        yield f"{where}.holdout: the corpus set no document aside; set phases.{corpus.name}.holdout to a share of them"
    if phase.tokenizer is not None:
        yield (
            f"phases.{phase.name}.tokenizer: the corpus {corpus.name!r} is tokenised already; set it there "
            f"(phases.{corpus.name}.tokenizer)"
        )
    if corpus.tokenizer is None:
        yield f"{where}: phases.{corpus.name}.tokenizer is null, so there are no tokens to train on; set its vocab_size or path"
    ignored = data.given & {"split", "columns", "args", "limit", "templates", "rows"}
    if ignored:
        yield f"{where}: a corpus has no rows to choose, so {', '.join(sorted(ignored))} would do nothing; remove them"


def _one_tokenizer(config: Config, where: str, names: Set[str]) -> Advice:
    """Corpora that are mixed are tokenised alike."""
    corpora = [phase for phase in config.phases if phase.kind == CORPUS and phase.name in names]
    for other in corpora[1:]:
        if _tokenizer_origin(config, other) != _tokenizer_origin(config, corpora[0]):
            yield (
                f"{where}.data.mix: the corpora {corpora[0].name!r} and {other.name!r} have tokenizers of their own, and one model "
                f"reads both; set phases.{other.name}.tokenizer.path=phase:{corpora[0].name}"
            )


def _tokenizer_origin(config: Config, corpus: Corpus) -> str:
    """The corpus that trains the tokenizer, or the model or directory that it comes from."""
    path = corpus.tokenizer.path
    if path is None:
        return PHASE + corpus.name
    if not path.startswith(PHASE):
        return str(Path(path).expanduser().resolve())
    names = [other.name for other in config.phases]
    earlier = config.phases[: names.index(corpus.name)]
    made = [other for other in earlier if other.kind == CORPUS and PHASE + other.name == path and other.tokenizer]
    return _tokenizer_origin(config, made[0]) if made else path


def _mixture_fits(phase: Pretrain, corpus: Corpus) -> Advice:
    where = f"phases.{phase.name}"
    if phase.mixture.weights and phase.mixture.schedule:
        yield f"{where}.mixture: weights and a schedule of weights; keep one of them"
    shares = [share for share, _ in phase.mixture.schedule]
    if shares != sorted(set(shares)):
        yield f"{where}.mixture.schedule: shares of the training must rise, found {shares}"
    names = [source.name for source in corpus.sources if not source.reference]
    own = {
        source.name: source.weight for source in corpus.sources if source.weight is not None and source.name in names
    }
    points = [weights for _, weights in phase.mixture.schedule] or [phase.mixture.weights or own]
    for weights in points:
        yield from weights_fit(f"{where}.mixture", weights, names)


def weights_fit(where: str, weights: Mapping[str, float], names: Sequence[str]) -> Advice:
    for name in weights:
        if name not in names:
            yield f"{where}: the corpus has no source {name!r}{did_you_mean(name, names)}"
    total, others = sum(weights.values()), [name for name in names if name not in weights]
    if weights and (min(weights.values()) < 0 or (not total > 0 and not others)):
        yield f"{where}: weights are shares, none below 0 and one above; found {dict(weights)}"
    elif weights and others and total > 1 - 1e-9:
        yield (
            f"{where}: weights of {total:g} in all leave nothing for {', '.join(others)}: lower them, or give these a weight, too "
            "(0 leaves one out)"
        )


def corpus_steps_fit(config: Config) -> Advice:
    """Steps are found and take their parameters, and a tokenizer can be trained as it is asked for."""
    for phase in config.phases:
        if phase.kind != CORPUS:
            continue
        # with the libraries of all steps, which other phases do without
        from data.tokenizer_training import all_special
        from rlhf.corpus.cleaning_steps import resolve_steps

        try:
            resolve_steps(phase.steps)
        except UserError as error:
            yield f"phases.{phase.name}.steps: {error}"
        settings = phase.tokenizer
        if settings is not None and settings.path is None:
            try:
                all_special(settings.vocab_size, settings.kind, settings.special_tokens)
            except UserError as error:
                yield f"phases.{phase.name}.{error}"


CORPUS_RULES = (
    sources_are_there,
    reserved_exists,
    steps_name_what_is_there,
    tokenizer_can_be_had,
    mixture_fits_the_corpus,
)
