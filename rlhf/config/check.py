"""The rules that no single field can state. Each yields advice, one line for each mistake; nothing has been spawned yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from rlhf.config.corpus_rules import CORPUS_RULES, corpus_steps_fit
from rlhf.config.data_rules import DATA_RULES
from rlhf.config.explain import did_you_mean
from rlhf.config.judge_rules import JUDGE_RULES
from rlhf.config.model_rules import FILE, MODEL_RULES, Advice
from rlhf.config.objective_rules import feedback_is_for_decoders, text_objectives_fit
from rlhf.config.parallel_rules import PARALLEL_RULES
from rlhf.config.reward_rules import (
    environment_is_there,
    judge_scores_baselines,
    reward_is_there,
    rewards_can_score,
    rewards_fit,
)
from rlhf.config.roles import CORPUS, DATA_SETS, PHASE, data_sets, resolve_models, result_role, samples_answers
from rlhf.config.scaling_rules import scaling_fits
from rlhf.config.schema import Config, Phase
from rlhf.config.training_rules import TRAINING_RULES

if TYPE_CHECKING:  # it imports torch, and a mistake should be told at once
    from rlhf.interfaces import Algorithm


def check(
    config: Config, *, algorithm: Algorithm | None = None, reward: Any = None, rollout_given: bool = False
) -> None:
    """Raises UserError with one line for each rule that the config breaks.

    algorithm, reward, rollout_given: what `rlhf.run` was given by value instead of the config's.
    """
    advice = [line for rule in CONFIG_RULES for line in rule(config)]
    for phase in config.phases:
        advice += [line for rule in (goals_name_a_bound, *CORPUS_RULES) for line in rule(config, phase)]
    for phase in config.model_phases:
        models = {role: model for role, model in resolve_models(config, phase).items() if _certain(phase, role)}
        advice += [line for rule in PHASE_RULES for line in rule(config, phase)]
        advice += [
            line for rule in (*MODEL_RULES, *PARALLEL_RULES, *TRAINING_RULES) for line in rule(config, phase, models)
        ]
    if reward is None:
        advice += [line for phase in config.model_phases for line in reward_is_there(phase)]
    if not rollout_given:
        advice += [line for phase in config.model_phases for line in environment_is_there(phase)]
    if not advice:  # these import torch and the user's modules: where a cheaper rule is broken, it answers at once
        advice = [
            *corpus_steps_fit(config),
            *algorithms_fit(config, algorithm, reward),
            *reward_losses_fit(config),
            *text_objectives_fit(config),
            *feedback_is_for_decoders(config),
            *functions_are_there(config, reward, rollout_given),
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
    for name, data in data_sets(phase).items():
        for path in data.paths:
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
    elif config.phases[names.index(source)].kind == CORPUS:
        if phase.kind != "pretrain" or name.partition(".")[0] != "data":
            yield f"{where}: phase {source!r} leaves a corpus, which only the data of a pretrain phase can be; name files of rows"
    elif result_role(config.phases[names.index(source)]) is not None:
        yield f"{where}: phase {source!r} leaves a model and no data set; name a phase of kind {' or '.join(DATA_SETS)}"


def watch_can_stop(config: Config, phase: Phase) -> Advice:
    """A watch that is to stop the run has what it takes to see gold turn down (`rlhf.watch.turned_down`)."""
    watch = getattr(phase, "watch", None)
    if watch is None or not watch.stop or not watch.gold:
        return
    where, patience = f"phases.{phase.name}.watch.stop", watch.patience
    if phase.prompts_per_step < 2:
        yield (
            f"{where}: gold of one prompt has no standard error, so it would never stop: set "
            f"phases.{phase.name}.prompts_per_step to at least 2, or {where}=false"
        )
    looks = sum(watch.due(step, phase.steps) for step in range(1, phase.steps + 1))
    if looks < 2 * patience:
        yield (
            f"{where}: patience {patience} needs {2 * patience} looks, but {phase.steps} steps with a look every "
            f"{watch.every} have {looks}, so it would never stop: lower every or patience, raise steps, or set {where}=false"
        )


def algorithms_fit(config: Config, given: Algorithm | None, reward: Any) -> Advice:
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
            if reward is None:
                yield from judge_scores_baselines(phase, algorithm)
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
        for rule in (*MODEL_RULES, *PARALLEL_RULES, *TRAINING_RULES):
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


def functions_are_there(config: Config, reward: Any, rollout_given: bool) -> Advice:
    """Rewards and rollouts are found, and are of the right kind."""
    from rlhf.rollout import resolve_rollout

    for phase in config.model_phases:
        yield from rewards_can_score(phase, reward)
        if not rollout_given and (rollout := getattr(phase, "rollout", None)):
            try:
                resolve_rollout(rollout)
            except UserError as error:
                yield f"phases.{phase.name}.rollout: {error}"


def _enough_samples(phase: Phase, algorithm: Algorithm) -> Advice:
    if phase.sampling.samples < algorithm.samples_per_prompt:
        yield (
            f"phases.{phase.name}.sampling.samples is {phase.sampling.samples}, but {type(algorithm).__name__} compares "
            f"samples of one prompt: set at least {algorithm.samples_per_prompt}"
        )


def _certain(phase: Phase, role: str) -> bool:
    """Whether the phase uses the role whatever its algorithm or loss needs."""
    return phase.kind not in UNCERTAIN or role not in ("reference", "critic")


UNCERTAIN = ("rl", "dpo")  # kinds whose algorithm or loss decides which models are built
CONFIG_RULES = (names_are_unique, rollouts_have_devices, scaling_fits)
PHASE_RULES = (
    answers_fit,
    training_samples_from_the_whole_distribution,
    reward_models_do_not_answer,
    best_of_n_has_a_choice,
    rewards_fit,
    watch_can_stop,
    data_exists,
    *DATA_RULES,
    *JUDGE_RULES,
)
