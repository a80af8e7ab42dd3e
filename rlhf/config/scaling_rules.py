"""Rules of the scaling section: there is a phase to scale, its grid can tell a law, and each point is another training."""

from __future__ import annotations

from rlhf.config.explain import did_you_mean
from rlhf.config.model_rules import Advice
from rlhf.config.roles import resolve_models
from rlhf.config.scaling import FEWEST
from rlhf.config.schema import Config


def scaling_fits(config: Config) -> Advice:
    """Asked of every config; one without the section breaks no rule."""
    if config.scaling is None:
        return
    broken = list(_phase_is_there(config))
    yield from broken
    yield from _grid_is_wide_enough(config)
    if not broken:
        yield from _starts_from_scratch(config)


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
    fitted = [size for size in scaling.sizes if size not in held_out]
    if len(fitted) < FEWEST:
        yield (
            f"scaling.sizes: {len(fitted)} of them are not held out, and a law needs at least {FEWEST}: add sizes, "
            "the smallest best 8 times smaller than the largest"
        )
    counts = len(set(scaling.tokens))
    if counts < FEWEST:
        yield f"scaling.tokens: different ones: {counts}; a law needs at least {FEWEST}: add some"


def _starts_from_scratch(config: Config) -> Advice:
    name = config.scaling.phase
    phase = next(each for each in config.phases if each.kind == "pretrain" and name in ("", each.name))
    if resolve_models(config, phase)["policy"].architecture is None:
        yield (
            f"scaling: the policy of phase {phase.name!r} starts from a path, so its size is given: name an architecture in "
            f"phases.{phase.name}.models.policy"
        )
