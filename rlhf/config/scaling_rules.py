"""Rules about the scaling section: there is a phase to scale, and a law can be fitted to its grid."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.config.explain import did_you_mean
from rlhf.config.resolved import Resolved
from rlhf.config.scaling import FEWEST, NARROWEST, steps_for


def scaling_fits(resolved: Resolved) -> Iterator[str]:
    """A config without the section breaks no rule."""
    if resolved.config.scaling is None:
        return
    broken = list(_phase_is_there(resolved))
    yield from broken
    yield from _grid_is_wide_enough(resolved)
    if not broken:
        yield from _tokens_are_far_apart(resolved)
        yield from _starts_from_scratch(resolved)
        yield from _something_is_held_out(resolved)


def _phase_is_there(resolved: Resolved) -> Iterator[str]:
    pretraining = [phase.name for phase in resolved.phases if phase.kind.name == "pretrain"]
    wanted = resolved.config.scaling.phase
    if wanted and wanted not in pretraining:
        yield f"scaling.phase: there is no pretrain phase {wanted!r}{did_you_mean(wanted, pretraining)}"
    elif not pretraining:
        yield "scaling: there is no phase of kind pretrain, whose model it could make smaller and larger"
    elif not wanted and len(pretraining) > 1:
        yield f"scaling.phase: which one? Name one of {', '.join(pretraining)}"


def _grid_is_wide_enough(resolved: Resolved) -> Iterator[str]:
    scaling = resolved.config.scaling
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


def _tokens_are_far_apart(resolved: Resolved) -> Iterator[str]:
    """Compares the tokens after they are rounded to whole steps, as the fit sees them."""
    scaling, phase = resolved.config.scaling, resolved.scaled.settings
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


def _something_is_held_out(resolved: Resolved) -> Iterator[str]:
    phase = resolved.scaled
    data, corpora = phase.settings.data, phase.corpora.values()
    if "eval_data" in phase.data or any(each.holdout for each in (*data.sets("data").values(), *corpora)):
        return
    if corpora:
        change = f"phases.{next(iter(corpora)).name}.holdout"
    elif data.mix:
        change = f"{phase.where}.data.mix.{next(iter(data.mix))}.holdout"
    else:
        change = f"{phase.where}.data.holdout, or its eval_data"
    yield f"scaling: a law is fitted to held-out losses, and phase {phase.name!r} holds nothing out: set {change}"


def _starts_from_scratch(resolved: Resolved) -> Iterator[str]:
    phase = resolved.scaled
    if phase.models["policy"].architecture is None:
        yield (
            f"scaling: the policy of phase {phase.name!r} starts from a path, so its size is given: name an architecture in "
            f"{phase.where}.models.policy"
        )
