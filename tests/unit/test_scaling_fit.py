"""The fit finds the law that made the losses, and says when the losses cannot tell one."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import huber

from data.errors import UserError
from rlhf.scaling.fit import DELTA, _Problem, fit, fits_without_one, untold
from rlhf.scaling.law import Law, Training

# Hoffmann et al. 2022, equation 10
CHINCHILLA = Law(irreducible=1.69, size_coef=406.4, size_exponent=0.34, token_coef=410.7, token_exponent=0.28)
SMALL = Law(irreducible=1.2, size_coef=80.0, size_exponent=0.4, token_coef=60.0, token_exponent=0.35)
SMALL_GRID = list(product((6e4, 2e5, 5e5, 9e5), (1e5, 2e5, 4e5)))
LARGE_GRID = list(product((7e7, 4e8, 2e9, 1e10), (1e9, 1e10, 2e11)))


def losses(law: Law, grid: list[tuple[float, float]], noise: float = 0.0, seed: int = 0) -> tuple[Training, ...]:
    random = np.random.default_rng(seed)
    return tuple(Training(n, d, law.loss(n, d) * np.exp(noise * random.standard_normal())) for n, d in grid)


@cache
def fitted(points: tuple[Training, ...]) -> Law:
    """The fit, once for all tests with equal points."""
    return fit(points)


@pytest.mark.parametrize(("law", "grid"), [(SMALL, SMALL_GRID), (CHINCHILLA, LARGE_GRID)], ids=["small", "chinchilla"])
def test_the_law_that_made_the_losses_is_found(law, grid):
    assert list(fitted(losses(law, grid)).letters().values()) == pytest.approx(list(law.letters().values()), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_losses_with_noise_still_tell_what_a_larger_size_reaches(seed):
    law = fitted(losses(SMALL, SMALL_GRID, noise=0.005, seed=seed))
    assert law.loss(2e6, 4e5) == pytest.approx(SMALL.loss(2e6, 4e5), rel=0.01)


def test_one_wild_loss_moves_the_law_little():
    """What the Huber loss is for: a squared error would follow it."""
    points = losses(SMALL, SMALL_GRID)
    wild = [*points[:5], Training(points[5].parameters, points[5].tokens, 1.2 * points[5].loss), *points[6:]]
    assert fit(wild).loss(2e6, 4e5) == pytest.approx(SMALL.loss(2e6, 4e5), rel=1e-3)


def test_the_error_is_the_papers_and_its_gradient_is_its_own():
    """Hoffmann et al. 2022, equation 3, written out for one theta; here in units of delta squared."""
    points = losses(SMALL, SMALL_GRID, noise=0.01)
    problem = _Problem(points)
    a, b, e, alpha, beta = np.log(100.0), np.log(50.0), np.log(1.3), 0.42, 0.33
    terms = [
        (a - alpha * np.log(each.parameters), b - beta * np.log(each.tokens), e, np.log(each.loss)) for each in points
    ]
    written_out = sum(huber(DELTA, np.log(np.exp(n) + np.exp(d) + np.exp(e)) - loss) for n, d, e, loss in terms)
    theta = problem.theta_of(Law(np.exp(e), np.exp(a), alpha, np.exp(b), beta))
    error, gradient = problem.error(theta)
    assert error * DELTA**2 == pytest.approx(written_out)
    assert gradient == pytest.approx(approx_fprime(theta, lambda theta: problem.error(theta)[0]), rel=1e-4)


def test_no_other_start_ends_lower():
    points = losses(SMALL, SMALL_GRID, noise=0.01, seed=3)
    problem = _Problem(points)
    least = problem.error(problem.theta_of(fit(points)))[0]
    elsewhere = [
        Law(e, a, alpha, b, alpha) for e, a, alpha, b in product((0.3, 1.0), (20.0, 500.0), (0.3, 0.5), (20.0, 200.0))
    ]
    assert least <= min(problem.error(problem.theta_of(problem.solve(law)))[0] for law in elsewhere) * (1 + 1e-6)


def test_fits_without_one_training_agree_where_the_losses_are_exact_and_differ_where_they_are_not():
    exact, noisy = losses(SMALL, SMALL_GRID), losses(SMALL, SMALL_GRID, noise=0.01)
    told = [law.loss(2e6, 4e5) for law in fits_without_one(exact, fitted(exact))]
    assert len(told) == len(SMALL_GRID)
    assert told == pytest.approx([SMALL.loss(2e6, 4e5)] * len(told), rel=1e-6)
    assert np.ptp([law.loss(2e6, 4e5) for law in fits_without_one(noisy, fitted(noisy))]) > 1e-3


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda n, d: 30 / n**0.3 + 1, "tokens"),
        (lambda n, d: 30 / d**0.3 + 1, "sizes"),
        (lambda n, d: 2.0, "sizes, tokens"),
    ],
)
def test_a_law_of_losses_that_do_not_depend_on_sizes_or_tokens_says_so(loss, told):
    points = [Training(n, d, loss(n, d)) for n, d in SMALL_GRID]
    lines = untold(fit(points), points)
    assert [line.split()[7] for line in lines] == told.split(", ")
    assert all(line.startswith("the losses do not tell what more ") for line in lines)


@pytest.mark.parametrize("seed", range(3))
def test_a_law_of_losses_that_depend_on_both_tells_of_both(seed):
    points = losses(SMALL, SMALL_GRID, noise=0.005, seed=seed)
    assert untold(fitted(points), points) == []


def test_token_counts_that_came_out_a_little_nearer_than_asked_for_are_fitted():
    """The last row of a text is not full."""
    assert fit(losses(SMALL, list(product((6e4, 2e5, 5e5), (1.0e5, 1.5e5, 1.99e5)))))


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (product((6e4, 5e5), (1e5, 2e5, 4e5)), r"scaling\.sizes: the fit sees 2 sizes and needs at least 3"),
        (product((6e4, 2e5, 5e5), (1e5, 4e5)), r"scaling\.tokens: the fit sees 2 token counts"),
        (product((5e5, 6e5, 7e5), (1e5, 2e5, 4e5)), r"scaling\.sizes: the sizes lie within a factor of 1\.4"),
        (
            zip((6e4, 2e5, 5e5, 6e4, 2e5), (1e5, 2e5, 4e5, 4e5, 1e5)),
            r"scaling: 5 trainings cannot determine the law's 5",
        ),
    ],
)
def test_losses_that_cannot_tell_a_law_are_refused_with_advice(grid, told):
    with pytest.raises(UserError, match=told):
        fit(losses(SMALL, list(grid)))
