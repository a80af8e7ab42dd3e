"""Rules about phases as a whole: names, goals, sampled answers, and devices for the rollout engines."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.config.explain import did_you_mean
from rlhf.config.resolved import Resolved, ResolvedPhase


def names_are_unique(resolved: Resolved) -> Iterator[str]:
    names = [phase.name for phase in resolved.phases]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        places = ", ".join(f"phases[{index}]" for index, other in enumerate(names) if other == name)
        yield f"{places} have the same name {name!r}: artifacts are kept by name; give each its own name"


def rollouts_have_devices(resolved: Resolved) -> Iterator[str]:
    users = [phase.name for phase in resolved.phases if phase.samples_answers]
    if not users:
        return
    pools, settings = resolved.config.pools, resolved.config.rollout
    name = settings.pool
    if name not in pools:
        yield f"rollout.pool: phase {users[0]} samples answers, but there is no pool {name!r}{did_you_mean(name, pools)}"
        return
    needed, devices = settings.engines * settings.tensor_parallel, pools[name].devices
    if devices < needed:
        yield (
            f"pools.{name}.devices is {devices}, but rollout needs {needed} (engines {settings.engines} x tensor_parallel "
            f"{settings.tensor_parallel}): set pools.{name}.devices={needed} or lower rollout.engines"
        )


def goals_name_a_bound(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for figure, goal in phase.settings.goals.items():
        if goal.at_least is None and goal.at_most is None:
            yield f"{phase.where}.goals.{figure}: give at_least or at_most"


def answers_fit(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """Prompt and answer share max_length."""
    settings = phase.settings
    sampled = {"sampling": settings.sampling} if hasattr(settings, "sampling") else {}
    if settings.answers is not None:
        sampled["answers.sampling"] = settings.answers.sampling
    for where, sampling in sampled.items():
        if sampling.max_new_tokens >= settings.max_length:
            yield (
                f"{phase.where}.{where}.max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in "
                f"{phase.where}.max_length {settings.max_length}: lower the one or raise the other"
            )


def only_policies_answer(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    if phase.settings.answers is None:
        return
    if phase.kind.result == "reward":
        yield f"{phase.where}.answers: a reward model scores answers and writes none; remove it"
    elif phase.kind.leaves_rows:
        yield f"{phase.where}.answers: the phase trains nothing; check the answers of the phase that learns from it"


def sampling_is_not_cut_by_top_p(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    if phase.settings.sampling.top_p < 1:
        yield (
            f"{phase.where}.sampling.top_p is {phase.settings.sampling.top_p}: the trainer cannot see how it changes the "
            "probabilities; leave it at 1 and lower the temperature instead"
        )


def best_of_n_has_a_choice(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    settings = phase.settings
    if settings.keep >= settings.sampling.samples and settings.at_least is None:
        yield (
            f"{phase.where}.keep is {settings.keep} of {settings.sampling.samples} samples, so nothing is rejected: raise "
            f"{phase.where}.sampling.samples, or set at_least"
        )
