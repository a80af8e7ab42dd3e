"""Rules about rewards, the judge and the watch: rewards can score, the judge is asked, the watch can stop the run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from rlhf.config.resolved import Resolved, ResolvedPhase
from rlhf.config.rewards import Piecewise, Reward
from rlhf.judge.questions import ALLOWED, NEEDED, fields

if TYPE_CHECKING:
    from rlhf.rewards.compose import Part

URL = re.compile(r"^https?://[^/\s]+")


def reward_is_there(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    if resolved.reward is None and "reward" in phase.kind.given and not phase.settings.reward:
        yield f"{phase.where}.reward: nothing to learn from; name `model` (a reward model) or module:function"


def rewards_fit(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    for part in phase.rewards:
        where = f"{phase.where}.reward: source {part.source}"
        if part.models and part.source != "model":
            yield f"{where} uses no models; name them in a part of source model, or remove `models`"
        if part.std_penalty and len(part.models) < 2:
            yield f"{where}: std_penalty is for an ensemble; name at least 2 models, or remove it"
        for path in dict.fromkeys(path for path in part.models if part.models.count(path) > 1):
            yield f"{where} lists {path} {part.models.count(path)} times: an ensemble's members differ; list it once"


def environment_is_there(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    if resolved.rollout_given or getattr(phase.settings, "rollout", None) is not None:
        return
    for name, rewards in phase.listed_rewards.items():
        if any(reward.source == "environment" for reward in rewards):
            yield (
                f"{phase.where}.{name}: source `environment` is the score that a rollout gives, but there is none: set "
                f"{phase.where}.rollout=module:attribute (kind rl)"
            )


def judge_is_somewhere(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    judge, where = getattr(phase.settings, "judge", None), f"{phase.where}.judge"
    if judge is None:
        return
    if judge.model is None and judge.url is None:
        yield f"{where}: no model and no url; name a model to serve (phase:<name> or a directory), or a server's url"
    elif judge.model is not None and judge.url is not None:
        yield f"{where}: both a model and a url; a judge is either served by this run or elsewhere: remove one"
    elif judge.url is not None and not URL.match(judge.url):
        yield f"{where}.url: {judge.url!r} is no http address; wanted one such as http://127.0.0.1:8000/v1"


def judge_template_asks_what_it_must(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    judge, where = getattr(phase.settings, "judge", None), f"{phase.where}.judge.template"
    if judge is None or judge.template is None:
        return
    found, needed = fields(judge.template), NEEDED[judge.kind]
    for name in sorted(needed - found):
        yield f"{where}: a {judge.kind} judge needs {{{name}}} in it"
    for name in sorted(found - needed - ALLOWED[judge.kind]):
        known = ", ".join(f"{{{each}}}" for each in sorted(needed | ALLOWED[judge.kind]))
        yield f"{where}: {{{name}}} is no field of a {judge.kind} judge; those are {known}"
    if "principle" in found and not judge.principles:
        yield f"{where}: it names a {{principle}}, but judge.principles is empty; list some"
    if judge.principles and "principle" not in found:
        yield f"{where}: judge.principles are never asked about; put {{principle}} into it"


def judge_is_asked(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A reward of source `judge` needs a judge; a pairwise judge needs samples to compare."""
    asked = any(part.source == "judge" for part in phase.rewards)
    judge = getattr(phase.settings, "judge", None)
    if asked and judge is None:
        yield f"{phase.where}.reward: source `judge`, but there is no judge; set {phase.where}.judge.model or .url"
    elif asked and judge.kind == "pairwise" and phase.settings.sampling.samples < 2:
        yield (
            f"{phase.where}.sampling.samples is 1, but a pairwise judge compares samples of one prompt: set at least 2, "
            f"or {phase.where}.judge.kind=pointwise"
        )
    elif judge is not None and not asked and phase.kind.name != "label":
        yield f"{phase.where}.judge: nobody asks it; list `judge` in {phase.where}.reward, or remove it"


def watch_can_stop(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """A watch that is to stop the run looks often enough to see the gold reward turn down (`rlhf.watch.turned_down`)."""
    settings, watch = phase.settings, phase.settings.watch
    if watch is None or not watch.stop or not watch.gold:
        return
    where, patience = f"{phase.where}.watch.stop", watch.patience
    if settings.prompts_per_step < 2:
        yield (
            f"{where}: gold of one prompt has no standard error, so it would never stop: set "
            f"{phase.where}.prompts_per_step to at least 2, or {where}=false"
        )
    looks = sum(watch.due(step, settings.steps) for step in range(1, settings.steps + 1))
    if looks < 2 * patience:
        yield (
            f"{where}: patience {patience} needs {2 * patience} looks, but {settings.steps} steps with a look every "
            f"{watch.every} have {looks}, so it would never stop: lower every or patience, raise steps, or set {where}=false"
        )


def rewards_can_score(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    """Rewards are found, are of the right kind, and can be sent to processes of their own."""
    for name, rewards in phase.listed_rewards.items():
        given = resolved.reward if name == "reward" else None
        combine = phase.settings.combine if name == "reward" and given is None else None
        yield from _can_score(phase, name, rewards, given, combine)


def _can_score(
    phase: ResolvedPhase, name: str, rewards: Sequence[Reward], given: Any, combine: Piecewise | None
) -> Iterator[str]:
    """given: by value, instead of the rewards."""
    # they import torch or start processes, which reading a config does not
    from rlhf.rewards.compose import compose
    from rlhf.rewards.workers import Call, pickled

    try:
        parts = compose(rewards, given, combine)
        for part in parts:
            if isinstance(part.source, Call):
                pickled(part.name, part.source)
    except UserError as error:
        yield f"{phase.where}.{name}: {error}"
        return
    if combine:
        yield from _guard_fits(f"{phase.where}.combine.guard: {combine.guard!r}", parts, combine.guard)


def _guard_fits(where: str, parts: Sequence[Part], guard: str) -> Iterator[str]:
    """The guard has a weight, and so has another part."""
    weighty = [part.name for part in parts if part.weight != 0]
    if guard not in weighty:
        yield f"{where} has weight 0, so that what it guards against is worth 0, whatever it scores; give it a weight"
    if not set(weighty) - {guard}:
        yield (
            f"{where} is the only part with a weight, so that every answer that passes it is worth 0; give another part a "
            "weight, or remove combine"
        )


def rollout_is_there(resolved: Resolved, phase: ResolvedPhase) -> Iterator[str]:
    from rlhf.rollout import resolve_rollout  # which imports what renders dialogues

    rollout = getattr(phase.settings, "rollout", None)
    if rollout and not resolved.rollout_given:
        try:
            resolve_rollout(rollout)
        except UserError as error:
            yield f"{phase.where}.rollout: {error}"
