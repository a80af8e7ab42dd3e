"""Prefix language modelling: a split that leaves something on either side, uniformly drawn."""

import numpy as np
import pytest
from denoising_cases import text, vocabulary
from scipy import stats

from data.denoising.corruption import PrefixSplit, split_at
from data.errors import UserError


def prefix_lengths(split: PrefixSplit, length: int, draws: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    tokens = text(length, 0)
    return np.array([split.corrupt(tokens, vocabulary(), rng).prefix_length for _ in range(draws)])


def test_a_split_by_hand():
    row = split_at(np.array([7, 8, 9, 4, 0], np.int32), 2)
    assert row.tokens.tolist() == [7, 8, 9, 4, 0]
    assert row.mask.tolist() == [False, False, True, True, True]
    assert (row.prefix_length, row.inputs) == (2, None)


def test_every_length_from_one_token_to_all_but_one_is_drawn_equally_often():
    lengths = prefix_lengths(PrefixSplit(), 11, 2000)
    assert set(lengths) == set(range(1, 11))
    assert stats.chisquare(np.bincount(lengths)[1:]).pvalue > 1e-4


def test_the_shares_bound_the_length():
    lengths = prefix_lengths(PrefixSplit(0.25, 0.75), 20, 500)
    assert (lengths.min(), lengths.max()) == (5, 15)
    assert set(prefix_lengths(PrefixSplit(0.5, 0.5), 20, 20)) == {10}


@pytest.mark.parametrize("shares", [(0.0, 1.0), (0.0, 0.0), (1.0, 1.0)])
def test_a_text_of_two_tokens_has_one_on_either_side(shares):
    assert set(prefix_lengths(PrefixSplit(*shares), 2, 20)) == {1}


def test_a_row_is_its_text():
    tokens = text(30, 1)
    row = PrefixSplit().corrupt(tokens, vocabulary(), np.random.default_rng(0))
    assert np.array_equal(row.tokens, tokens) and row.mask.dtype == bool
    assert row.mask.tolist() == [place >= row.prefix_length for place in range(30)]
    assert PrefixSplit().raw_length(30) == 30


@pytest.mark.parametrize("shares", [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.4), (float("nan"), 1.0)])
def test_shares_out_of_order_are_the_users_error(shares):
    with pytest.raises(UserError, match="least"):
        PrefixSplit(*shares)
