"""Layouts place every item once and keep to their limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.packing import balance, pack

lengths = st.lists(st.integers(1, 64), max_size=60)


@given(lengths, st.integers(1, 8))
def test_balance_covers_each_item_once_in_parts_of_about_equal_count(costs, parts):
    result = balance(costs, parts)
    assert sorted(item for part in result for item in part) == list(range(len(costs)))
    assert len(result) == parts
    assert all(part == sorted(part) for part in result)
    assert max(map(len, result)) <= -(-len(costs) // parts)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60), st.integers(1, 8))
def test_equal_costs_are_split_into_equal_counts(costs, parts):
    counts = [len(part) for part in balance([5] * len(costs), parts)]
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60), st.integers(1, 8))
def test_no_part_is_heavier_than_the_mean_by_more_than_one_item_where_counts_allow(costs, parts):
    costs = costs * parts  # divides, and equal costs exist for every part
    loads = [sum(costs[item] for item in part) for part in balance(costs, parts)]
    assert max(loads) - min(loads) <= max(costs)


@given(lengths, st.integers(64, 256))
def test_packing_covers_each_sequence_once_and_respects_the_row_length(items, row_tokens):
    rows = pack(items, row_tokens)
    assert sorted(item for row in rows for item in row) == list(range(len(items)))
    assert all(0 < sum(items[item] for item in row) <= row_tokens for row in rows)
    assert len(rows) <= 11 / 9 * -(-sum(items) // row_tokens) * 2 + 1


@given(lengths)
def test_no_two_packed_rows_would_fit_into_one(items):
    filled = sorted(sum(items[item] for item in row) for row in pack(items, 64))
    assert len(filled) < 2 or filled[0] + filled[1] > 64


def test_a_sequence_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="65 tokens does not fit a row of 64"):
        pack([3, 65], 64)
