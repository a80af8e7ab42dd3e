"""Micro-batches: every row once, units whole, the budget kept; packed rows hold each document from position 0."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.batch import Batch
from rlhf.engine.inputs import ending, pack_documents, predicting
from rlhf.engine.microbatch import padded_tokens, split

units_of_lengths = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), max_size=30)


@given(units_of_lengths, st.integers(120, 400), st.booleans())
def test_units_stay_whole_and_in_order_and_no_micro_batch_is_over_the_budget(unit_lengths, budget, packing):
    lengths = [length for unit in unit_lengths for length in unit]
    rows = iter(range(len(lengths)))
    units = [[next(rows) for _ in unit] for unit in unit_lengths]
    microbatches = split(lengths, units, budget, packing)
    assert sorted(row for rows in microbatches for row in rows) == list(range(len(lengths)))
    for rows in microbatches:
        assert padded_tokens([lengths[row] for row in rows], packing) <= budget
        joined = ",".join(map(str, ["", *rows, ""]))
        assert all(("," + ",".join(map(str, unit)) + ",") in joined for unit in units if unit[0] in rows)


def test_rows_of_like_length_fill_micro_batches_without_padding():
    lengths = [4, 8, 4, 8, 4, 4]
    assert split(lengths, [[row] for row in range(6)], 16) == [[1, 3], [0, 2, 4, 5]]


def test_a_unit_over_the_budget_is_an_error():
    with pytest.raises(ValueError, match=r"rows of \[9, 8\] tokens must share a micro-batch of 16"):
        split([9, 8], [[0, 1]], 16)


def test_no_rows_make_no_micro_batches():
    assert split([], [], 8) == []


def test_documents_are_packed_with_their_own_positions_and_padding_is_no_document():
    batch = Batch.from_rows([[1, 2, 3, 4, 5], [6, 7], [8, 9]], [[False] * 5, [False] * 2, [False] * 2])
    packed = pack_documents(batch.tokens, batch.lengths)
    assert packed.tokens.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]
    assert packed.starts.tolist() == [0, 5, 7]
    assert ending(batch, packed).tolist() == [4, 6, 8]


def test_without_packing_each_document_has_a_row():
    batch = Batch.from_rows([[1, 2, 3], [6]], [[False] * 3, [False]])
    packed = pack_documents(batch.tokens, batch.lengths, packing=False)
    assert packed.tokens.tolist() == [[1, 2, 3], [6, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2]] * 2


def test_an_action_token_is_predicted_by_the_state_before_it():
    batch = Batch.from_rows([[1, 2, 3, 4], [5, 6], [7, 8]], [[False, True, False, True], [False, True], [False, True]])
    packed = pack_documents(batch.tokens, batch.lengths)
    before = packed.tokens.flatten()[predicting(batch, packed)]
    assert before.tolist() == [1, 3, 5, 7]


def test_an_empty_micro_batch_is_one_token_that_nothing_reads():
    batch = Batch.from_rows([[1]], [[False]]).select([])
    packed = pack_documents(batch.tokens, batch.lengths)
    assert packed.tokens.shape == packed.positions.shape == (1, 1)
    assert predicting(batch, packed).shape == ending(batch, packed).shape == torch.Size([0])
