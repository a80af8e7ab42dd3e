"""Rules of the scaling section: there is a phase to scale, its grid can tell a law, and each point is another training."""

from __future__ import annotations

from rlhf.config.explain import did_you_mean
from rlhf.config.model_rules import Advice
from rlhf.config.roles import corpora_of, resolve_models
from rlhf.config.scaling import FEWEST, NARROWEST, steps_for
from rlhf.config.schema import Config, Pretrain


def scaling_fits(config: Config) -> Advice:
    """Asked of every config; one without the section breaks no rule."""
    if config.scaling is None:
        return
    broken = list(_phase_is_there(config))
    yield from broken
    yield from _grid_is_wide_enough(config)
    if not broken:
        yield from _tokens_are_far_apart(config)
        yield from _starts_from_scratch(config)
        yield from _something_is_held_out(config)


def scaled_phase(config: Config) -> Pretrain:
    """The phase that the grid is made of, where there is one."""
    pretraining = [phase for phase in config.phases if phase.kind == "pretrain"]
    return next(phase for phase in pretraining if config.scaling.phase in ("", phase.name))


def _phase_is_there(config: Config) -> Advice:
    pretraining = [phase.name for phase in config.phases if phase.kind == "pretrain"]
    wanted = config.scaling.phase
    if wanted and wanted not in pretraining:
        yield f"scaling.phase: there is no pretrain phase {wanted!r}{did_you_mean(wanted, pretraining)}"
    elif not pretraining:
        yield "scaling: there is no phase of kind pretrain, whose model it could make smaller and larger"
    elif not wanted and len(pretraining) > 1:
        yield f"scaling.phase: which one? Name one of {', '.join(pretraining)}"


def _grid_is_wide_enough(config: Config) -> Advice:
    scaling = config.scaling
    held_out = {training.size for training in scaling.held_out}
    for size in sorted(held_out - scaling.sizes.keys()):
        yield f"scaling.held_out: there is no size {size!r}{did_you_mean(size, scaling.sizes)}"
    trainings = [(training.size, training.tokens) for training in scaling.held_out]
    for size, tokens in dict.fromkeys(training for training in trainings if trainings.count(training) > 1):
        yield f"scaling.held_out: {size} on {tokens} tokens is there {trainings.count((size, tokens))} times; name each training once"
    if scaling.held_out_error is not None and not trainings:
        yield "scaling.held_out_error: no training is held out whose loss it could bound; set scaling.held_out, or remove it"
    fitted = [size for size in scaling.sizes if size not in held_out]
    if len(fitted) < FEWEST:
        yield (
            f"scaling.sizes: {len(fitted)} of them are not held out, and a law needs at least {FEWEST}: add sizes, "
            "the smallest best 8 times smaller than the largest"
        )
    counts = len(set(scaling.tokens))
    if counts < FEWEST:
        yield f"scaling.tokens: different ones: {counts}; a law needs at least {FEWEST}: add some"


def _tokens_are_far_apart(config: Config) -> Advice:
    """By the steps that they come to, which the fit sees."""
    scaling, phase = config.scaling, scaled_phase(config)
    counts, held_out = sorted(set(scaling.tokens)), {training.size for training in scaling.held_out}
    fitted = [size for name, size in scaling.sizes.items() if name not in held_out]
    trained = set()
    for batch_size in sorted({size.batch_size or phase.batch_size for size in fitted}):
        row_tokens = batch_size * phase.max_length
        steps = [steps_for(tokens, batch_size, phase.max_length) for tokens in counts]
        trained |= {count * row_tokens for count in steps}
        for place in range(1, len(counts)):
            if steps[place] == steps[place - 1]:
                yield (
                    f"scaling.tokens: {counts[place - 1]} and {counts[place]} both come to {steps[place]} "
                    f"step{'s' if steps[place] > 1 else ''} of {row_tokens} tokens: spread them, or lower the batch_size"
                )
    if len(counts) < FEWEST or not trained:
        return
    factor = round(max(trained) / min(trained), 1)
    if factor < NARROWEST:
        yield (
            f"scaling.tokens: in whole steps they lie within a factor of {factor:g}, too near to each "
            f"other to tell an exponent: spread them over a factor of {NARROWEST:g} at least, better 8"
        )


def _something_is_held_out(config: Config) -> Advice:
    phase = scaled_phase(config)
    parts = phase.data.sets("data").values()
    corpora = corpora_of(config, phase).values()
    if phase.eval_data or any(part.holdout for part in parts) or any(corpus.holdout for corpus in corpora):
        return
    if corpora:
        change = f"phases.{next(iter(corpora)).name}.holdout"
    elif phase.data.mix:
        change = f"phases.{phase.name}.data.mix.{next(iter(phase.data.mix))}.holdout"
    else:
        change = f"phases.{phase.name}.data.holdout, or its eval_data"
    yield f"scaling: a law is fitted to held-out losses, and phase {phase.name!r} holds nothing out: set {change}"


def _starts_from_scratch(config: Config) -> Advice:
    phase = scaled_phase(config)
    if resolve_models(config, phase)["policy"].architecture is None:
        yield (
            f"scaling: the policy of phase {phase.name!r} starts from a path, so its size is given: name an architecture in "
            f"phases.{phase.name}.models.policy"
        )
