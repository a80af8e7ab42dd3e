"""The order of units is a function of seed and step, and an epoch visits each unit at most once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from data.loader import Order

sizes = st.integers(1, 60).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))


@given(sizes, st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_visits_each_unit_at_most_once_in_full_batches(size, seed, epoch):
    order = Order(*size, seed)
    first = epoch * order.steps_per_epoch
    batches = [order.indices(step) for step in range(first, first + order.steps_per_epoch)]
    visited = [unit for batch in batches for unit in batch]
    assert {len(batch) for batch in batches} == {order.batch_size}
    assert len(set(visited)) == len(visited) > order.units - order.batch_size
    assert set(visited) <= set(range(order.units))


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_step_does_not_depend_on_those_before_it(seed, step):
    order = Order(37, 4, seed)
    for earlier in range(0, 60, 7):
        order.indices(earlier)
    assert order.indices(step) == Order(37, 4, seed).indices(step)


def test_epochs_and_seeds_differ():
    order = Order(50, 50, 0)
    assert order.indices(0) != order.indices(1) != Order(50, 50, 1).indices(1)


def test_fewer_units_than_a_batch_is_the_users_error():
    with pytest.raises(UserError, match="a step takes 32 rows, but the data has 20"):
        Order(20, 32, 0)
