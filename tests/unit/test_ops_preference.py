import math

import pytest
import torch

from rlhf.ops import preference
from rlhf.ops.preference import dpo, pairwise_logistic


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


def test_scores_are_off_centre_by_the_square_of_their_sum():
    assert preference.off_centre(doubles(2.0, 1.0), doubles(-2.0, 3.0)).tolist() == [0, 16]


def test_dpo_is_the_pairwise_loss_of_its_implicit_rewards():
    chosen, rejected = doubles(1.0, -2.0), doubles(0.5, 3.0)
    torch.testing.assert_close(
        dpo(chosen, rejected, 0.1, 0.2), pairwise_logistic(0.1 * chosen, 0.1 * rejected, 0.0, 0.2)
    )
    assert dpo(doubles(2.0), doubles(2.0), 0.3).item() == pytest.approx(math.log(2))


def test_robust_dpo_is_on_average_over_wrong_labels_the_dpo_of_right_ones():
    chosen, rejected = doubles(1.0, -2.0), doubles(0.5, 3.0)
    right = preference.robust_dpo(chosen, rejected, 0.5, 0.2)
    flipped = preference.robust_dpo(rejected, chosen, 0.5, 0.2)
    torch.testing.assert_close(0.8 * right + 0.2 * flipped, dpo(chosen, rejected, 0.5))


def test_robust_dpo_without_wrong_labels_is_dpo():
    chosen, rejected = doubles(1.0, -2.0), doubles(0.5, 3.0)
    torch.testing.assert_close(preference.robust_dpo(chosen, rejected, 0.5, 0.0), dpo(chosen, rejected, 0.5))


def test_ipo_has_no_loss_at_its_margin_and_grows_on_both_sides():
    assert preference.ipo(doubles(3.0, 4.0, 0.0), doubles(-2.0, -2.0, 0.0), 0.1).tolist() == [0, 1, 25]


def test_hinge_has_no_loss_beyond_a_reward_margin_of_one():
    assert preference.hinge(doubles(5.0, 1.0, 0.0), doubles(0.0, 0.0, 1.0), 0.5).tolist() == [0, 0.5, 1.5]


def test_kto_by_hand():
    ratios = doubles(math.log(3), math.log(3), 2.0, 2.0)  # 1 - sigmoid(log 3) = 1/4
    desirable = torch.tensor([True, False, True, False])
    losses = preference.kto(ratios, desirable, doubles(0, 0, 2, 2), 1.0, desirable_weight=2.0, undesirable_weight=4.0)
    torch.testing.assert_close(losses, doubles(2 / 4, 4 * 3 / 4, 2 / 2, 4 / 2))


def test_the_baseline_of_kto_is_a_mean_that_is_never_negative():
    assert preference.kto_baseline(doubles(4.0, -1.0)).item() == 1.5
    assert preference.kto_baseline(doubles(-4.0, 1.0)).item() == 0


def test_odds_ratio_by_hand():
    chosen, rejected = doubles(math.log(3 / 4)), doubles(math.log(1 / 2))  # odds 3 and 1
    assert preference.odds_ratio(chosen, rejected).item() == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odds_ratio_stays_finite_for_certain_and_for_impossible_answers(dtype):
    logprobs = torch.tensor([0.0, -1e-9, -1e4, -1.0], dtype=dtype, requires_grad=True)
    losses = preference.odds_ratio(logprobs, logprobs.flip(0))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logprobs.grad.isfinite().all()


def test_simpo_by_hand():
    # 2 * (-0.5 - -1.5) - 1 = 1
    assert preference.simpo(doubles(-0.5), doubles(-1.5), 2.0, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    smoothed = preference.simpo(doubles(-0.5), doubles(-1.5), 2.0, 1.0, label_smoothing=0.1).item()
    assert smoothed == pytest.approx(0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1)))


def test_gradcheck():
    torch.manual_seed(0)
    answers = torch.randn(6, 2, dtype=torch.float64).requires_grad_()
    desirable = torch.arange(6) % 2 == 0
    for loss in (
        lambda x: dpo(x[:, 0], x[:, 1], 0.1, 0.1),
        lambda x: preference.robust_dpo(x[:, 0], x[:, 1], 0.5, 0.1),
        lambda x: preference.ipo(x[:, 0], x[:, 1], 0.1),
        lambda x: preference.hinge(x[:, 0], x[:, 1], 0.3),
        lambda x: preference.off_centre(x[:, 0], x[:, 1]),
        lambda x: preference.kto(x[:, 0], desirable, 0.3, 0.5, 1.0, 2.0),
        lambda x: preference.odds_ratio(-x[:, 0].exp(), -x[:, 1].exp()),
        lambda x: preference.simpo(x[:, 0], x[:, 1], 2.0, 0.5, 0.1),
        lambda x: preference.cpo(x[:, 0], x[:, 1], 0.1, 0.1),
    ):
        assert torch.autograd.gradcheck(loss, answers)
