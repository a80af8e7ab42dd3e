"""The rules that no single field can state. Each yields advice, one line for each mistake; nothing has been spawned yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError
from rlhf.config.explain import did_you_mean
from rlhf.config.judge_rules import JUDGE_RULES
from rlhf.config.model_rules import FILE, MODEL_RULES, Advice
from rlhf.config.roles import DATA_SETS, PHASE, resolve_models, result_role, reward_parts, samples_answers
from rlhf.config.schema import Config, Data, Phase

if TYPE_CHECKING:  # it imports torch, and a mistake should be told at once
    from rlhf.interfaces import Algorithm


def check(
    config: Config, *, algorithm: Algorithm | None = None, reward_given: bool = False, rollout_given: bool = False
) -> None:
    """Raises UserError with one line for each rule that the config breaks.

    algorithm, reward_given, rollout_given: what `rlhf.run` was given by value instead of the config's.
    """
    advice = [line for rule in CONFIG_RULES for line in rule(config)]
    for phase in config.phases:
        models = {role: model for role, model in resolve_models(config, phase).items() if _certain(phase, role)}
        advice += [line for rule in PHASE_RULES for line in rule(config, phase)]
        advice += [line for rule in MODEL_RULES for line in rule(config, phase, models)]
    if not reward_given:
        advice += [line for phase in config.phases for line in reward_is_there(phase)]
    if not rollout_given:
        advice += [line for phase in config.phases for line in environment_is_there(phase)]
    if not advice:  # these import torch and the user's modules: where a cheaper rule is broken, it answers at once
        advice = [
            *algorithms_fit(config, algorithm),
            *reward_losses_fit(config),
            *functions_are_there(config, reward_given, rollout_given),
        ]
    if advice:
        raise UserError("\n".join(advice))


def names_are_unique(config: Config) -> Advice:
    names = [phase.name for phase in config.phases]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        places = ", ".join(f"phases[{index}]" for index, other in enumerate(names) if other == name)
        yield f"{places} have the same name {name!r}: artifacts are kept by name; give each its own name"


def rollouts_have_devices(config: Config) -> Advice:
    users = [phase.name for phase in config.phases if samples_answers(phase)]
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
    own = getattr(phase, "sampling", None)
    sampled = {f"phases.{phase.name}.sampling": own} if own else {}
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
    elif phase.kind in DATA_SETS and phase.answers is not None:
        yield f"phases.{phase.name}.answers: the phase trains nothing; check the answers of the phase that learns from it"


def best_of_n_has_a_choice(config: Config, phase: Phase) -> Advice:
    if phase.kind == "best_of_n" and phase.keep >= phase.sampling.samples and phase.at_least is None:
        yield (
            f"phases.{phase.name}.keep is {phase.keep} of {phase.sampling.samples} samples, so nothing is rejected: raise "
            f"phases.{phase.name}.sampling.samples, or set at_least"
        )


def goals_name_a_bound(config: Config, phase: Phase) -> Advice:
    for figure, goal in phase.goals.items():
        if goal.at_least is None and goal.at_most is None:
            yield f"phases.{phase.name}.goals.{figure}: give at_least or at_most"


def data_exists(config: Config, phase: Phase) -> Advice:
    sets = {
        "data": phase.data,
        "eval_data": getattr(phase, "eval_data", None),
        "answers.data": phase.answers and phase.answers.data,
        "ptx.data": (ptx := getattr(phase, "ptx", None)) and ptx.data,
    }
    for name, data in sets.items():
        for path in _paths(data) if data else ():
            if path.startswith(PHASE):
                yield from _leaves_a_data_set(config, phase, name, path.removeprefix(PHASE))
            elif FILE.match(path) and not Path(path).exists():
                yield f"phases.{phase.name}.{name}.path: there is no {path}; relative paths start at {Path.cwd()}"


def _leaves_a_data_set(config: Config, phase: Phase, name: str, source: str) -> Advice:
    names = [other.name for other in config.phases]
    earlier = names[: names.index(phase.name)]
    where = f"phases.{phase.name}.{name}.path"
    if source not in earlier:
        yield f"{where}: no phase {source!r} runs before {phase.name!r}{did_you_mean(source, earlier)}"
    elif result_role(config.phases[names.index(source)]) is not None:
        yield f"{where}: phase {source!r} leaves a model and no data set; name a phase of kind {' or '.join(DATA_SETS)}"


def reward_is_there(phase: Phase) -> Advice:
    if phase.kind in ("rl", "best_of_n") and not phase.reward:
        yield f"phases.{phase.name}.reward: nothing to learn from; name `model` (a reward model) or module:function"


def rewards_fit(config: Config, phase: Phase) -> Advice:
    for part in reward_parts(phase):
        where = f"phases.{phase.name}.reward: source {part.source}"
        if part.models and part.source != "model":
            yield f"{where} uses no models; name them in a part of source model, or remove `models`"
        if part.std_penalty and len(part.models) < 2:
            yield f"{where}: std_penalty is for an ensemble; name at least 2 models, or remove it"
        for path in dict.fromkeys(path for path in part.models if part.models.count(path) > 1):
            yield f"{where} lists {path} {part.models.count(path)} times: an ensemble's members differ; list it once"


def environment_is_there(phase: Phase) -> Advice:
    sources = [part.source for part in getattr(phase, "reward", ())]
    if "environment" in sources and getattr(phase, "rollout", None) is None:
        yield (
            f"phases.{phase.name}.reward: source `environment` is the score that a rollout gives, but there is none: set "
            f"phases.{phase.name}.rollout=module:attribute (kind rl)"
        )


def algorithms_fit(config: Config, given: Algorithm | None) -> Advice:
    """Algorithms and losses take their parameters, and the models that they need can be had."""
    from rlhf.algorithms import resolve
    from rlhf.needs import needed_models
    from rlhf.objectives import Reinforce, resolve_loss
    from rlhf.objectives.preference import PairLoss

    for phase in config.phases:
        if phase.kind not in UNCERTAIN:
            continue
        try:
            models = needed_models(config, phase, given)
        except UserError as error:
            yield f"phases.{phase.name}.{'algorithm' if phase.kind == 'rl' else 'loss'}: {error}"
            continue
        if phase.kind == "rl":
            algorithm = given or resolve(phase.algorithm.name, phase.algorithm.parameters)
            yield from _enough_samples(phase, algorithm)
            if phase.critic_warmup and "values" not in algorithm.needs:
                yield f"phases.{phase.name}.critic_warmup: {type(algorithm).__name__} has no critic; set it to 0"
            elif phase.critic_warmup >= phase.steps:
                yield f"phases.{phase.name}.critic_warmup leaves the policy no step of {phase.steps}: lower it or raise steps"
            if phase.max_kl and isinstance(algorithm.objectives()["policy"], Reinforce | PairLoss):
                yield f"phases.{phase.name}.max_kl: {type(algorithm).__name__} has no ratio whose drift it could bound; remove it"
        elif phase.precompute_reference and "reference" not in models:
            yield f"phases.{phase.name}.precompute_reference: loss {phase.loss.name} needs no reference; remove it"
        elif "kl_baseline" in resolve_loss(phase.loss.name, phase.loss.parameters).columns:
            if phase.precompute_reference:
                yield f"phases.{phase.name}.precompute_reference: kto asks the reference in every step; remove it"
            if phase.batch_size < 2:
                yield f"phases.{phase.name}.batch_size: kto compares rows of a batch with each other; set at least 2"
        models = {role: model for role, model in models.items() if not _certain(phase, role)}
        for rule in MODEL_RULES:
            yield from rule(config, phase, models)


def reward_losses_fit(config: Config) -> Advice:
    """Losses of reward models take their parameters, and the data's options go with them."""
    from rlhf.objectives import resolve_reward_loss

    for phase in config.phases:
        if phase.kind != "reward":
            continue
        try:
            rows = getattr(resolve_reward_loss(phase.loss.name, phase.loss.parameters), "rows", "preference")
        except UserError as error:
            yield f"phases.{phase.name}.loss: {error}"
            continue
        if phase.attributes and rows in ("binary", "steps"):
            yield f"phases.{phase.name}.attributes: loss {phase.loss.name} reads no ratings; remove it"


def functions_are_there(config: Config, reward_given: bool, rollout_given: bool) -> Advice:
    """Rewards and rollouts are found, and are of the right kind."""
    from rlhf.rewards.compose import compose
    from rlhf.rollout import resolve_rollout

    for phase in config.phases:
        if not reward_given and getattr(phase, "reward", None):
            parts = partial(compose, phase.reward, combine=phase.combine)
            yield from _told(f"phases.{phase.name}.reward", parts)
        if watch := getattr(phase, "watch", None):
            yield from _told(f"phases.{phase.name}.watch.gold", lambda gold=watch.gold: compose(gold))
            wanted = [watch.format] if watch.format else []
            yield from _told(f"phases.{phase.name}.watch.format", lambda wanted=wanted: compose(wanted))
        if not rollout_given and (rollout := getattr(phase, "rollout", None)):
            yield from _told(f"phases.{phase.name}.rollout", lambda rollout=rollout: resolve_rollout(rollout))


def _told(where: str, build: Callable[[], object]) -> Advice:
    try:
        build()
    except UserError as error:
        yield f"{where}: {error}"


def _enough_samples(phase: Phase, algorithm: Algorithm) -> Advice:
    if phase.sampling.samples < algorithm.samples_per_prompt:
        yield (
            f"phases.{phase.name}.sampling.samples is {phase.sampling.samples}, but {type(algorithm).__name__} compares "
            f"samples of one prompt: set at least {algorithm.samples_per_prompt}"
        )


def _certain(phase: Phase, role: str) -> bool:
    """Whether the phase uses the role whatever its algorithm or loss needs."""
    return phase.kind not in UNCERTAIN or role not in ("reference", "critic")


def _paths(data: Data) -> list[str]:
    return [data.path] if isinstance(data.path, str) else data.path


UNCERTAIN = ("rl", "dpo")  # kinds whose algorithm or loss decides which models are built
CONFIG_RULES = (names_are_unique, rollouts_have_devices)
PHASE_RULES = (
    answers_fit,
    training_samples_from_the_whole_distribution,
    reward_models_do_not_answer,
    best_of_n_has_a_choice,
    rewards_fit,
    goals_name_a_bound,
    data_exists,
    *JUDGE_RULES,
)
