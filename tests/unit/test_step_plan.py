"""The row numbers of each step: every row once and in order, in batches that grow over a budget of tokens."""

import pytest

from data.errors import UserError
from rlhf.config.schema import Pretrain
from rlhf.phases.step_plan import StepPlan

PLANS = [StepPlan(8, 8), StepPlan(64, 8, 1000), StepPlan(30, 4, 77), StepPlan(5, 5, 40), StepPlan(7, 2, 1)]


def phase(**settings):
    return Pretrain.model_validate(
        {"kind": "pretrain", "data": "x.txt", "batch_size": 32, "max_length": 64, **settings}
    )


@pytest.mark.parametrize("plan", PLANS)
def test_steps_take_every_row_once_and_in_order(plan):
    taken = [row for step in range(60) for row in plan.numbers(step)]
    assert taken == list(range(len(taken)))


@pytest.mark.parametrize("plan", PLANS)
def test_batches_never_shrink_and_end_at_the_full_size(plan):
    sizes = [plan.size(step) for step in range(200)]
    assert sizes == sorted(sizes) and sizes[0] in (plan.first_size, plan.batch_size) and sizes[-1] == plan.batch_size


def test_a_ramp_by_hand():
    """From 2 rows to 8 over 24 rows: 2 + 6 * rows / 24 rows, in twos."""
    plan = StepPlan(8, 2, 24)
    assert [plan.size(step) for step in range(9)] == [2, 2, 2, 2, 4, 4, 6, 6, 8]
    assert plan.before(8) == 28  # the first step past the budget is full


def test_the_budget_is_counted_in_tokens_of_full_rows():
    plan = StepPlan.of(phase(ramp={"batch_size": 4, "tokens": 64 * 100}), 10_000)
    assert plan == StepPlan(32, 4, 100)
    full = next(step for step in range(100) if plan.size(step) == 32)
    assert plan.before(full - 1) < 100 <= plan.before(full)


def test_without_a_ramp_all_steps_have_the_same_size():
    assert [StepPlan.of(phase(), 100).numbers(step) for step in (0, 3)] == [range(0, 32), range(96, 128)]


@pytest.mark.parametrize("plan", PLANS)
def test_rows_make_complete_steps(plan):
    for rows in range(300):
        steps = plan.steps(rows)
        assert plan.before(steps) <= rows < plan.before(steps + 1)


def test_skipped_rows_shift_all_later_ones():
    assert StepPlan(8, 8).numbers(5, skipped=24) == range(64, 72)


def test_fewer_rows_than_a_step_takes_are_refused():
    with pytest.raises(
        UserError, match=r"a step takes 32 rows, but the data has 31 to train on: lower phases.pretrain.batch_size"
    ):
        StepPlan.of(phase(), 31)
