"""Fits a scaling law to measured losses, and fits it again without each one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from data.errors import UserError
from rlhf.config.scaling import FEWEST, NARROWEST
from rlhf.scaling.law import Law, Training

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

DELTA = 1e-3  # of the Huber loss, in log loss (Hoffmann et al. 2022, section D.2): larger errors count linearly
# Share of NARROWEST, the range that the config's rules demand: measured sizes and tokens differ a little from the
# config, since rows are not all full and vocabularies not as large as asked for.
NEARLY = 0.9
PARAMETERS = 5  # of the law
# Starts: the three terms as shares of the median loss at the middle of the grid, and the two exponents. Hoffmann et al.
# start from coefficients, which would fit only grids of their size.
STARTS = np.array(
    [
        (irreducible, size, token, alpha, beta)
        for irreducible, size, token in product((0.1, 0.4, 0.7, 0.9), (0.03, 0.1, 0.3), (0.03, 0.1, 0.3))
        for alpha, beta in product((0.1, 0.3, 0.6, 1.0, 1.5), repeat=2)
    ]
)
DESCENTS = 24  # short descents, from the starts with the lowest error
A_WHILE = {"maxiter": 60}
FINALISTS = 3  # best ends of the short descents, which are continued to the end
TO_THE_END = {"maxiter": 2000, "maxfun": 20000, "ftol": 1e-13, "gtol": 1e-8}
EXPONENTS = (0.01, 5)  # lowest and highest
BOUNDS = ((-20, 20), (-20, 20), (-20, 20), EXPONENTS, EXPONENTS)
NO_PART = 1e-4  # share of the loss: a term that is smaller everywhere is not seen


def fit(points: Sequence[Training]) -> Law:
    """The law with the lowest Huber error between logarithms of predicted and measured losses (Hoffmann et al. 2022,
    section 3.3), the best of many L-BFGS descents.

    Raises UserError where the points cannot determine the law's five parameters.
    """
    if lack := _too_few(points):
        raise UserError(lack)
    return _Problem(points).solve()


def fits_without_one(points: Sequence[Training], law: Law) -> list[Law]:
    """Laws fitted without one of the points, for each point that can be left out. Their spread shows how uncertain the
    law is."""
    laws = []
    for left_out in range(len(points)):
        others = [*points[:left_out], *points[left_out + 1 :]]
        if not _too_few(others):
            laws.append(_Problem(others).solve(law))
    return laws


def untold(law: Law, points: Sequence[Training]) -> list[str]:
    """Why the law gives no best size for a compute budget: a line each for sizes and for tokens, if the exponent is at
    the end of the fit's range, or the term is a negligible part of the loss everywhere. Empty where the law gives
    one."""
    least, greatest = EXPONENTS
    found = []
    for what, letter, exponent, parts in (
        ("sizes", "alpha", law.size_exponent, [law.size_part(point.parameters) for point in points]),
        ("tokens", "beta", law.token_exponent, [law.token_part(point.tokens) for point in points]),
    ):
        share = max(part / point.loss for part, point in zip(parts, points))
        if share < NO_PART:
            reason = f"their term is at most {share:.1g} of the loss"
        elif exponent < 1.001 * least or exponent > 0.999 * greatest:
            reason = f"{letter} is {exponent:.3g}, the end of the range of the fit"
        else:
            continue
        found.append(
            f"the losses do not tell what more {what} would change: {reason}; cannot fit a best size; use a wider range of {what}"
        )
    return found


def _too_few(points: Sequence[Training]) -> str | None:
    """Why the points are not enough, with advice; None if they are."""
    for values, what, setting in (
        ({point.parameters for point in points}, "sizes", "sizes"),
        ({point.tokens for point in points}, "token counts", "tokens"),
    ):
        if len(values) < FEWEST:
            return f"scaling.{setting}: the fit sees {len(values)} {what} and needs at least {FEWEST}: add {what} that are not held out"
        if max(values) < NEARLY * NARROWEST * min(values):
            factor = max(values) / min(values)
            return (
                f"scaling.{setting}: the {what} lie within a factor of {factor:.2g}, too close to determine an "
                f"exponent: spread them over a factor of at least {NARROWEST:g}, better 8"
            )
    if len(points) <= PARAMETERS:
        return f"scaling: {len(points)} trainings cannot determine the law's {PARAMETERS} parameters: add sizes or token counts"
    return None


class _Problem:
    """The error as a function of theta (5,): logarithms of the three terms at the middle of the grid, alpha, beta. With
    logarithms of sizes and tokens centred there, coefficients and exponents are nearly independent."""

    def __init__(self, points: Sequence[Training]) -> None:
        sizes, tokens, losses = (
            np.log([getattr(point, name) for point in points]) for name in ("parameters", "tokens", "loss")
        )
        self.middle = sizes.mean(), tokens.mean()
        self.sizes, self.tokens, self.losses = sizes - self.middle[0], tokens - self.middle[1], losses  # (points,) fp64

    def terms(self, theta: np.ndarray) -> np.ndarray:
        """(…, 5) -> (…, points, 3): logarithms of the law's terms."""
        irreducible, size, token, alpha, beta = (theta[..., index, None] for index in range(PARAMETERS))
        size, token = size - alpha * self.sizes, token - beta * self.tokens
        return np.stack([np.broadcast_to(irreducible, size.shape), size, token], -1)

    def error(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(error (…), its gradient (…, 5)), in units of delta squared; unscaled, the error is so small that the
        optimiser's tolerances would end the descent at once."""
        from scipy.special import huber

        terms = self.terms(theta)
        highest = terms.max(-1, keepdims=True)
        parts = np.exp(terms - highest)
        whole = parts.sum(-1, keepdims=True)
        off = ((highest + np.log(whole))[..., 0] - self.losses) / DELTA  # (…, points)
        pull = np.clip(off, -1, 1)[..., None] * parts / whole / DELTA  # (…, points, 3)
        slopes = [-(pull[..., 1] * self.sizes).sum(-1), -(pull[..., 2] * self.tokens).sum(-1)]
        return huber(1.0, off).sum(-1), np.concatenate([pull.sum(-2), np.stack(slopes, -1)], -1)

    def solve(self, near: Law | None = None) -> Law:
        """The best law. near: a law to start from instead of from STARTS."""
        if near is None:
            starts = STARTS.copy()
            starts[:, :3] = np.log(STARTS[:, :3]) + np.median(self.losses)
            starts = starts[np.argsort(self.error(starts)[0], kind="stable")[:DESCENTS]]
            ends = sorted((self.descend(start, A_WHILE) for start in starts), key=lambda end: end.fun)
            starts = [end.x for end in ends[:FINALISTS]]
        else:
            # from a law without irreducible loss no gradient leads back to one, so half the lowest loss is a second
            # start
            half = replace(near, irreducible=0.5 * float(np.exp(self.losses.min())))
            starts = [self.theta_of(near), self.theta_of(half)]
        ends = [self.descend(start, TO_THE_END) for start in starts]
        return self.law_of(min(ends, key=lambda end: end.fun).x)

    def descend(self, start: np.ndarray, options: Mapping[str, float]) -> OptimizeResult:
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        # on five numbers, the threads of BLAS only wait for each other: 14 times the CPU time
        with threadpool_limits(1):
            return minimize(self.error, start, jac=True, method="L-BFGS-B", bounds=BOUNDS, options=options)

    def law_of(self, theta: np.ndarray) -> Law:
        irreducible, size, token, alpha, beta = theta.tolist()
        size, token = size + alpha * self.middle[0], token + beta * self.middle[1]
        return Law(float(np.exp(irreducible)), float(np.exp(size)), alpha, float(np.exp(token)), beta)

    def theta_of(self, law: Law) -> np.ndarray:
        middle = np.exp(self.middle)
        parts = law.irreducible, law.size_part(middle[0]), law.token_part(middle[1])
        return np.array([*np.log(parts), law.size_exponent, law.token_exponent])
