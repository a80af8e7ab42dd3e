"""The rules that no single field can state. Each yields advice, one line for each mistake; nothing has been spawned yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError
from rlhf.config.explain import did_you_mean
from rlhf.config.model_rules import FILE, MODEL_RULES, Advice
from rlhf.config.roles import ROLE_OF_NEED, resolve_models
from rlhf.config.schema import Config, Data, Phase

if TYPE_CHECKING:  # it imports torch, and a mistake should be told at once
    from rlhf.interfaces import Algorithm


def check(config: Config, *, algorithm: Algorithm | None = None, reward_given: bool = False) -> None:
    """Raises UserError with one line for each rule that the config breaks.

    algorithm, reward_given: what `rlhf.run` was given by value instead of the config's.
    """
    advice = [line for rule in CONFIG_RULES for line in rule(config)]
    for phase in config.phases:
        models = {role: model for role, model in resolve_models(config, phase).items() if _certain(phase, role)}
        advice += [line for rule in PHASE_RULES for line in rule(config, phase)]
        advice += [line for rule in MODEL_RULES for line in rule(config, phase, models)]
    if not reward_given:
        advice += [line for phase in config.phases for line in reward_is_there(phase)]
    if not advice:  # the algorithms import torch: where a cheaper rule is broken, it answers at once
        advice = list(algorithms_fit(config, algorithm))
    if advice:
        raise UserError("\n".join(advice))


def names_are_unique(config: Config) -> Advice:
    names = [phase.name for phase in config.phases]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        places = ", ".join(f"phases[{index}]" for index, other in enumerate(names) if other == name)
        yield f"{places} have the same name {name!r}: artifacts are kept by name; give each its own name"


def rollouts_have_devices(config: Config) -> Advice:
    users = [phase.name for phase in config.phases if phase.kind == "rl" or phase.answers]
    if not users:
        return
    name, settings = config.rollout.pool, config.rollout
    if name not in config.pools:
        yield f"rollout.pool: phase {users[0]} samples answers, but there is no pool {name!r}{did_you_mean(name, config.pools)}"
        return
    needed, devices = settings.engines * settings.tensor_parallel, config.pools[name].devices
    if devices < needed:
        yield (
            f"pools.{name}.devices is {devices}, but rollout needs {needed} (engines {settings.engines} x tensor_parallel "
            f"{settings.tensor_parallel}): set pools.{name}.devices={needed} or lower rollout.engines"
        )


def answers_fit(config: Config, phase: Phase) -> Advice:
    sampled = {f"phases.{phase.name}.sampling": phase.sampling} if phase.kind == "rl" else {}
    if phase.answers is not None:
        sampled[f"phases.{phase.name}.answers.sampling"] = phase.answers.sampling
    for where, sampling in sampled.items():
        if sampling.max_new_tokens >= phase.max_length:
            yield (
                f"{where}.max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in "
                f"phases.{phase.name}.max_length {phase.max_length}: lower the one or raise the other"
            )


def training_samples_from_the_whole_distribution(config: Config, phase: Phase) -> Advice:
    if phase.kind == "rl" and phase.sampling.top_p < 1:
        yield (
            f"phases.{phase.name}.sampling.top_p is {phase.sampling.top_p}: the trainer cannot see how it changes the "
            "probabilities; leave it at 1 and lower the temperature instead"
        )


def reward_models_do_not_answer(config: Config, phase: Phase) -> Advice:
    if phase.kind == "reward" and phase.answers is not None:
        yield f"phases.{phase.name}.answers: a reward model scores answers and writes none; remove it"


def goals_name_a_bound(config: Config, phase: Phase) -> Advice:
    for figure, goal in phase.goals.items():
        if goal.at_least is None and goal.at_most is None:
            yield f"phases.{phase.name}.goals.{figure}: give at_least or at_most"


def data_exists(config: Config, phase: Phase) -> Advice:
    sets = {
        "data": phase.data,
        "eval_data": getattr(phase, "eval_data", None),
        "answers.data": phase.answers and phase.answers.data,
    }
    for name, data in sets.items():
        for path in _paths(data) if data else ():
            if FILE.match(path) and not Path(path).exists():
                yield f"phases.{phase.name}.{name}.path: there is no {path}; relative paths start at {Path.cwd()}"


def reward_is_there(phase: Phase) -> Advice:
    if phase.kind == "rl" and not phase.reward:
        yield f"phases.{phase.name}.reward: nothing to learn from; name `model` (a reward model) or module:function"


def algorithms_fit(config: Config, given: Algorithm | None) -> Advice:
    """The algorithm takes its parameters, and the models that it needs can be had."""
    from rlhf.algorithms import resolve

    for phase in config.phases:
        if phase.kind != "rl":
            continue
        try:
            algorithm = given or resolve(phase.algorithm.name, phase.algorithm.parameters)
        except UserError as error:
            yield f"phases.{phase.name}.algorithm: {error}"
            continue
        if phase.sampling.samples < algorithm.samples_per_prompt:
            yield (
                f"phases.{phase.name}.sampling.samples is {phase.sampling.samples}, but {type(algorithm).__name__} compares "
                f"samples of one prompt: set at least {algorithm.samples_per_prompt}"
            )
        roles = {role for need, role in ROLE_OF_NEED.items() if need in algorithm.needs}
        models = {role: model for role, model in resolve_models(config, phase).items() if role in roles}
        for rule in MODEL_RULES:
            yield from rule(config, phase, models)


def _certain(phase: Phase, role: str) -> bool:
    """Whether the phase uses the role whatever its algorithm needs."""
    return phase.kind != "rl" or role in ("policy", "reward")


def _paths(data: Data) -> list[str]:
    return [data.path] if isinstance(data.path, str) else data.path


CONFIG_RULES = (names_are_unique, rollouts_have_devices)
PHASE_RULES = (
    answers_fit,
    training_samples_from_the_whole_distribution,
    reward_models_do_not_answer,
    goals_name_a_bound,
    data_exists,
)
