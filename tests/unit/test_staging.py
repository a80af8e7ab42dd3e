"""How a batch is split: which rows share a mini-batch and a shard."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.staging import split_rows

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_every_row_is_in_one_shard_and_one_minibatch(lengths, shards, minibatches, seed):
    split = split_rows(lengths, None, shards, minibatches, seed)
    rows = np.concatenate([part for shard in split for part in shard])
    assert sorted(rows) == list(range(len(lengths)))
    assert len(split) == shards and {len(shard) for shard in split} == {min(minibatches, len(lengths))}


@given(LENGTHS, st.integers(1, 5), st.integers(0, 3))
def test_a_minibatch_holds_the_same_rows_for_any_number_of_shards(lengths, minibatches, seed):
    def members(shards: int) -> list[list[int]]:
        split = split_rows(lengths, None, shards, minibatches, seed)
        return [sorted(np.concatenate(parts)) for parts in zip(*split)]

    assert members(1) == members(2) == members(6)


@given(LENGTHS, st.integers(1, 5))
def test_minibatches_are_equal_or_one_row_apart_and_none_is_empty(lengths, minibatches):
    sizes = [len(part) for part in split_rows(lengths, None, 1, minibatches, seed=0)[0]]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_rows_of_a_group_stay_together_and_in_order(groups, shards, minibatches):
    split = split_rows([3] * len(groups), groups, shards, minibatches, seed=1)
    parts = [part for shard in split for part in shard]
    for group in set(groups):
        rows = [row for row, other in enumerate(groups) if other == group]
        homes = [part.tolist() for part in parts if set(rows) & set(part.tolist())]
        assert len(homes) == 1
        first = homes[0].index(rows[0])
        assert homes[0][first : first + len(rows)] == rows


def test_another_seed_deals_rows_to_other_minibatches():
    deal = [tuple(split_rows([1] * 32, None, 1, 2, seed)[0][0]) for seed in (0, 0, 1)]
    assert deal[0] == deal[1] != deal[2]
