"""Objectives of preferences: by hand, against finite differences, and split over micro-batches."""

import math
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from data.batch import Batch
from data.errors import UserError
from rlhf.objectives import (
    CPO,
    DPO,
    IPO,
    KTO,
    LOSSES,
    NLL,
    ORPO,
    Hinge,
    LanguageModel,
    Mix,
    Robust,
    SimPO,
    resolve_loss,
)

NAN = math.nan
MASKS = [[False, True, True], [False, True]]  # trained on: tokens 1 and 2 of the first row, token 1 of the second
OUT, REF = [[9.0, -1.0, -2.0], [9.0, -3.0, 9.0]], [[8.0, -2.0, -3.5], [8.0, -2.0, 8.0]]
# log-probs: chosen -1 -2, rejected -3; log-ratios: chosen 1 + 1.5, rejected -1


def pair(**columns):
    """One pair, and the policy's log-probs; everything outside the mask is NaN."""
    batch = Batch.from_rows([[5, 6, 7], [5, 8]], MASKS, group_ids=[0, 0])
    out, ref = (torch.tensor(values).where(batch.action_mask, NAN) for values in (OUT, REF))
    return out, batch.with_columns(ref_logprobs=ref, **columns)


def logistic(margin):
    """-log sigmoid(margin)"""
    return math.log(1 + math.exp(-margin))


BY_HAND = [  # (objective, loss of the pair)
    (DPO(0.5), logistic(0.5 * 3.5)),
    (DPO(0.5, label_smoothing=0.1), 0.9 * logistic(0.5 * 3.5) + 0.1 * logistic(-0.5 * 3.5)),
    (DPO(0.5, length_normalised=True), logistic(0.5 * (1.25 + 1))),
    (DPO(0.5, nll=2.0), logistic(0.5 * 3.5) + 2 * 1.5),
    (IPO(0.5), (1.25 + 1 - 1) ** 2),
    (IPO(0.5, length_normalised=False, nll=1.0), (3.5 - 1) ** 2 + 1.5),
    (Hinge(0.2), 1 - 0.2 * 3.5),
    (Robust(0.5, 0.2), (0.8 * logistic(0.5 * 3.5) - 0.2 * logistic(-0.5 * 3.5)) / 0.6),
    (
        ORPO(0.3),
        1.5 + 0.3 * logistic(math.log(1 / (math.exp(1.5) - 1)) - math.log(1 / (math.exp(3) - 1))),
    ),
    (SimPO(2.0, 1.0), logistic(2 * (-1.5 + 3) - 1)),
    (SimPO(2.0, 1.0, 0.1), 0.9 * logistic(2 * (-1.5 + 3) - 1) + 0.1 * logistic(1 - 2 * (-1.5 + 3))),
    (CPO(0.5), logistic(0.5 * (-3 + 3)) + 1.5),
    (CPO(0.5, nll=0.0, label_smoothing=0.1), math.log(2)),
    (NLL(), 1.5),
]


@pytest.mark.parametrize(("objective", "expected"), BY_HAND, ids=lambda value: repr(value)[:40])
def test_losses_of_pairs_by_hand(objective, expected):
    out, batch = pair()
    loss, _ = objective(out, batch.keep({"tokens", "lengths", "action_mask"} | objective.columns))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def figures(metrics):
    return {name: pytest.approx(value.item(), rel=1e-6) for name, value in metrics.items()}


def test_metrics_of_a_pair_by_hand():
    rewards = {"accuracy": 1, "chosen_reward": 1.25, "rejected_reward": -0.5, "margin": 1.75}
    assert figures(DPO(0.5)(*pair())[1]) == rewards
    assert figures(DPO(0.5, nll=0.1)(*pair())[1]) == rewards | {"nll": 1.5}
    assert figures(IPO(0.5)(*pair())[1])["chosen_reward"] == 0.5 * 1.25
    assert figures(SimPO(2.0)(*pair())[1]) == {
        "accuracy": 1,
        "chosen_reward": -3.0,
        "rejected_reward": -6.0,
        "margin": 3.0,
    }
    assert CPO(0.5)(*pair())[1]["accuracy"] == 0  # equal answers are not in the right order
    assert NLL()(*pair())[1] == {}


def test_kto_by_hand():
    # rewards 0.5 * 2.5 and 0.5 * -1, of a good and a bad answer; 0.5 * z0 = 0.5
    out, batch = pair(desirable=torch.tensor([1.0, 0.0]), kl_baseline=torch.tensor([1.0, 1.0]))
    loss, metrics = KTO(0.5, desirable_weight=2.0, undesirable_weight=3.0)(out, batch)
    good, bad = 1 - 1 / (1 + math.exp(-0.75)), 1 - 1 / (1 + math.exp(-1.0))
    assert loss.item() == pytest.approx(2 * good + 3 * bad, rel=1e-6)
    assert figures(metrics) == {
        "accuracy": 2,
        "margin": 1.75,
        "kl_baseline": 2,
        "desirable_share": 1,
        "reward_of_desirable": 1.25,
        "reward_of_undesirable": -0.5,
    }


def test_kto_counts_a_row_on_the_wrong_side_of_the_baseline():
    out, batch = pair(desirable=torch.tensor([1.0, 0.0]), kl_baseline=torch.tensor([3.0, 3.0]))
    _, metrics = KTO(0.5)(out, batch)
    assert metrics["accuracy"] == 1  # the good answer's 2.5 is below 3
    assert metrics["margin"].item() == pytest.approx(0.5 * (2.5 - 3) + 0.5 * (3 + 1))


def test_a_mix_is_the_weighted_sum_of_its_parts():
    mix = Mix(({"name": "dpo", "weight": 0.8, "beta": 0.5}, {"name": "nll", "weight": 0.2}, {"name": "simpo"}))
    out, batch = pair()
    dpo, nll, simpo = (objective(out, batch)[0] for objective in (DPO(0.5), NLL(), SimPO()))
    loss, metrics = mix(out, batch)
    torch.testing.assert_close(loss, 0.8 * dpo + 0.2 * nll + simpo)
    assert (mix.output, mix.unit, mix.columns) == ("logprobs", "pairs", {"ref_logprobs"})
    shares = {"loss_dpo": 0.8 * dpo, "loss_nll": 0.2 * nll, "loss_simpo": simpo}
    assert figures(metrics) == figures(DPO(0.5)(out, batch)[1] | shares)


def test_parts_of_a_mix_with_one_name_share_their_metric():
    _, metrics = Mix(({"name": "dpo", "beta": 0.5}, {"name": "dpo", "beta": 0.5, "weight": 2}))(*pair())
    torch.testing.assert_close(metrics["loss_dpo"], 3 * DPO(0.5)(*pair())[0])


def test_a_mix_of_losses_without_a_reference_needs_none():
    assert Mix(({"name": "orpo"}, {"name": "simpo"})).columns == frozenset()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_built_by_its_name(name):
    parameters = {"parts": [{"name": "dpo", "weight": 0.8, "beta": 0.2}, {"name": "nll"}]} if name == "mix" else {}
    objective = resolve_loss(name, parameters)
    assert type(objective).__name__.lower() == name
    assert objective.output == "logprobs"
    assert objective.unit == ("rows" if name == "kto" else "pairs")
    wants_reference = name in ("dpo", "ipo", "hinge", "robust", "kto", "mix")
    assert ("ref_logprobs" in objective.columns) == wants_reference


OBJECTIVES = [
    DPO(0.2),
    DPO(0.2, 0.1, True, 0.5),
    IPO(0.2),
    IPO(0.2, False, 0.5),
    Hinge(0.2),
    Robust(0.2, 0.1),
    KTO(0.2, 1.0, 1.5),
    ORPO(0.2),
    SimPO(2.0, 0.5, 0.1),
    CPO(0.2, 1.0, 0.1),
    NLL(),
    Mix(({"name": "dpo", "weight": 0.8}, {"name": "nll", "weight": 0.2})),
]
each = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: repr(objective)[:30])


def problem(objective, dtype=torch.float32):
    """Two pairs, and what the objective reads; NaN outside the mask."""
    torch.manual_seed(0)
    batch = Batch.from_rows([[1, 2, 3], [1, 2], [4, 5, 6], [4, 5]], MASKS * 2, group_ids=[0, 0, 1, 1])
    out, ref = (-torch.rand(4, 3, dtype=dtype).masked_fill(~batch.action_mask, NAN) - 0.1 for _ in range(2))
    columns = batch.columns | {
        "ref_logprobs": ref,
        "desirable": torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=dtype),
        "kl_baseline": torch.full((4,), 0.3, dtype=dtype),
    }
    batch = Batch(columns).keep({"tokens", "lengths", "action_mask"} | objective.columns)
    return out, batch


@each
def test_loss_and_metrics_are_sums_over_pairs_and_read_the_named_columns_alone(objective):
    out, batch = problem(objective)
    whole = objective(out, batch)
    first, second = (objective(out[rows], batch.select(rows)) for rows in ([0, 1], [2, 3]))
    torch.testing.assert_close(whole[0], first[0] + second[0])
    assert whole[1].keys() == first[1].keys()
    for name, value in whole[1].items():
        torch.testing.assert_close(value, first[1][name] + second[1][name])


@each
def test_gradients_agree_with_finite_differences(objective):
    out, batch = problem(objective, torch.float64)
    place = out.isfinite()
    inputs = out[place].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda inside: objective(out.masked_scatter(place, inside), batch)[0], inputs, eps=1e-6, atol=1e-6
    )


@each
def test_nan_outside_the_mask_reaches_neither_loss_nor_metrics_nor_gradient(objective):
    out, batch = problem(objective)
    loss, metrics = objective(out.requires_grad_(), batch)
    loss.backward()
    assert loss.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in metrics.values())
    assert out.grad.isfinite().all()
    assert (out.grad[~batch.action_mask] == 0).all()


@each
def test_objectives_travel_by_value(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(beta=0), "DPO: beta must be above 0, got 0; usual is 0.1"),
        (lambda: DPO(beta=NAN), "DPO: beta must be above 0, got nan"),
        (lambda: DPO(label_smoothing=0.5), r"DPO: label_smoothing must lie in \[0, 0.5\), got 0.5"),
        (lambda: DPO(nll=-1.0), "DPO: nll must not be negative, got -1.0; 1 is usual, 0 turns it off"),
        (lambda: IPO(beta=-1.0), "IPO: beta must be above 0"),
        (lambda: IPO(nll=-1.0), "IPO: nll must not be negative"),
        (lambda: Hinge(beta=0.0), "Hinge: beta must be above 0"),
        (lambda: Robust(label_smoothing=-0.1), r"Robust: label_smoothing must lie in \[0, 0.5\), got -0.1"),
        (lambda: KTO(beta=0.0), "KTO: beta must be above 0, got 0.0; usual is 0.1"),
        (lambda: KTO(desirable_weight=-1.0), "KTO: desirable_weight must not be negative, got -1.0; 1 is usual"),
        (lambda: KTO(undesirable_weight=NAN), "KTO: undesirable_weight must not be negative, got nan"),
        (lambda: ORPO(beta=0.0), "ORPO: beta must be above 0"),
        (lambda: SimPO(beta=0.0), "SimPO: beta must be above 0, got 0.0; usual is 2.0"),
        (lambda: SimPO(gamma=-1.0), "SimPO: gamma must not be negative, got -1.0"),
        (lambda: CPO(nll=-1.0), "CPO: nll must not be negative"),
        (lambda: Mix(), r"loss 'mix' has no parts; wanted, for instance, parts: \["),
        (lambda: Mix(({"weight": 1.0},)), r"loss 'mix': parts\.0 has no name; give the name of a loss"),
        (lambda: Mix(({"name": "dpo", "weight": -1.0},)), r"parts\.0\.weight must be a number not below 0, got -1\.0"),
        (lambda: Mix(({"name": "nll"}, {"name": "dpo", "weight": "1"})), r"parts\.1\.weight must be a number"),
        (
            lambda: Mix(({"name": "dpo"}, {"name": "kto"})),
            "all parts must have the same unit, got DPO: pairs, KTO: rows",
        ),
        (lambda: Mix(({"name": "dpo", "bta": 1.0},)), "loss 'dpo' has no parameter 'bta'; did you mean 'beta'"),
    ],
)
def test_parameters_out_of_range_are_refused_with_advice(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ipo", {"label_smoothing": 0.1}, "loss 'ipo' has no parameter 'label_smoothing'"),
        ("hinge", {"label_smoothing": 0.1}, "loss 'hinge' has no parameter 'label_smoothing'"),
        ("kto", {"nll": 0.1}, "loss 'kto' has no parameter 'nll'"),
        ("orpo", {"label_smoothing": 0.1}, "loss 'orpo' has no parameter 'label_smoothing'; it has beta"),
        ("simpo", {"length_normalised": False}, "loss 'simpo' has no parameter 'length_normalised'"),
        ("mix", {"parts": "dpo"}, "loss 'mix': parts: Input should be a valid tuple, got 'dpo'"),
        ("mix", {"parts": ["dpo"]}, r"loss 'mix': parts\.0: Input should be a valid dictionary, got 'dpo'"),
        ("slic", {}, "there is no loss 'slic'; built in are dpo, ipo, hinge, robust, kto, orpo, simpo, cpo, nll, mix"),
    ],
)
def test_a_parameter_that_a_loss_would_ignore_is_refused(name, parameters, message):
    with pytest.raises(UserError, match=message):
        resolve_loss(name, parameters)


@dataclass(frozen=True)
class Scored(LanguageModel):
    output: ClassVar[str] = "scores"
    unit: ClassVar[str] = "pairs"


def test_parts_of_a_mix_read_the_same_output():
    with pytest.raises(UserError, match="all parts must have the same output, got DPO: logprobs, Scored: scores"):
        Mix(({"name": "dpo"}, {"name": f"{__name__}:Scored"}))
