import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.ops.rewards import RunningMoments, overlong_penalty, shape

REWARDS = torch.tensor([1.0, 3.0, 5.0])
WHOLE, LENGTHS = torch.zeros(3, dtype=torch.bool), torch.tensor([10, 15, 30])


@given(st.lists(st.lists(st.floats(-100, 100), max_size=6), min_size=1, max_size=6))
def test_moments_in_pieces_are_those_of_all_values(pieces):
    moments = RunningMoments()
    for piece in pieces:
        moments = moments.update(torch.tensor(piece))
    everything = torch.tensor([value for piece in pieces for value in piece], dtype=torch.float32).double()
    assert moments.count == len(everything)
    if len(everything):
        assert moments.mean == pytest.approx(everything.mean().item(), abs=1e-9)
    if len(everything) > 1:
        assert moments.std == pytest.approx(everything.std().item(), abs=1e-6)


def test_moments_stay_exact_far_from_zero():
    moments = RunningMoments()
    for _ in range(100):
        moments = moments.update(1e6 + torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert moments.std == pytest.approx(math.sqrt(200 / 199))


def test_moments_return_from_their_state():
    moments = RunningMoments().update(torch.tensor([1.0, 2.0, 4.0]))
    assert RunningMoments.from_state(json.loads(json.dumps(moments.state()))) == moments
    assert RunningMoments.from_state({}) == RunningMoments()
    assert RunningMoments().std == RunningMoments().update(torch.tensor([3.0])).std == 0


def test_overlong_penalty_by_hand():
    lengths = torch.tensor([1, 15, 16, 18, 20, 21, 99])
    expected = torch.tensor([0.0, 0.0, -0.2, -0.6, -1.0, -1.0, -1.0])
    torch.testing.assert_close(overlong_penalty(lengths, limit=20, buffer=5), expected)


def test_unshaped_rewards_are_left_as_they_are():
    assert torch.equal(shape(REWARDS, WHOLE, LENGTHS), REWARDS)


def test_rewards_are_shaped_in_order_by_hand():
    moments = RunningMoments().update(REWARDS)  # mean 3, standard deviation 2
    cut = torch.tensor([True, False, False])
    shaped = shape(REWARDS, cut, LENGTHS, moments, clip=0.75, missing_end=0.5, overlong=(20, 10))
    torch.testing.assert_close(shaped, torch.tensor([-0.75 - 0.5, 0.0 - 0.5, 0.75 - 1.0]))


def test_equal_rewards_normalise_to_zero():
    equal = torch.full((3,), 0.3)
    assert shape(equal, WHOLE, LENGTHS, RunningMoments().update(equal)).tolist() == [0, 0, 0]
    assert shape(equal[:1], WHOLE[:1], LENGTHS[:1], RunningMoments().update(equal[:1])).tolist() == [0]
