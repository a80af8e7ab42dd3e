"""Losses of rankings against sums over all permutations, the pairwise loss, and finite differences."""

import math
from itertools import combinations, permutations

import pytest
import torch

from rlhf.ops import preference, ranking

SCORES = [1.3, -0.4, 0.2, 2.5, -1.7]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def probability(order, scores):
    """Of drawing these answers in this order, each by softmax over those that are left: Plackett's definition."""
    left, result = list(range(len(scores))), 1.0
    for answer in order:
        result *= math.exp(scores[answer]) / sum(math.exp(scores[other]) for other in left)
        left.remove(answer)
    return result


def ranks_of(order):
    """Rank of each answer: 1 for the first of the order."""
    ranks = [0.0] * len(order)
    for place, answer in enumerate(order, start=1):
        ranks[answer] = float(place)
    return double(ranks)


def orders_that_agree(ranks):
    """All strict orders in which no answer comes before one of a lower rank."""
    for order in permutations(range(len(ranks))):
        found = [ranks[answer] for answer in order]
        if found == sorted(found):
            yield order


def one_group(count):
    return torch.zeros(count, dtype=torch.int32)


@pytest.mark.parametrize("count", range(1, 6))
def test_plackett_luce_is_the_probability_of_drawing_the_answers_in_order(count):
    scores, total = SCORES[:count], 0.0
    for order in permutations(range(count)):
        [surprise] = ranking.plackett_luce(double(scores), ranks_of(order), one_group(count)).tolist()
        assert surprise == pytest.approx(-math.log(probability(order, scores)), abs=1e-12)
        total += math.exp(-surprise)
    assert total == pytest.approx(1.0)  # over all rankings


def test_plackett_luce_of_two_answers_is_bradley_terry():
    scores = double([0.3, -1.1])
    wanted = preference.pairwise_logistic(scores[:1], scores[1:])
    torch.testing.assert_close(ranking.plackett_luce(scores, double([1, 2]), one_group(2)), wanted)


@pytest.mark.parametrize("ranks", [[1, 1, 2], [1, 2, 2], [1, 1, 1], [1, 2, 2, 3], [1, 1, 2, 2], [2, 3, 2, 1, 2]])
def test_ties_are_the_mean_over_their_orders_where_their_scores_are_equal(ranks):
    scores = [{1: 0.7, 2: -0.6, 3: 1.9}[rank] for rank in ranks]
    orders = [probability(order, scores) for order in orders_that_agree(ranks)]
    [surprise] = ranking.plackett_luce(double(scores), double(ranks), one_group(len(ranks))).tolist()
    assert math.exp(-surprise) == pytest.approx(sum(orders) / len(orders), rel=1e-12)


def test_ties_are_efrons_approximation():
    # worked out by hand: a, b tied before c. The first competes with all, the second with c and half of a and of b.
    a, b, c = math.exp(0.5), math.exp(-1.0), math.exp(0.2)
    wanted = a * b / ((a + b + c) * (c + (a + b) / 2))
    found = ranking.plackett_luce(double([0.5, -1.0, 0.2]), double([1, 1, 2]), one_group(3))
    assert math.exp(-found.item()) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("loss", [ranking.all_pairs, ranking.plackett_luce])
def test_tied_answers_are_drawn_to_the_same_score(loss):
    scores = double([2.0, -1.0]).requires_grad_()
    [slope] = torch.autograd.grad(loss(scores, double([1, 1]), one_group(2)).sum(), scores)
    assert slope[0] > 0 > slope[1]
    scores = double([0.4, 0.4]).requires_grad_()
    [slope] = torch.autograd.grad(loss(scores, double([1, 1]), one_group(2)).sum(), scores)
    assert slope.tolist() == [0, 0]


def test_all_pairs_is_the_mean_of_the_pairwise_loss():
    order = [2, 0, 4, 1, 3]
    pairs = [(order[i], order[j]) for i, j in combinations(range(5), 2)]
    losses = [math.log1p(math.exp(SCORES[worse] - SCORES[better])) for better, worse in pairs]
    found = ranking.all_pairs(double(SCORES), ranks_of(order), one_group(5))
    assert found.item() == pytest.approx(sum(losses) / 10, rel=1e-12)


def test_a_tied_pair_has_a_soft_label_of_one_half():
    found = ranking.all_pairs(double([1.0, -1.0]), double([1, 1]), one_group(2))
    target = torch.nn.functional.binary_cross_entropy_with_logits(double([2.0]), double([0.5]))
    torch.testing.assert_close(found[0], target)


RANKS = double([1, 2, 2, 1, 3, 1, 2, 1])
GROUPS = torch.tensor([7, 7, 3, 3, 3, 5, 5, 9])  # of two, three, two and one row


@pytest.mark.parametrize("loss", [ranking.all_pairs, ranking.plackett_luce])
def test_rankings_of_any_size_lie_side_by_side(loss):
    torch.manual_seed(0)
    scores = torch.randn(8, dtype=torch.float64)
    alone = [
        loss(scores[group == GROUPS], RANKS[group == GROUPS], GROUPS[group == GROUPS]) for group in GROUPS.unique()
    ]
    together = loss(scores, RANKS, GROUPS)
    torch.testing.assert_close(together, torch.cat(alone))
    assert together[-1] == 0  # a lone row says nothing
    order = torch.randperm(8)
    torch.testing.assert_close(loss(scores[order], RANKS[order], GROUPS[order]), together)


@pytest.mark.parametrize("loss", [ranking.all_pairs, ranking.plackett_luce])
def test_gradients_agree_with_finite_differences(loss):
    torch.manual_seed(1)
    scores = torch.randn(8, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0], dtype=torch.float64)  # with ties
    assert torch.autograd.gradcheck(lambda x: loss(x, ranks, GROUPS), scores)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, ranks, GROUPS), scores)


@pytest.mark.parametrize("loss", [ranking.all_pairs, ranking.plackett_luce])
def test_far_scores_overflow_nothing(loss):
    scores = torch.tensor([-3e4, 0.0, 3e4], requires_grad=True)
    found = loss(scores, torch.tensor([1.0, 2.0, 3.0]), one_group(3))
    [slope] = torch.autograd.grad(found.sum(), scores)
    assert found.isfinite().all() and slope.isfinite().all() and slope[0] < 0 < slope[2]
