"""Rules about corpora: their sources, their steps, their tokenizers, and the mixtures that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

from data.errors import UserError
from rlhf.config.data import Data
from rlhf.config.data_rules import FILE, weights_fit
from rlhf.config.explain import did_you_mean
from rlhf.config.kinds import CORPUS, PHASE
from rlhf.config.resolved import Resolved, ResolvedPhase
from rlhf.config.schema import Corpus, Pretrain


def sources_are_there(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    sources, where = phase.settings.sources, f"{phase.where}.sources"
    names = [source.name for source in sources]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"{where}: two are named {name!r}; give each its own name"
    for source in sources:
        for path in [source.path] if isinstance(source.path, str) else source.path:
            if (FILE.match(path) or ":" not in path) and not Path(path).expanduser().exists():
                yield f"{where}.{source.name}: there is no {path}; relative paths start at {Path.cwd()}"
    if all(source.reference for source in sources):
        yield f"{where}: all are references, so nothing would be written; set reference=false for one"


def reserved_exists(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    where = f"{phase.where}.reserved"
    for name, data in phase.settings.reserved.items():
        if "." in name:
            yield f"{where}: {name!r}: names with a dot are those of the run's own data; give it another"
        for path in [data.path] if isinstance(data.path, str) else data.path:
            if FILE.match(path) and not Path(path).exists():
                yield f"{where}.{name}: there is no {path}; relative paths start at {Path.cwd()}"


def steps_name_what_is_there(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    sources, earlier = [source.name for source in phase.settings.sources], [other.name for other in phase.earlier]
    for step in phase.settings.steps:
        where = f"{phase.where}.steps.{step.name}"
        for name in step.parameters.get("sources", ()):
            if name not in sources:
                yield f"{where}.sources: there is no source {name!r}{did_you_mean(name, sources)}"
        for parameter, value in step.parameters.items():
            if isinstance(value, str) and value.startswith(PHASE) and phase.parent(value) is None:
                name = value.removeprefix(PHASE)
                yield f"{where}.{parameter}: no phase {name!r} runs before {phase.name!r}{did_you_mean(name, earlier)}"


def tokenizer_can_be_had(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    settings, where = phase.settings.tokenizer, f"{phase.where}.tokenizer"
    if settings is None or settings.path is None:
        return
    others = settings.given - {"path", "sample_mb"}
    if others:
        yield f"{where}: path loads a tokenizer, so {', '.join(sorted(others))} would do nothing; remove path or the others"
    if settings.path.startswith(PHASE):
        name, source = settings.path.removeprefix(PHASE), phase.parent(settings.path)
        if source is None:
            yield f"{where}.path: no phase {name!r} runs before {phase.name!r}"
        elif source.kind.name == CORPUS and source.settings.tokenizer is None:
            yield f"{where}.path: phases.{name}.tokenizer is null, so there is none to load; set its vocab_size or path"
    elif FILE.match(settings.path) and not Path(settings.path).is_dir():
        yield f"{where}.path: there is no directory {settings.path}; relative paths start at {Path.cwd()}"


def mixture_fits_the_corpus(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    settings, corpora, where = phase.settings, phase.corpora, phase.where
    if not corpora:
        if settings.mixture.given:
            yield f"{where}.mixture: it mixes the sources of a corpus; set {where}.data to phase:<name> of a corpus phase"
        return
    if settings.max_length < 3:
        yield f"{where}.max_length is {settings.max_length}: windows of a corpus have at least 3 tokens; raise it"
    if settings.data.mix and settings.mixture.schedule:
        yield f"{where}.mixture.schedule: it follows a training on one corpus alone; in a mix, give weights"
    for setting, corpus in corpora.items():
        yield from _trains_on(settings, f"{where}.{setting}", phase.data_sets[setting], corpus)
    if len(corpora) > 1 and settings.mixture.weights:
        names = " and ".join(corpus.name for corpus in corpora.values())
        yield f"{where}.mixture.weights: of which corpus, {names}? give weights to their sources, where they are defined"
    else:
        for corpus in corpora.values():
            yield from _mixture_fits(settings, corpus)
    yield from _one_tokenizer(resolved, where, {corpus.name for corpus in corpora.values() if corpus.tokenizer})


def _trains_on(phase: Pretrain, where: str, data: Data, corpus: Corpus) -> Iterator[str]:
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


def _one_tokenizer(resolved: Resolved, where: str, names: Set[str]) -> Iterator[str]:
    """Corpora that are mixed are tokenised alike."""
    corpora = [phase for phase in resolved.phases if phase.kind.name == CORPUS and phase.name in names]
    for other in corpora[1:]:
        if _tokenizer_origin(other) != _tokenizer_origin(corpora[0]):
            yield (
                f"{where}.data.mix: the corpora {corpora[0].name!r} and {other.name!r} have tokenizers of their own, and one model "
                f"reads both; set phases.{other.name}.tokenizer.path=phase:{corpora[0].name}"
            )


def _tokenizer_origin(corpus: ResolvedPhase) -> str:
    """`phase:<name>` of the corpus that trains the tokenizer, else the model or directory that it comes from."""
    path = corpus.settings.tokenizer.path
    if path is None:
        return PHASE + corpus.name
    if not path.startswith(PHASE):
        return str(Path(path).expanduser().resolve())
    parent = corpus.parent(path)
    made = parent is not None and parent.kind.name == CORPUS and parent.settings.tokenizer is not None
    return _tokenizer_origin(parent) if made else path


def _mixture_fits(phase: Pretrain, corpus: Corpus) -> Iterator[str]:
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


def corpus_steps_fit(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """Steps are found and take their parameters; a tokenizer that is trained has room for its special tokens."""
    # with the libraries of all steps, which other phases do without
    from data.tokenizer_training import all_special
    from rlhf.corpus.cleaning_steps import resolve_steps

    try:
        resolve_steps(phase.settings.steps)
    except UserError as error:
        yield f"{phase.where}.steps: {error}"
    settings = phase.settings.tokenizer
    if settings is not None and settings.path is None:
        try:
            all_special(settings.vocab_size, settings.kind, settings.special_tokens)
        except UserError as error:
            yield f"{phase.where}.{error}"
