import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.ops import kl


def test_estimators_by_hand():
    policy, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert kl.k1(policy, reference).item() == pytest.approx(math.log(2))
    assert kl.k2(policy, reference).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl.k3(policy, reference).item() == pytest.approx(-0.5 + math.log(2))


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.lists(st.floats(0.01, 1), min_size=2, max_size=6))
def test_k1_and_k3_are_unbiased(policy, reference):
    size = min(len(policy), len(reference))
    p, q = (torch.tensor(weights[:size], dtype=torch.float64) for weights in (policy, reference))
    p, q = p / p.sum(), q / q.sum()
    exact = torch.nn.functional.kl_div(q.log(), p, reduction="sum")
    for estimator in (kl.k1, kl.k3):
        torch.testing.assert_close((p * estimator(p.log(), q.log())).sum(), exact, atol=1e-12, rtol=1e-9)


@given(st.floats(-8, 0), st.floats(-8, 0))
def test_k2_and_k3_are_never_negative(policy, reference):
    pair = torch.tensor([policy]), torch.tensor([reference])
    assert kl.k2(*pair) >= 0
    assert kl.k3(*pair) >= -1e-6


def test_k3_stays_finite_where_the_policy_has_left_the_reference():
    policy = torch.tensor([-500.0, 0.0], requires_grad=True)
    values = kl.k3(policy, torch.tensor([0.0, -500.0]))
    values.sum().backward()
    assert values.isfinite().all()
    assert policy.grad.isfinite().all()


@pytest.mark.parametrize(
    ("observed", "expected"), [(6.0, 0.2), (6.6, 0.2 * 1.01), (60.0, 0.2 * 1.02), (0.0, 0.2 * 0.98)]
)
def test_the_coefficient_follows_the_error_by_at_most_a_fifth(observed, expected):
    assert kl.adapt(0.2, observed, target=6.0, horizon=1000, n_steps=100) == pytest.approx(expected)


def test_a_coefficient_never_turns_negative():
    assert kl.adapt(0.05, observed=1.0, target=10.0, horizon=100, n_steps=10_000) == pytest.approx(0.04)
