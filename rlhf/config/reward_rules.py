"""Rules about rewards: whether there are any, whether each part can score, and whether the algorithm and the guard fit them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from rlhf.config.model_rules import Advice
from rlhf.config.rewards import Piecewise, Reward
from rlhf.config.roles import reward_parts
from rlhf.config.schema import Config, Phase

if TYPE_CHECKING:  # they import torch
    from rlhf.interfaces import Algorithm
    from rlhf.rewards.compose import Part


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
    if getattr(phase, "rollout", None) is not None:
        return
    for name, rewards in _listed(phase).items():
        if any(reward.source == "environment" for reward in rewards):
            yield (
                f"phases.{phase.name}.{name}: source `environment` is the score that a rollout gives, but there is none: set "
                f"phases.{phase.name}.rollout=module:attribute (kind rl)"
            )


def judge_scores_baselines(phase: Phase, algorithm: Algorithm) -> Advice:
    """A greedy answer is the only one of its prompt."""
    asked = any(part.source == "judge" for part in phase.reward)
    if asked and phase.judge.kind == "pairwise" and "greedy_rewards" in algorithm.needs:
        yield (
            f"phases.{phase.name}.judge.kind is pairwise, but {type(algorithm).__name__} has one greedy answer of each prompt "
            f"scored, which there is nothing to compare with: set phases.{phase.name}.judge.kind=pointwise"
        )


def rewards_can_score(phase: Phase, given: Any) -> Advice:
    """Rewards are found, are of the right kind, and can be sent to processes of their own. given: by value, in place of the
    phase's `reward`."""
    for name, rewards in _listed(phase).items():
        if name == "reward":
            yield from _scores(phase, name, rewards, given, None if given is not None else phase.combine)
        else:
            yield from _scores(phase, name, rewards)


def _scores(
    phase: Phase, name: str, rewards: Sequence[Reward], given: Any = None, combine: Piecewise | None = None
) -> Advice:
    from rlhf.rewards.compose import compose
    from rlhf.rewards.workers import Call, pickled

    try:
        parts = compose(rewards, given, combine)
        for part in parts:
            if isinstance(part.source, Call):
                pickled(part.name, part.source)
    except UserError as error:
        yield f"phases.{phase.name}.{name}: {error}"
        return
    if combine:
        yield from _guard_fits(f"phases.{phase.name}.combine.guard: {combine.guard!r}", parts, combine.guard)


def _guard_fits(where: str, parts: Sequence[Part], guard: str) -> Advice:
    """The guard and the others both weigh something."""
    weighty = [part.name for part in parts if part.weight != 0]
    if guard not in weighty:
        yield f"{where} has weight 0, so that what it guards against is worth 0, whatever it scores; give it a weight"
    if not set(weighty) - {guard}:
        yield (
            f"{where} is the only part with a weight, so that every answer that passes it is worth 0; give another part a "
            "weight, or remove combine"
        )


def _listed(phase: Phase) -> dict[str, Sequence[Reward]]:
    """{setting: the rewards that it lists}."""
    lists = {"reward": phase.reward} if hasattr(phase, "reward") else {}
    if watch := getattr(phase, "watch", None):
        lists |= {"watch.gold": watch.gold, "watch.format": [watch.format] if watch.format else []}
    return lists
