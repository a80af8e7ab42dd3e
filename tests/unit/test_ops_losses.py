import math

import pytest
import torch

from rlhf.ops.losses import clipped_policy, clipped_value
from rlhf.ops.preference import dpo, pairwise_logistic

NAN = math.nan


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_pairwise_logistic_by_hand():
    chosen, rejected = doubles(math.log(3), 0.0), doubles(0.0, 0.0)  # sigmoid: 3/4, 1/2
    expected = doubles(math.log(4 / 3), math.log(2))
    torch.testing.assert_close(pairwise_logistic(chosen, rejected), expected)
    torch.testing.assert_close(pairwise_logistic(chosen + 0.7, rejected, margin=0.7), expected)
    smoothed = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert pairwise_logistic(chosen, rejected, label_smoothing=0.1)[0].item() == pytest.approx(smoothed)


def test_pairwise_logistic_stays_finite_far_from_zero():
    losses = pairwise_logistic(torch.tensor([1e4, -1e4]), torch.zeros(2))
    assert losses.tolist() == [0, 1e4]


def test_dpo_is_the_pairwise_loss_of_its_implicit_rewards():
    chosen, rejected = doubles(1.0, -2.0), doubles(0.5, 3.0)
    torch.testing.assert_close(
        dpo(chosen, rejected, 0.1, 0.2), pairwise_logistic(0.1 * chosen, 0.1 * rejected, 0.0, 0.2)
    )
    assert dpo(doubles(2.0), doubles(2.0), 0.3).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual_clip", "loss", "clipped"),
    [
        (1.1, 2.0, None, -2.2, False),
        (1.5, 2.0, None, -2.6, True),  # 1.3 * 2: no more gain beyond the upper clip
        (0.5, 2.0, None, -1.0, False),
        (0.5, -2.0, None, 1.6, True),  # 0.8 * 2: no more gain below the lower clip
        (5.0, -2.0, None, 10.0, False),
        (5.0, -2.0, 3.0, 6.0, False),  # dual clip: at most 3 * |advantage|
        (5.0, 2.0, 3.0, -2.6, True),
    ],
)
def test_clipped_policy_by_hand(ratio, advantage, dual_clip, loss, clipped):
    new, old = doubles([math.log(ratio) - 1]), doubles([-1.0])
    losses, flags = clipped_policy(new, old, doubles([advantage]), torch.tensor([[True]]), 0.2, 0.3, dual_clip)
    assert losses.item() == pytest.approx(loss)
    assert flags.item() is clipped


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.9**2, False),
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, True),  # moved towards the target, but only 0.2 of it count
        (0.5, 1.0, 2.0, 0.5 * 1.5**2, False),
    ],
)
def test_clipped_value_by_hand(value, old, target, loss, clipped):
    losses, flags = clipped_value(doubles([value]), doubles([old]), doubles([target]), torch.tensor([[True]]), 0.2)
    assert losses.item() == pytest.approx(loss)
    assert flags.item() is clipped


def test_a_value_within_the_clip_never_counts_as_clipped():
    values = torch.randn(1000)
    _, flags = clipped_value(values, values + 0.1 * torch.rand(1000), torch.randn(1000), torch.ones(1000).bool(), 0.2)
    assert not flags.any()


MASK = torch.tensor([[False, True, True, False]])


def masked_leaf():
    return torch.tensor([[NAN, -1.0, -2.0, NAN]], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("poison", [NAN, math.inf])
def test_nan_outside_the_mask_reaches_neither_loss_nor_gradient(poison):
    column = torch.tensor([[poison, -1.2, -1.9, poison]], dtype=torch.float64)
    for loss in (
        lambda leaf: clipped_policy(leaf, column, column, MASK, 0.2, 0.2, 3.0),
        lambda leaf: clipped_value(leaf, column, column, MASK, 0.2),
        lambda leaf: clipped_value(leaf, column, column, MASK, None),
    ):
        leaf = masked_leaf()
        losses, flags = loss(leaf)
        assert (losses[~MASK] == 0).all()
        assert not flags[~MASK].any()
        losses.sum().backward()
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[~MASK] == 0).all()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_floating_point_gives_finite_losses_and_gradients(advantage):
    new = torch.tensor([[0.0, -500.0]], requires_grad=True)
    old = torch.tensor([[-500.0, 0.0]])
    losses, _ = clipped_policy(new, old, torch.full((1, 2), advantage), torch.ones(1, 2).bool(), 0.2, 0.2)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert new.grad.isfinite().all()


def test_gradcheck():
    torch.manual_seed(0)
    new, old, gains = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(3, 4) < 0.7
    new.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clipped_policy(x, old, gains, mask, 0.2, 0.3, 3.0)[0], new)
    assert torch.autograd.gradcheck(lambda x: clipped_value(x, old, gains, mask, 0.2)[0], new)
    assert torch.autograd.gradcheck(lambda x: dpo(x[:, 0], x[:, 1], 0.1, 0.1), new)
