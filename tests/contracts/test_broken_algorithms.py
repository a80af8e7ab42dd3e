"""Algorithms of a user, good and broken: each mistake is called by its name."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch
from broken import expect_broken
from torch import Tensor

import rlhf
from data.batch import Batch
from rlhf.algorithms import resolve
from rlhf.interfaces import Algorithm
from rlhf.objectives import ClippedPolicy, ClippedValue
from rlhf.ops import masked
from rlhf.testing import check


@dataclass(frozen=True)
class Centred(Algorithm):
    """Right; those below each spoil one thing in it."""

    needs = frozenset({"old_logprobs"})

    def baseline(self, batch: Batch) -> Tensor:
        rewards = batch.rewards.clone()
        for rows in batch.groups():
            rewards[rows] -= rewards[rows].mean()
        return rewards

    def advantages(self, batch: Batch) -> Batch:
        return batch.with_columns(advantages=torch.where(batch.action_mask, self.baseline(batch)[:, None], 0))

    def objectives(self):
        return {"policy": ClippedPolicy()}


def test_a_good_algorithm_of_the_users_own_gets_a_report_with_a_line_for_each_rule():
    report = rlhf.testing.check(Centred)
    assert str(report).startswith("Centred\nok ")
    assert len(str(report).splitlines()) == 1 + len(report.verdicts)
    assert "skipped" not in str(report)


def test_a_check_takes_less_than_three_seconds_of_processor_time():
    start = time.process_time()
    check(resolve("ppo", {}))
    assert time.process_time() - start < 3


@dataclass(frozen=True)
class ChangesRewards(Centred):
    def baseline(self, batch):
        for rows in batch.groups():
            batch.rewards[rows] -= batch.rewards[rows].mean()
        return batch.rewards


@dataclass(frozen=True)
class Undeclared(Centred):
    def baseline(self, batch):
        return super().baseline(batch) - masked.mean(batch.values, batch.action_mask, dim=1)


@dataclass(frozen=True)
class DividesByWidth(Centred):
    def baseline(self, batch):
        return super().baseline(batch) / batch.width


@dataclass(frozen=True)
class GroupsByPlace(Centred):
    def baseline(self, batch):
        pairs = batch.rewards.view(-1, 2) if len(batch) % 2 == 0 else batch.rewards.view(-1, 1)
        return (pairs - pairs.mean(1, keepdim=True)).flatten()


@dataclass(frozen=True)
class NanTimesMask(Centred):
    def baseline(self, batch):
        return super().baseline(batch) - (batch.old_logprobs * batch.action_mask).sum(1)


@dataclass(frozen=True)
class BareDeviation(Centred):
    def baseline(self, batch):
        rewards = super().baseline(batch)
        for rows in batch.groups():
            rewards[rows] /= rewards[rows].std(unbiased=False)
        return rewards


@dataclass(frozen=True)
class WrongDtype(Centred):
    def advantages(self, batch):
        advantages = super().advantages(batch).advantages.double()
        return Batch({**batch.columns, "advantages": advantages}, batch.meta)


@dataclass(frozen=True)
class OneValueARow(Centred):
    def advantages(self, batch):
        return Batch({**batch.columns, "advantages": self.baseline(batch)}, batch.meta)


@dataclass(frozen=True)
class NewRewards(Centred):
    def advantages(self, batch):
        return super().advantages(batch).with_columns(rewards=self.baseline(batch))


@dataclass(frozen=True)
class DrawsNoise(Centred):
    def baseline(self, batch):
        return super().baseline(batch) + torch.randn(len(batch))


@dataclass(frozen=True)
class ForgetsItsState(Centred):
    scale: float = 1.0

    def after_step(self, metrics):
        return ForgetsItsState(self.scale * 0.9)


@dataclass
class NotFrozen(Algorithm):
    def advantages(self, batch):
        return Centred().advantages(batch)

    def objectives(self):
        return {"policy": ClippedPolicy()}


@dataclass(frozen=True)
class NoSuchNeed(Centred):
    needs = frozenset({"old_logprobs", "logits"})


@dataclass(frozen=True)
class NoReturns(Centred):
    needs = frozenset({"old_logprobs", "values"})

    def objectives(self):
        return {"policy": ClippedPolicy(), "critic": ClippedValue()}


@dataclass(frozen=True)
class KeepsIndices(Centred):
    def keep(self, batch):
        return torch.arange(len(batch))


BROKEN_ALGORITHMS = {
    ChangesRewards: ("advantages leaves its batch as it was", "changes rewards of its input in place"),
    Undeclared: ("it reads what it declares and no more", "reads values.* add it to `needs`"),
    DividesByWidth: ("padding on the right does not change the advantages", "never over the width"),
    GroupsByPlace: ("the order of rows does not change the advantages", r"batch\.groups\(\)"),
    NanTimesMask: ("nothing outside the mask reaches the advantages", "torch.where"),
    BareDeviation: ("equal rewards and lone rows give finite advantages", "guard the division"),
    WrongDtype: ("its columns have their shapes and are finite", "advantages is torch.float64"),
    OneValueARow: ("its columns have their shapes and are finite", r"wanted torch.float32 of \(12, "),
    NewRewards: ("advantages adds columns or selects rows and changes none", "replaces rewards"),
    DrawsNoise: ("advantages says the same twice", "random numbers"),
    ForgetsItsState: ("its state survives a checkpoint", r"state\(\)"),
    NotFrozen: ("it declares its needs and objectives", "frozen=True"),
    NoSuchNeed: ("it declares its needs and objectives", "logits"),
    NoReturns: ("it declares a known output unit and columns", "returns, which neither"),
    KeepsIndices: ("keep gives one bool a row", "int64"),
}


@pytest.mark.parametrize("broken", BROKEN_ALGORITHMS, ids=lambda kind: kind.__name__)
def test_the_rule_that_an_algorithm_breaks_is_named(broken):
    rule, advice = BROKEN_ALGORITHMS[broken]
    expect_broken(broken(), rule, advice)
