import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.ops import masked

NAN = math.nan
VALUES = torch.tensor([[1.0, 2.0, NAN], [NAN, 6.0, NAN]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [False, True, False]])


def test_sum_and_mean_by_hand():
    assert masked.sum(VALUES, MASK) == 9
    assert masked.mean(VALUES, MASK) == 3
    assert masked.sum(VALUES, MASK, dim=1).tolist() == [3, 6]
    assert masked.mean(VALUES, MASK, dim=1).tolist() == [1.5, 6]


def test_variance_is_unbiased():
    assert masked.variance(VALUES, MASK) == 7  # (4 + 1 + 9) / 2


def test_whiten_by_hand():
    root = math.sqrt(7)
    expected = torch.tensor([[-2 / root, -1 / root, 0], [0, 3 / root, 0]], dtype=torch.float64)
    torch.testing.assert_close(masked.whiten(VALUES, MASK), expected)
    torch.testing.assert_close(masked.whiten(VALUES, MASK, shift_mean=False), torch.where(MASK, expected + 3, 0))


@pytest.mark.parametrize("selected", [0, 1])
def test_too_few_entries_give_zeros_and_no_nan(selected):
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[0, :selected] = True
    assert masked.variance(VALUES, mask) == 0
    assert (masked.whiten(VALUES, mask) == 0).all()
    assert masked.mean(VALUES, mask) == selected


@pytest.mark.parametrize("reduce", [masked.sum, masked.mean, masked.variance, masked.whiten])
def test_nan_outside_the_mask_reaches_no_gradient(reduce):
    values = VALUES.clone().requires_grad_()
    (reduce(values, MASK) ** 2).sum().backward()
    assert values.grad.isfinite().all()
    assert (values.grad[~MASK] == 0).all()


@given(st.lists(st.tuples(st.floats(-100, 100), st.booleans()), min_size=1, max_size=20))
def test_statistics_are_those_of_the_selected_entries_alone(entries):
    values, mask = (
        torch.tensor([value for value, _ in entries], dtype=torch.float64),
        torch.tensor([m for _, m in entries]),
    )
    own = values[mask]
    torch.testing.assert_close(masked.sum(values, mask), own.sum())
    if len(own) > 1:
        torch.testing.assert_close(masked.mean(values, mask), own.mean())
        torch.testing.assert_close(masked.variance(values, mask), own.var(), atol=1e-9, rtol=1e-7)
