"""What a reward's `source` names: reward models, the judge, the environment, a rule, or the user's function or class."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.errors import UserError
from data.imports import load_object
from data.sample import Sample
from rlhf.config.rewards import Reward
from rlhf.named import build
from rlhf.rewards.rules import RULES, WITHOUT_LIMITS
from rlhf.rewards.workers import Call

MODEL = "model"  # scores come from reward models
JUDGE = "judge"  # and from the phase's judge
ENVIRONMENT = "environment"
NAMES = (MODEL, JUDGE, ENVIRONMENT, *RULES)

Rule = Callable[[Sequence[Sample]], list[float]]  # one that needs no process of its own
Source = str | Rule | Call  # MODEL or JUDGE, or what scores


def find(reward: Reward) -> Source:
    """What scores in the reward's name. A class is made into an object with `args` as its fields; `args` are a function's further
    keyword arguments.

    Raises UserError where nothing of the name is there, it cannot score, or `args` do not fit.
    """
    name = reward.source
    if name in (MODEL, JUDGE, ENVIRONMENT):
        if reward.args:
            raise UserError(f"source {name!r} takes no args, got {', '.join(reward.args)}")
        return environment_scores if name == ENVIRONMENT else name
    if name not in RULES and ":" not in name:
        raise UserError(f"there is no reward {name!r}; built in are {', '.join(NAMES)}, your own is module:attribute")
    path = RULES.get(name, name)
    target = load_object(path)
    if isinstance(target, type) and dataclasses.is_dataclass(target):
        target, args = build("reward", name, reward.args, RULES), {}
    else:
        args = reward.args
    target = can_score(target, name, args)
    return each(target) if path in WITHOUT_LIMITS else Call(target, args, reward.limits)


def given(source: Any, name: str) -> Call:
    """What `rlhf.run` was given instead of the config's rewards. Raises UserError where it cannot score."""
    if isinstance(source, type):
        raise UserError(f"reward {name!r} is a class; give an object of it")
    return Call(can_score(source, name, {}))


def environment_scores(samples: Sequence[Sample]) -> list[float]:
    """The scores that the samples bring from their rollout, NaN where one has none. Raises UserError where no sample has one."""
    if samples and all(sample.score is None for sample in samples):
        raise UserError("no rollout environment gave a score: set phases.<name>.rollout, and let it return one")
    return [math.nan if sample.score is None else sample.score for sample in samples]


def each(rule: Callable[[Sample], float]) -> Rule:
    return lambda samples: [rule(sample) for sample in samples]


def can_score(target: Any, name: str, args: Mapping[str, Any]) -> Any:
    """The target, which fits its arguments. Raises UserError where it scores nothing."""
    if isinstance(target, type):
        scores = hasattr(target, "score") or any("__call__" in vars(base) for base in target.__mro__)
    else:
        scores = callable(target) or hasattr(target, "score")
    if not scores:
        raise UserError(
            f"reward {name!r} is {target!r}; wanted a function of one sample, or an object (or its class) with score(samples)"
        )
    try:
        signature = inspect.signature(
            target if isinstance(target, type) or not hasattr(target, "score") else target.score
        )
    except (TypeError, ValueError):  # some built-in functions have none
        return target
    try:
        signature.bind(*([] if isinstance(target, type) else ["sample"]), **args)
    except TypeError as error:
        raise UserError(f"reward {name!r}: {error}; it takes {signature}") from error
    return target
