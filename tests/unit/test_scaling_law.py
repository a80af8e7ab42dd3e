"""What the law says of compute budgets, against brute force and the paper's own figures."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf.scaling.law import Law, best_size, compute_of

CHINCHILLA = Law(irreducible=1.69, size_coef=406.4, size_exponent=0.34, token_coef=410.7, token_exponent=0.28)
GOPHER_FLOPS = 5.76e23  # Hoffmann et al. 2022, section 1


@pytest.mark.parametrize("compute", [1e12, 1e18, GOPHER_FLOPS])
def test_the_optimum_is_that_of_a_search_over_all_sizes(compute):
    best = CHINCHILLA.optimum(compute)
    sizes = np.geomspace(best.parameters / 100, best.parameters * 100, 20_001)
    losses = CHINCHILLA.loss(sizes, compute / (6 * sizes))
    assert sizes[losses.argmin()] == pytest.approx(best.parameters, rel=1e-3)
    assert losses.min() == pytest.approx(best.loss, rel=1e-9)
    assert best.compute == pytest.approx(compute)


def test_the_papers_law_gives_the_papers_size_for_gophers_compute():
    """Hoffmann et al. 2022, section 3.3: 40 B parameters, from parameters that are not rounded as the printed ones are."""
    assert CHINCHILLA.optimum(GOPHER_FLOPS).parameters == pytest.approx(40e9, rel=0.25)


def test_the_loss_is_the_sum_of_its_three_parts():
    """Chinchilla's own 70 B parameters and 1.4 T tokens, by a pocket calculator."""
    assert CHINCHILLA.loss(70e9, 1.4e12) == pytest.approx(1.69 + 0.0834 + 0.1632, abs=2e-3)


def test_the_optimum_grows_with_compute_by_the_papers_exponents():
    ratio = CHINCHILLA.optimum(1e21).parameters / CHINCHILLA.optimum(1e19).parameters
    assert np.log(ratio) / np.log(100) == pytest.approx(0.28 / (0.34 + 0.28))  # equation 4: a = beta / (alpha + beta)


def test_the_best_of_given_sizes_is_found_by_trying_each():
    sizes = {"small": 10**6, "middle": 10**7, "large": 10**8}
    chosen = set()
    for compute in np.geomspace(1e12, 1e19, 30):
        name, training = best_size(CHINCHILLA, sizes, compute)
        losses = {each: CHINCHILLA.loss(size, compute / (6 * size)) for each, size in sizes.items()}
        assert name == min(losses, key=losses.get)
        assert training.loss == losses[name]
        assert compute_of(training.parameters, training.tokens) == pytest.approx(compute)
        chosen.add(name)
    assert chosen == sizes.keys()


def test_a_law_comes_back_from_its_letters():
    assert Law.of_letters(CHINCHILLA.letters()) == CHINCHILLA
