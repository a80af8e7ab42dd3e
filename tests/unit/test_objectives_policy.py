import math
import pickle

import pytest
import torch

from data.batch import Batch
from data.errors import UserError
from rlhf.objectives import CISPO, ClippedPolicy, Reinforce
from rlhf.ops import losses

NAN = math.nan
MASK = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]], dtype=torch.bool)
CASES = {
    "clipped": ClippedPolicy(0.2, 0.3),
    "clipped by row": ClippedPolicy(0.2, 0.3, average="sequence"),
    "clipped by a constant": ClippedPolicy(0.2, 0.3, average="constant", divisor=3),
    "dual clip": ClippedPolicy(0.2, 0.3, 1.5),
    "with a penalty": ClippedPolicy(kl_coef=0.3, kl_estimator="k2"),
    "with a weighted penalty": ClippedPolicy(kl_coef=0.3, kl_weighted=True),
    "with entropy": ClippedPolicy(entropy_coef=0.1, average="sequence"),
    "with both": Reinforce(entropy_coef=0.1, kl_coef=0.2),
    "gspo": ClippedPolicy(0.1, 0.1, ratio="sequence", average="sequence"),
    "product": ClippedPolicy(0.1, 0.1, ratio="product", average="sequence"),
    "cispo": CISPO(),
    "cispo, two bounds": CISPO(0.2, 0.2),
    "reinforce": Reinforce(),
}
every_objective = pytest.mark.parametrize("objective", CASES.values(), ids=CASES)


def problem(objective, outside=0.0, distance=0.5, advantage=None):
    """(out in fp64, a leaf; a batch of four rows, advantages the same over a row), with `outside` where not trained on."""
    torch.manual_seed(3)

    def column(values):
        return torch.where(MASK, values.double(), outside)

    old = torch.randn(4, 4).double() - 2
    gains = (
        torch.tensor([1.0, -2.0, 0.7, -0.4])[:, None].expand(4, 4)
        if advantage is None
        else torch.full((4, 4), advantage)
    )
    batch = Batch({
        "tokens": torch.ones(4, 4, dtype=torch.int32),
        "lengths": torch.full((4,), 4),
        "action_mask": MASK,
        "old_logprobs": column(old),
        "ref_logprobs": column(old + 0.3 * torch.randn(4, 4)),
        "advantages": column(gains),
    })  # fmt: skip
    out = column(old + distance * torch.randn(4, 4))
    if objective.output == "logprobs_entropy":
        out = torch.stack([out, column(torch.rand(4, 4))])
    return out.requires_grad_(), batch


@every_objective
def test_loss_and_metrics_are_sums_over_rows_and_read_the_named_columns_alone(objective):
    out, batch = problem(objective)
    batch = batch.keep({"tokens", "lengths", "action_mask"} | objective.columns)
    loss, metrics = objective(out, batch)
    parts = [objective(out[..., rows, :], batch.select(rows)) for rows in ([0, 1], [2, 3])]
    torch.testing.assert_close(loss, sum(part for part, _ in parts))
    for name, value in metrics.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, sum(found[name] for _, found in parts))


@every_objective
def test_nothing_from_outside_the_mask_reaches_loss_metrics_or_gradient(objective):
    found = []
    for outside in (0.0, NAN, math.inf):
        out, batch = problem(objective, outside)
        loss, metrics = objective(out, batch)
        gradient = torch.autograd.grad(loss, out)[0]
        assert (gradient[..., ~MASK] == 0).all()
        found.append((loss.detach(), metrics, gradient))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def frozen(objective, batch, logprobs):
    """CISPO's weight carries no gradient: with the weight as it is now, it is REINFORCE."""
    if not isinstance(objective, CISPO):
        return objective, batch
    ratio = (logprobs - batch.old_logprobs).exp()
    low = 0 if objective.clip_low is None else 1 - objective.clip_low
    weighted = batch.advantages * ratio.clamp(low, 1 + objective.clip_high)
    return Reinforce(), Batch(batch.columns | {"advantages": weighted})


@every_objective
def test_the_gradient_is_that_of_finite_differences(objective):
    out, batch = problem(objective)
    gradient = torch.autograd.grad(objective(out, batch)[0], out)[0]
    smooth, batch = frozen(objective, batch, out.detach())
    step = 1e-6
    for index in range(out.numel()):
        shift = torch.zeros(out.numel(), dtype=out.dtype)
        shift[index] = step
        above, below = (smooth(out.detach() + sign * shift.view_as(out), batch)[0] for sign in (1, -1))
        assert gradient.flatten()[index].item() == pytest.approx(((above - below) / (2 * step)).item(), abs=1e-7)


@pytest.mark.parametrize("name", [name for name, each in CASES.items() if not (each.kl_coef or each.entropy_coef)])
def test_no_advantage_gives_no_gradient(name):
    objective = CASES[name]
    out, batch = problem(objective, advantage=0.0)
    assert not torch.autograd.grad(objective(out, batch)[0], out)[0].any()


@pytest.mark.parametrize("name", ["clipped", "clipped by row", "clipped by a constant", "gspo", "cispo"])
def test_on_policy_the_gradient_is_that_of_reinforce(name):
    objective = CASES[name]
    out, batch = problem(objective, distance=0.0)
    plain = Reinforce(average=objective.average, divisor=objective.divisor)
    ours, theirs = (torch.autograd.grad(each(out, batch)[0], out)[0] for each in (objective, plain))
    torch.testing.assert_close(ours, theirs)


def test_on_policy_an_answer_as_one_action_has_the_gradient_of_reinforce_summed_over_its_tokens():
    out, batch = problem(CASES["product"], distance=0.0)
    plain = Reinforce(average="constant")
    ours, theirs = (torch.autograd.grad(each(out, batch)[0], out)[0] for each in (CASES["product"], plain))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["token", "sequence", "product"])
def test_on_policy_the_ratio_is_1_and_nothing_is_clipped(kind):
    out, batch = problem(CASES["clipped"], distance=0.0)
    assert (losses.probability_ratio(out, batch.old_logprobs, MASK, kind) == 1).all()
    objective = ClippedPolicy(0.0, 0.0, ratio=kind, average="sequence")
    loss, metrics = objective(out, batch)
    assert loss.item() == pytest.approx(-(1.0 - 2.0 + 0.7 - 0.4))
    assert metrics == {"clip_fraction": 0, "approx_kl": 0}


def two_rows(**columns):
    """Three tokens in the first row and one in the second; advantage 1 and 2."""
    mask = torch.tensor([[True, True, True], [True, False, False]])
    gains = torch.tensor([[1.0] * 3, [2.0] * 3])
    return Batch({"lengths": mask.sum(1), "action_mask": mask, "advantages": gains, **columns})


@pytest.mark.parametrize(
    ("options", "unit", "loss"),
    [
        ({}, "tokens", 3 * 1.0 * 1 + 2.0 * 2),  # -log p is 1 and 2
        ({"average": "sequence"}, "rows", 1.0 + 4.0),
        ({"average": "constant", "divisor": 4}, "rows", (3 * 1.0 + 4.0) / 4),
    ],
)
def test_averages_by_hand(options, unit, loss):
    objective = Reinforce(**options)
    out = torch.tensor([[-1.0] * 3, [-2.0, NAN, NAN]])
    assert objective.unit == unit
    assert objective(out, two_rows())[0].item() == pytest.approx(loss)


@pytest.mark.parametrize(("average", "expected"), [("token", 2.0), ("sequence", 1 + 1 / 3), ("constant", 1 + 1 / 3)])
def test_metrics_over_their_unit_are_means(average, expected):
    old = torch.zeros(2, 3)
    out = torch.log(torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))  # clipped: one token of three, one of one
    _, metrics = ClippedPolicy(average=average)(out, two_rows(old_logprobs=old))
    assert metrics["clip_fraction"].item() == pytest.approx(expected)
    assert metrics["approx_kl"].item() == pytest.approx(expected * (2 - 1 - math.log(2)))


def test_penalty_and_bonus_by_hand():
    reference = torch.full((2, 3), -1.5)
    out = torch.stack([torch.full((2, 3), -1.0), torch.full((2, 3), 0.25)])
    objective = Reinforce(kl_coef=0.1, kl_estimator="k1", entropy_coef=0.01)
    assert objective.output == "logprobs_entropy"
    loss, metrics = objective(out, two_rows(ref_logprobs=reference))
    assert loss.item() == pytest.approx((3 * 1 + 2) + 4 * (0.1 * 0.5 - 0.01 * 0.25))
    assert metrics == {"ref_kl": pytest.approx(4 * 0.5), "entropy": pytest.approx(4 * 0.25)}


def test_only_the_columns_that_are_read_are_shipped():
    assert Reinforce().columns == {"advantages"}
    assert Reinforce(kl_coef=0.1).columns == {"advantages", "ref_logprobs"}
    assert ClippedPolicy().columns == CISPO().columns == {"advantages", "old_logprobs"}
    assert Reinforce(kl_coef=0.1, kl_weighted=True).columns == {"advantages", "ref_logprobs", "old_logprobs"}
    assert Reinforce(kl_weighted=True).columns == {"advantages"}


@every_objective
def test_objectives_travel_by_value(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedPolicy(clip_low=1.1), "lower clip must lie in"),
        (lambda: ClippedPolicy(ratio="row"), "no ratio 'row'; take one of token, sequence, product"),
        (lambda: ClippedPolicy(ratio="product"), "set average to 'sequence', got 'token'"),
        (lambda: ClippedPolicy(average="rows"), "no average 'rows'; take one of token, sequence, constant"),
        (lambda: ClippedPolicy(average="constant", divisor=0), "divisor must be above 0, got 0"),
        (lambda: Reinforce(kl_coef=-0.1), "KL coefficient must not be negative, got -0.1"),
        (lambda: Reinforce(kl_estimator="k4"), "no KL estimator 'k4'; take one of k1, k2, k3"),
        (lambda: Reinforce(entropy_coef=NAN), "entropy coefficient must not be negative, got nan"),
        (lambda: CISPO(clip_low=2.0), "lower clip must lie in"),
        (lambda: CISPO(clip_high=-1.0), "upper clip must not be negative"),
    ],
)
def test_parameters_out_of_range_are_refused_with_advice(make, message):
    with pytest.raises(UserError, match=message):
        make()
