import math

import pytest
import torch

from rlhf.ops.losses import cispo, clipped_policy, clipped_value, probability_ratio, reinforce

NAN = math.nan


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


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


def test_ratios_of_token_sequence_and_product_by_hand():
    old = doubles([NAN, -1.0, -1.0, -1.0], [NAN, -1.0, NAN, NAN])
    mask = torch.tensor([[False, True, True, True], [False, True, False, False]])
    new = (old + doubles([NAN, 4.0, 0.5, 4.0], [NAN, 3.0, NAN, NAN]).log()).requires_grad_()
    expected = {
        "token": doubles([1, 4, 0.5, 4], [1, 3, 1, 1]),
        "sequence": doubles([1, 2, 2, 2], [1, 3, 1, 1]),  # the third root of 8
        "product": doubles([1, 8, 8, 8], [1, 3, 1, 1]),
    }
    gradients = {
        "token": doubles([0, 4, 0.5, 4], [0, 3, 0, 0]),
        "sequence": doubles([0, 2, 2, 2], [0, 3, 0, 0]),  # as if each token had the ratio for itself
        "product": doubles([0, 24, 24, 24], [0, 3, 0, 0]),
    }
    for kind, ratios in expected.items():
        found = probability_ratio(new, old, mask, kind)
        torch.testing.assert_close(found, ratios)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), new)[0], gradients[kind])


@pytest.mark.parametrize(
    ("ratio", "clip_low", "weight", "clipped"),
    [(2.0, None, 2.0, False), (8.0, None, 5.0, True), (0.1, None, 0.1, False), (0.1, 0.2, 0.8, True)],
)
def test_cispo_by_hand(ratio, clip_low, weight, clipped):
    new, old = doubles([math.log(ratio) - 3]).requires_grad_(), doubles([-3.0])
    losses, flags = cispo(new, old, doubles([2.0]), torch.tensor([[True]]), clip_low, 4.0)
    assert losses.item() == pytest.approx(-weight * 2.0 * (math.log(ratio) - 3))
    assert flags.item() is clipped
    assert torch.autograd.grad(losses.sum(), new)[0].item() == pytest.approx(-weight * 2.0)  # never 0, clipped or not


def test_reinforce_by_hand():
    assert reinforce(doubles([-1.5]), doubles([2.0]), torch.tensor([[True]])).item() == 3.0


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
        lambda leaf: clipped_policy(leaf, column, column, MASK, 0.2, 0.2, ratio="sequence"),
        lambda leaf: clipped_policy(leaf, column, column, MASK, 0.2, 0.2, ratio="product"),
        lambda leaf: cispo(leaf, column, column, MASK, None, 4.0),
        lambda leaf: (reinforce(leaf, column, MASK), torch.zeros_like(MASK)),
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
    assert torch.autograd.gradcheck(lambda x: clipped_policy(x, old, gains, mask, 0.2, 0.3, ratio="product")[0], new)
    assert torch.autograd.gradcheck(lambda x: reinforce(x, gains, mask), new)
    assert torch.autograd.gradcheck(lambda x: clipped_value(x, old, gains, mask, 0.2)[0], new)
