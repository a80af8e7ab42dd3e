"""What every algorithm promises about `keep`, `advantages` and its state. A rule's name is its sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import torch
from torch import Tensor

from data.batch import BASE, COLUMNS, Batch
from rlhf.testing.cases import AlgorithmCase, expect_declared
from rlhf.testing.problems import copied, other_order, poisoned, replaced, widened
from rlhf.testing.report import Broken

NEEDS = ("old_logprobs", "ref_logprobs", "values", "greedy_rewards")
GIVEN = BASE | {"rewards", "truncated", "policy_version", "rollout_logprobs"}  # by every rollout
ROLES = ("policy", "critic")
CLOSE = 1e-4  # of a column's largest value: the columns are float32


def it_declares_its_needs_and_objectives(case: AlgorithmCase) -> None:
    algorithm = case.algorithm
    if not dataclasses.is_dataclass(algorithm) or not algorithm.__dataclass_params__.frozen:
        raise Broken(
            "it is no frozen dataclass, so its parameters have no place in a config; add @dataclass(frozen=True)"
        )
    unknown = sorted(set(algorithm.needs) - set(NEEDS))
    if unknown or not isinstance(algorithm.needs, frozenset):
        raise Broken(f"its `needs` are {algorithm.needs!r}; give a frozenset of names out of {', '.join(NEEDS)}")
    roles = algorithm.objectives().keys()
    if "policy" not in roles or roles - set(ROLES):
        raise Broken(
            f"its objectives are for {', '.join(roles) or 'nobody'}; give one for policy, and for critic if any"
        )


def it_reads_what_it_declares_and_no_more(case: AlgorithmCase) -> None:
    told = "keep or advantages reads {}, which nobody computes unless it is named: add it to `needs`"
    expect_declared(case.train, case.batch, case.full, NEEDS, told)


def keep_gives_one_bool_a_row(case: AlgorithmCase) -> None:
    kept = case.algorithm.keep(copied(case.batch))
    if kept.dtype != torch.bool or kept.shape != (len(case.batch),):
        raise Broken(
            f"keep gives {kept.dtype} of shape {tuple(kept.shape)}; give a (B,) bool, True for rows to train on"
        )


def advantages_leaves_its_batch_as_it_was(case: AlgorithmCase) -> None:
    mine = copied(case.batch)
    case.run(mine)
    for name, value in case.batch.columns.items():
        if name not in mine or not torch.equal(mine.columns[name], value):
            raise Broken(f"it changes {name} of its input in place; work on a copy: batch.{name}.clone()")
    if mine.columns.keys() != case.batch.columns.keys():
        raise Broken("it adds a column to its input; return batch.with_columns(...), which is a new batch")


def advantages_says_the_same_twice(case: AlgorithmCase) -> None:
    told = (
        "the same batch gives other {} the second time; keep no state between calls (after_step is the place), draw no "
    )
    _expect_same(case.train(case.batch), case.trained, case, told + "random numbers")


def advantages_adds_columns_or_selects_rows_and_changes_none(case: AlgorithmCase) -> None:
    result, origins = case.trained, _origins(case.trained, case.batch)
    if len(set(origins)) < len(origins):
        raise Broken("it trains on a row twice; select each row at most once")
    for name, before in case.batch.columns.items():
        if name in ("advantages", "returns"):
            continue
        if name not in result:
            raise Broken(f"its batch has lost {name}; build it with batch.with_columns(...) or batch.select(...)")
        wanted, found = before[origins], result.columns[name]
        wanted = wanted[:, : result.width] if wanted.ndim == 2 else wanted
        if not torch.equal(found, wanted):
            raise Broken(f"it replaces {name}, which others read; put what you compute into a column of another name")


def its_columns_have_their_shapes_and_are_finite(case: AlgorithmCase) -> None:
    result = case.trained
    for name, value in _added(result, case.batch).items():
        kind, dtype = COLUMNS.get(name, (None, value.dtype))
        shapes = {"row": [(len(result),)], "token": [tuple(result.tokens.shape)]}
        wanted = shapes.get(kind, shapes["row"] + shapes["token"])
        if tuple(value.shape) not in wanted or value.dtype != dtype:
            raise Broken(
                f"{name} is {value.dtype} of shape {tuple(value.shape)}; wanted {dtype} of {' or '.join(map(str, wanted))}; "
                "batch.with_columns(...) casts and checks"
            )
        _expect_finite(result, name, "an ordinary batch")


def nothing_outside_the_mask_reaches_the_advantages(case: AlgorithmCase) -> None:
    told = "NaN outside of action_mask changes {}; select with torch.where(mask, x, 0) or rlhf.ops.masked before any "
    _expect_same(case.train(poisoned(case.batch)), case.trained, case, told + "arithmetic, since NaN * 0 is NaN")


def padding_on_the_right_does_not_change_the_advantages(case: AlgorithmCase) -> None:
    told = "more padding columns change {}; reduce over action_mask, never over the width"
    _expect_same(case.train(widened(case.batch)), case.trained, case, told)


def the_order_of_rows_does_not_change_the_advantages(case: AlgorithmCase) -> None:
    moved = case.batch.select(other_order(case.batch, within_groups=True))
    told = "with the rows in another order, {} are others; find a prompt's rows with batch.groups(), not by their place"
    _expect_same(case.train(moved), case.trained, case, told)


def equal_rewards_and_lone_rows_give_finite_advantages(case: AlgorithmCase) -> None:
    first, second, *_ = (rows.tolist() for rows in case.batch.groups())
    rewards = case.batch.rewards.clone()
    rewards[first] = 1.0
    lone = [row for row in range(len(case.batch)) if row not in second[1:]]
    tries = {
        "a batch with a group of equal rewards and a group of one row": replaced(case.batch, rewards=rewards).select(
            lone
        ),
        "a batch whose rewards are all equal": replaced(case.batch, rewards=torch.ones_like(rewards)),
    }
    for what, batch in tries.items():
        result = case.train(batch)
        for name in _added(result, batch):
            _expect_finite(result, name, what)


def its_state_survives_a_checkpoint(case: AlgorithmCase) -> None:
    algorithm = case.algorithm
    if algorithm.with_state({}) != algorithm:
        raise Broken("with_state({}) is another algorithm; a fresh phase has no state, return self for an empty one")
    moved = algorithm.after_step(AnyMetric(kl=3.0, samples=64.0))
    state = json.loads(json.dumps(moved.state()))
    if algorithm.with_state(state) != moved:
        raise Broken(
            "after_step changes what state() and with_state() do not bring back; put each changed field into state() as a "
            "JSON value"
        )


class AnyMetric(dict):
    """Metrics of a step, whatever their name."""

    def __missing__(self, name: str) -> float:
        return 1.0


def _added(result: Batch, batch: Batch) -> dict[str, Tensor]:
    return {
        name: value for name, value in result.columns.items() if name not in batch or name in ("advantages", "returns")
    }


def _expect_finite(result: Batch, name: str, what: str) -> None:
    value = result.columns[name]
    inside = value[result.action_mask] if value.ndim == 2 else value
    if value.dtype.is_floating_point and not inside.isfinite().all():
        raise Broken(f"{name} is not finite on {what}; guard the division: a group's deviation may be 0 or undefined")


def _origins(result: Batch, batch: Batch) -> list[int]:
    """Which row of `batch` each row of the result is; the tokens of the kit's rows all differ."""
    known = {_key(batch, row): row for row in range(len(batch))}
    try:
        return [known[_key(result, row)] for row in range(len(result))]
    except KeyError:
        raise Broken("its batch has rows that were not in its input; add columns or select rows only") from None


def _key(batch: Batch, row: int) -> tuple[int, ...]:
    return tuple(batch.tokens[row, : int(batch.lengths[row])].tolist())


def _expect_same(found: Batch, wanted: Batch, case: AlgorithmCase, sentence: str) -> None:
    """Raises Broken with `sentence`, {} replaced by what differs: the rows, or a column on its action tokens."""
    origins, before = _origins(found, case.batch), _origins(wanted, case.batch)
    paired = case.algorithm.objectives()["policy"].unit == "pairs"  # the better row comes first
    if _grouped(found, origins, paired) != _grouped(wanted, before, paired):
        raise Broken(sentence.format("the rows that are trained on"))
    place = {row: index for index, row in enumerate(origins)}
    order = [place[row] for row in before]
    for name, value in _added(wanted, case.batch).items():
        if name not in found:
            raise Broken(sentence.format(name))
        other, value = _inside(found, name)(order), _inside(wanted, name)(range(len(order)))
        scale = max([1.0, *(float(row.abs().max()) for row in value if row.numel())])
        for one, two in zip(other, value):
            if not torch.allclose(one.double(), two.double(), rtol=0, atol=CLOSE * scale):
                raise Broken(sentence.format(name))


def _grouped(result: Batch, origins: list[int], ordered: bool) -> set[tuple[int, ...]]:
    """The groups as rows of the kit's batch."""
    groups = [[origins[row] for row in rows.tolist()] for rows in result.groups()]
    return {tuple(rows if ordered else sorted(rows)) for rows in groups}


def _inside(batch: Batch, name: str) -> Callable[..., list[Tensor]]:
    column = batch.columns[name]
    return lambda rows: [column[row][batch.action_mask[row]] if column.ndim == 2 else column[row, None] for row in rows]


FIRST = (
    it_declares_its_needs_and_objectives,
    it_reads_what_it_declares_and_no_more,
    keep_gives_one_bool_a_row,
    advantages_leaves_its_batch_as_it_was,
    advantages_adds_columns_or_selects_rows_and_changes_none,
    its_columns_have_their_shapes_and_are_finite,
    advantages_says_the_same_twice,
)
RULES = (
    nothing_outside_the_mask_reaches_the_advantages,
    padding_on_the_right_does_not_change_the_advantages,
    the_order_of_rows_does_not_change_the_advantages,
    equal_rewards_and_lone_rows_give_finite_advantages,
    its_state_survives_a_checkpoint,
)
