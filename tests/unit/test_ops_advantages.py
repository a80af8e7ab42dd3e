import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.ops.advantages import (
    batch_normalised,
    discounted_returns,
    gae,
    group_centred,
    group_normalised,
    leave_one_out,
    length_weighted_centred,
    on_tokens,
    token_rewards,
)

NAN = math.nan


def test_token_rewards_by_hand():
    mask = torch.tensor([[False, True, True, False], [False, True, False, True], [False] * 4])
    penalties = torch.tensor([[NAN, 0.1, 0.2, NAN], [NAN, 0.1, NAN, 0.3], [NAN] * 4])
    rewards = token_rewards(torch.tensor([1.0, 2.0, 5.0]), penalties, mask)
    torch.testing.assert_close(rewards, torch.tensor([[0, -0.1, 0.8, 0], [0, -0.1, 0, 1.7], [0.0] * 4]))


def test_gae_by_hand():
    rewards, values = torch.tensor([[NAN, 0.0, 1.0, NAN]]), torch.tensor([[NAN, 0.5, 0.25, NAN]])
    mask = torch.tensor([[False, True, True, False]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.8)
    last = 1 - 0.25
    first = 0 + 0.5 * 0.25 - 0.5 + 0.5 * 0.8 * last
    torch.testing.assert_close(advantages, torch.tensor([[0, first, last, 0]]))
    torch.testing.assert_close(returns, torch.tensor([[0, first + 0.5, last + 0.25, 0]]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.booleans()), min_size=1, max_size=10),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gae_over_a_mask_with_holes_is_gae_of_the_row_without_them(steps, gamma, lam):
    rewards, values = (torch.tensor([[step[i] for step in steps]], dtype=torch.float64) for i in (0, 1))
    mask = torch.tensor([[step[2] for step in steps]])
    with_holes = gae(rewards.where(mask, NAN), values.where(mask, NAN), mask, gamma, lam)
    squeezed = rewards[mask][None], values[mask][None]
    without = gae(*squeezed, torch.ones_like(squeezed[0], dtype=torch.bool), gamma, lam)
    for ours, reference in zip(with_holes, without):
        torch.testing.assert_close(ours[mask][None], reference)
        assert (ours[~mask] == 0).all()


def test_gae_with_lambda_1_is_return_minus_value():
    rewards, values = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    advantages, returns = gae(rewards, values, torch.ones(3, 6, dtype=torch.bool), 1.0, 1.0)
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1))
    torch.testing.assert_close(advantages, returns - values)


REWARDS = torch.tensor([1.0, 10.0, 2.0, 3.0, 20.0, 7.0], dtype=torch.float64)
GROUPS = [torch.tensor([0, 2, 3]), torch.tensor([4, 1]), torch.tensor([5])]  # uneven, interleaved, one alone


def test_group_centred_by_hand():
    assert group_centred(REWARDS, GROUPS).tolist() == [-1, -5, 0, 1, 5, 0]


def test_group_normalised_by_hand():
    root = math.sqrt(0.5)
    assert group_normalised(REWARDS, GROUPS, eps=0).tolist() == pytest.approx([-1, -root, 0, 1, root, 0])


def test_leave_one_out_by_hand():
    assert leave_one_out(REWARDS, GROUPS).tolist() == pytest.approx([-1.5, -10, 0, 1.5, 10, 0])


def test_batch_normalised_by_hand():
    # the spread of the rewards is 2, that of the gains does not count
    gains = batch_normalised(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 3.0, 5.0]), eps=0.0)
    assert gains.tolist() == [-0.5, 0, 0.5]
    assert batch_normalised(torch.tensor([3.0]), torch.tensor([3.0]), eps=0.0).tolist() == [0]


def test_length_weighted_centred_by_hand():
    lengths = torch.tensor([1, 2, 1, 2, 6, 9])
    gains = length_weighted_centred(REWARDS, lengths, GROUPS)
    # baselines: (1 * 1 + 1 * 2 + 2 * 3) / 4, and (6 * 20 + 2 * 10) / 8
    assert gains.tolist() == [1 - 2.25, 10 - 17.5, 2 - 2.25, 3 - 2.25, 20 - 17.5, 0]


def test_the_length_weighted_baseline_has_gains_that_sum_to_zero_over_tokens():
    lengths = torch.tensor([3, 2, 1, 2, 6, 9])
    gains = length_weighted_centred(REWARDS, lengths, GROUPS)
    assert (gains * lengths)[GROUPS[0]].sum().item() == pytest.approx(0)


def test_discounted_returns_by_hand():
    mask = torch.tensor([[False, True, False, True, True]])
    rewards = torch.tensor([[NAN, 1.0, NAN, 2.0, 4.0]])
    returns = discounted_returns(rewards, mask, gamma=0.5)
    assert returns.tolist() == [[0, 1 + 1 + 1, 0, 4, 4]]


def test_a_number_of_the_row_lies_on_its_selected_tokens():
    mask = torch.tensor([[False, True, True], [False, True, False]])
    assert on_tokens(torch.tensor([2.0, NAN]), mask).isnan().tolist() == [[False] * 3, [False, True, False]]
    assert on_tokens(torch.tensor([2.0, 3.0]), mask).tolist() == [[0, 2, 2], [0, 3, 0]]


@pytest.mark.parametrize(
    "relative",
    [group_centred, group_normalised, leave_one_out, lambda r, g: length_weighted_centred(r, torch.arange(1, 8), g)],
)
def test_equal_rewards_give_no_advantage_not_even_by_rounding(relative):
    assert relative(torch.full((7,), 0.3), [torch.arange(7)]).tolist() == [0] * 7
