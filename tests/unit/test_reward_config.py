"""Mistakes in a config's rewards, told before anything is spawned."""

from __future__ import annotations

import bad_rewards
import pytest

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.schema import Config

RIGHT = "bad_rewards:right"


def mistakes(reward: list, given=None, **phase) -> str:
    rl = {
        "algorithm": "grpo",
        "sampling": {"samples": 2},
        "kind": "rl",
        "name": "ppo",
        "data": "bad_rewards:rows",
        "reward": reward,
        "models": {"policy": "gpt2"},
        **phase,
    }
    pools = {"train": {"devices": 1}, "rollout": {"devices": 1}}
    try:
        check(Config.model_validate({"pools": pools, "phases": [rl]}), reward=given)
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


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ((0, 1), "phases.ppo.combine.guard: 'safe' has weight 0, so that what it guards against is worth 0"),
        (
            (1, 0),
            "phases.ppo.combine.guard: 'safe' is the only part with a weight, so that every answer that passes it",
        ),
        ((1, 1), ""),
    ],
)
def test_the_guard_and_the_other_parts_must_weigh_something(weights, line):
    safe = {"source": RIGHT, "name": "safe", "weight": weights[0]}
    told = mistakes([safe, {"source": "length", "weight": weights[1]}], combine={"guard": "safe"})
    assert told.startswith(line) and bool(told) == bool(line)


def test_what_no_other_process_can_be_sent_is_told_at_once():
    why = "runs in a process of its own and cannot be sent there: "
    line = f"phases.ppo.reward: reward 'HOLDS_A_LOCK' {why}"
    assert mistakes(["bad_rewards:HOLDS_A_LOCK"]).startswith(line)
    line = f"phases.ppo.watch.gold: reward 'HOLDS_A_LOCK' {why}"
    watch = {"gold": ["bad_rewards:HOLDS_A_LOCK"], "stop": False}
    assert mistakes([RIGHT], watch=watch).startswith(line)
    assert mistakes([], bad_rewards.HOLDS_A_LOCK).startswith(f"phases.ppo.reward: reward 'Times' {why}")
    assert mistakes([], bad_rewards.Times).startswith("phases.ppo.reward: reward 'Times' is a class; give an object")
    assert mistakes([], bad_rewards.right) == ""


def test_a_pairwise_judge_has_nothing_to_compare_a_greedy_baseline_with():
    judge = {"url": "http://127.0.0.1:8000/v1"}
    line = "set phases.ppo.judge.kind=pointwise"
    assert mistakes(["judge"], judge=judge, algorithm="remax").endswith(line)
    assert mistakes(["judge"], judge=judge, algorithm="grpo") == ""
    assert mistakes(["judge"], judge=judge | {"kind": "pointwise"}, algorithm="remax") == ""
    assert mistakes(["judge"], bad_rewards.right, judge=judge, algorithm="remax") == ""


def test_gold_of_the_environment_needs_a_rollout_too():
    watch = {"gold": ["environment"], "stop": False}
    line = "phases.ppo.watch.gold: source `environment` is the score that a rollout gives, but there is none"
    assert mistakes([RIGHT], watch=watch).startswith(line)
    assert mistakes([RIGHT], watch=watch, rollout="examples.guess:Guess") == ""
