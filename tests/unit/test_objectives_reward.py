"""Objectives of reward models: by hand, with weights and ties, and through `resolve_reward_loss`."""

import math

import pytest
import torch

from data.batch import Batch
from data.errors import UserError
from rlhf.objectives import (
    KTO,
    REWARD_LOSSES,
    Binary,
    KWise,
    Mix,
    Pairwise,
    PlackettLuce,
    Pointwise,
    Process,
    resolve_reward_loss,
)


def batch_of(group_ids, **columns):
    """Rows of three tokens, the last two of them the answer."""
    rows = len(group_ids)
    return Batch.from_rows([[5, 6, 7]] * rows, [[False, True, True]] * rows, group_ids=group_ids, **columns)


def logistic(margin):
    """-log sigmoid(margin)"""
    return math.log(1 + math.exp(-margin))


def figures(metrics):
    return {name: round(float(value), 5) for name, value in metrics.items()}


SCORES = torch.tensor([2.0, 0.5, -1.0, 1.0, 3.0, 1.0])  # right by 1.5, wrong by 2, tied
PAIRS = {"group_ids": [0, 0, 1, 1, 2, 2], "ranks": [1, 2, 1, 2, 1, 1]}


def test_pairwise_by_hand():
    loss, metrics = Pairwise()(SCORES, batch_of(**PAIRS))
    tie = (logistic(2) + logistic(-2)) / 2
    assert loss.item() == pytest.approx(logistic(1.5) + logistic(-2) + tie)
    assert figures(metrics) == {"accuracy": 1, "margin": -0.5, "untied": 2}


def test_a_margin_is_wanted_of_untied_pairs():
    batch = batch_of(**PAIRS, margins=[1, 1, 0, 0, 3, 3])
    loss, _ = Pairwise(margin=True)(SCORES, batch)
    tie = (logistic(2) + logistic(-2)) / 2
    assert loss.item() == pytest.approx(logistic(0.5) + logistic(-2) + tie)
    torch.testing.assert_close(Pairwise()(SCORES, batch)[0], Pairwise()(SCORES, batch_of(**PAIRS))[0])


def test_centring_punishes_the_sum_of_a_pairs_scores():
    plain, centred = (Pairwise(centre=centre)(SCORES, batch_of(**PAIRS))[0] for centre in (0.0, 0.1))
    assert (centred - plain).item() == pytest.approx(0.1 * (2.5**2 + 0 + 4**2))


def test_k_wise_is_one_item_a_ranking():
    # of three: -> 2 > 0.5 right by 1.5; 2 > -1 by 3; 0.5 > -1 by 1.5. Of two, wrong by 2.
    batch = batch_of([0, 0, 0, 1, 1], ranks=[1, 2, 3, 2, 1])
    loss, metrics = KWise()(torch.tensor([2.0, 0.5, -1.0, 3.0, 1.0]), batch)
    assert loss.item() == pytest.approx((2 * logistic(1.5) + logistic(3)) / 3 + logistic(-2))
    assert figures(metrics) == {"accuracy": 1, "margin": 2 - 2, "untied": 2}


def test_rankings_of_two_are_comparisons():
    batch = batch_of(**PAIRS)
    pairwise, found = Pairwise()(SCORES, batch), KWise()(SCORES, batch)
    torch.testing.assert_close(found[0], pairwise[0])
    assert figures(found[1]) == figures(pairwise[1])
    untied = batch.select([0, 1, 2, 3])
    torch.testing.assert_close(PlackettLuce()(SCORES[:4], untied)[0], Pairwise()(SCORES[:4], untied)[0])


def test_a_ranking_of_ties_has_no_accuracy():
    batch = batch_of([0, 0, 0, 1, 1, 1], ranks=[1, 1, 2, 1, 1, 1])
    for objective in (KWise(), PlackettLuce()):
        _, metrics = objective(torch.tensor([2.0, 0.0, 1.0, 3.0, 2.0, 1.0]), batch)
        assert figures(metrics) == {"accuracy": 0.5, "margin": 0, "untied": 1}


def test_pointwise_by_hand():
    loss, metrics = Pointwise()(torch.tensor([1.0, 4.0]), batch_of([0, 1], ratings=[3.0, 3.5]))
    assert loss == 4.25
    assert figures(metrics) == {"mae": 2.5}


def test_binary_by_hand():
    # 0.25 of the annotators found the last row good, and its score says good
    batch = batch_of([0, 1, 2], desirable=[1.0, 1.0, 0.25])
    loss, metrics = Binary()(torch.tensor([2.0, -1.0, 0.5]), batch)
    assert loss.item() == pytest.approx(logistic(2) + logistic(-1) + 0.25 * logistic(0.5) + 0.75 * logistic(-0.5))
    assert figures(metrics) == {"accuracy": 1.25}


def test_process_by_hand():
    batch = batch_of([0, 1], step_labels=[[math.nan, 1.0, 0.0], [math.nan, 1.0, 1.0]])
    out = torch.tensor([[math.nan, 2.0, 1.0], [math.nan, -0.5, 3.0]], requires_grad=True)
    loss, metrics = Process()(out, batch)
    assert loss.item() == pytest.approx(logistic(2) + logistic(-1) + logistic(-0.5) + logistic(3))
    assert figures(metrics) == {"accuracy": 2}
    [slope] = torch.autograd.grad(loss, out)
    assert (slope[:, 0] == 0).all() and slope[:, 1:].isfinite().all()


ROWS = {
    "pairwise": {"group_ids": [0, 0, 1, 1], "ranks": [1, 2, 1, 1]},
    "kwise": {"group_ids": [0, 0, 1, 1], "ranks": [1, 2, 1, 1]},
    "plackett_luce": {"group_ids": [0, 0, 1, 1], "ranks": [1, 2, 1, 1]},
    "pointwise": {"group_ids": [0, 0, 1, 1], "ratings": [1.0, 2.0, 3.0, 4.0]},
    "binary": {"group_ids": [0, 0, 1, 1], "desirable": [1.0, 0.0, 0.0, 1.0]},
    "process": {"group_ids": [0, 0, 1, 1], "step_labels": torch.eye(4)[:, 1:]},
}


@pytest.mark.parametrize("name", REWARD_LOSSES)
def test_weights_count_an_item_as_often_as_they_say(name):
    torch.manual_seed(0)
    objective, batch = resolve_reward_loss(name, {}), batch_of(**ROWS[name])
    out = torch.randn(4, 3) if objective.output == "values" else torch.randn(4)
    first, second = (objective(out[rows], batch.select(rows))[0] for rows in ([0, 1], [2, 3]))
    weighed, _ = objective(out, batch.with_columns(weights=[2.0, 2.0, 0.5, 0.5]))
    torch.testing.assert_close(weighed, 2 * first + 0.5 * second)
    assert "weights" in objective.columns


def test_each_loss_names_the_rows_that_it_learns_from():
    rows = {name: resolve_reward_loss(name, {}).rows for name in REWARD_LOSSES}
    assert rows == {
        "pairwise": "preference",
        "kwise": "ranking",
        "plackett_luce": "ranking",
        "pointwise": "rating",
        "binary": "binary",
        "process": "steps",
    }
    assert KTO().rows == Mix(({"name": "kto"},)).rows == "thumbs"
    assert Mix(({"name": "dpo"},)).rows == "preference"


def test_margins_are_shipped_where_they_are_wanted():
    assert "margins" in Pairwise(margin=True).columns
    assert "margins" not in Pairwise().columns


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("pairwise", {"centre": -1.0}, "pairwise: centre must not be negative, got -1.0; 0.01 is usual"),
        ("pairwise", {"center": 0.1}, "loss 'pairwise' has no parameter 'center'; did you mean 'centre'"),
        ("kwise", {"margin": True}, "loss 'kwise' has no parameter 'margin'; it has none"),
        ("listwise", {}, "there is no loss 'listwise'; built in are pairwise, kwise, plackett_luce, pointwise"),
        ("rlhf.objectives:resolve_loss", {}, "must be a dataclass"),
    ],
)
def test_a_wrong_loss_is_refused_with_advice(name, parameters, message):
    with pytest.raises(UserError, match=message):
        resolve_reward_loss(name, parameters)


def test_a_loss_of_ones_own_is_named_by_its_place():
    assert resolve_reward_loss("rlhf.objectives.reward:Pairwise", {"centre": 0.5}) == Pairwise(centre=0.5)
