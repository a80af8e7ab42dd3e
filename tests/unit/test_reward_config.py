"""Mistakes in a config's rewards, told before anything is spawned."""

from __future__ import annotations

import pytest

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.schema import Config

RIGHT = "bad_rewards:right"


def mistakes(reward: list, **phase) -> str:
    rl = {
        "kind": "rl",
        "name": "ppo",
        "data": "bad_rewards:rows",
        "reward": reward,
        "models": {"policy": "gpt2"},
        **phase,
    }
    pools = {"train": {"devices": 1}, "rollout": {"devices": 1}}
    try:
        check(
            Config.model_validate({"pools": pools, "phases": [rl | {"algorithm": "grpo", "sampling": {"samples": 2}}]})
        )
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "reward",
    [
        [RIGHT],
        ["length", {"source": "regex", "args": {"pattern": "x"}}],
        [{"source": "bad_rewards:Times", "args": {"factor": 2}}],
        [{"models": ["org/a", "org/b"], "std_penalty": 1.0}],
    ],
)
def test_rewards_that_fit_are_let_through(reward):
    assert mistakes(reward) == ""


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        (
            [{"source": RIGHT, "models": ["org/a"]}],
            f"source {RIGHT} uses no models; name them in a part of source model",
        ),
        ([{"models": ["org/a"], "std_penalty": 1.0}], "std_penalty is for an ensemble; name at least 2 models"),
        ([{"models": ["org/a", "org/a"]}], "source model lists org/a 2 times: an ensemble's members differ"),
        (
            [{"source": "bad_rewards:Times", "args": {"fctor": 2}}],
            "unexpected keyword argument 'fctor'; it takes (factor=1)",
        ),
        (
            [{"source": "length", "args": {"unit": "lines"}}],
            "phases.ppo.reward: reward 'length': unit: Input should be",
        ),
        ([RIGHT, RIGHT], "phases.ppo.reward: 2 parts are named 'right'; give each a `name` of its own"),
        (["brevity"], "phases.ppo.reward: there is no reward 'brevity'; built in are model, judge, environment"),
    ],
)
def test_rewards_that_do_not_fit_are_told(reward, line):
    assert line in mistakes(reward)


def test_the_guard_must_be_a_part():
    line = "phases.ppo.reward: combine.guard: no reward is named 'safe'; there are right, length"
    assert mistakes([RIGHT, "length"], combine={"guard": "safe"}) == line
    assert mistakes([{"source": RIGHT, "name": "safe"}, "length"], combine={"guard": "safe"}) == ""


def test_gold_rewards_of_the_watch_are_checked_too():
    line = "phases.ppo.watch.gold: reward 'regex': pattern: Field required"
    assert line in mistakes([RIGHT], watch={"gold": ["regex"]})
