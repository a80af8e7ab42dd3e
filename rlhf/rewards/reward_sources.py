"""Resolves a reward's `source`: reward models, the judge, the environment, a rule, or the user's function or class."""

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

MODEL = "model"  # reward models score
JUDGE = "judge"  # the phase's judge scores
ENVIRONMENT = "environment"
NAMES = (MODEL, JUDGE, ENVIRONMENT, *RULES)

Rule = Callable[[Sequence[Sample]], list[float]]  # runs in the driver, without a worker process
Source = str | Rule | Call  # str: MODEL or JUDGE


def find(reward: Reward) -> Source:
    """The source that the reward names. `args` are the fields of a class, of which an object is made, or further
    keyword arguments of a function.

    Raises UserError where the name is unknown, the object cannot score, or `args` do not fit.
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


def call_of(source: Any, name: str) -> Call:
    """A Call of the object that `rlhf.run` was given in place of the config's rewards. Raises UserError where it cannot
    score."""
    if isinstance(source, type):
        raise UserError(f"reward {name!r} is a class; give an object of it")
    return Call(can_score(source, name, {}))


def environment_scores(samples: Sequence[Sample]) -> list[float]:
    """The scores that the rollout's environment gave, NaN for samples without a score. Raises UserError where no sample
    has one."""
    if samples and all(sample.score is None for sample in samples):
        raise UserError("no rollout environment gave a score: set phases.<name>.rollout, and let it return one")
    return [math.nan if sample.score is None else sample.score for sample in samples]


def each(rule: Callable[[Sample], float]) -> Rule:
    return lambda samples: [rule(sample) for sample in samples]


def can_score(target: Any, name: str, args: Mapping[str, Any]) -> Any:
    """Returns the target. Raises UserError where it cannot score, or does not take `args`."""
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
