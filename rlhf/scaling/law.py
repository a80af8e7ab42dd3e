"""A scaling law: the loss of a model size and a number of tokens, and the best of both for a compute budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Forward and backward pass, without the products inside attention (Kaplan et al. 2020, section 2.1).
FLOPS_PER_PARAMETER_AND_TOKEN = 6

LETTERS = {"irreducible": "E", "size_coef": "A", "size_exponent": "alpha", "token_coef": "B", "token_exponent": "beta"}


@dataclass(frozen=True)
class Training:
    """A model size, a number of tokens, and the loss: measured or given by a law."""

    parameters: float
    tokens: float
    loss: float  # nats a token

    @property
    def compute(self) -> float:
        """Floating-point operations."""
        return compute_of(self.parameters, self.tokens)


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 2).

    N: all parameters of a model, as Hoffmann et al. count them: with embeddings, tied ones once. Embeddings are a large
    share of
        small models, and a count without them distorts the exponents (Pearce and Song 2024).
    D: tokens trained on.
    """

    irreducible: float  # E, nats: the loss that an unlimited model would have
    size_coef: float  # A
    size_exponent: float  # alpha
    token_coef: float  # B
    token_exponent: float  # beta

    def loss(self, parameters: float | np.ndarray, tokens: float | np.ndarray) -> float | np.ndarray:
        """Loss in nats a token, in the broadcast shape of the arguments."""
        return self.irreducible + self.size_part(parameters) + self.token_part(tokens)

    def size_part(self, parameters: float | np.ndarray) -> float | np.ndarray:
        """The part of the loss due to the model's finite size."""
        return self.size_coef / parameters**self.size_exponent

    def token_part(self, tokens: float | np.ndarray) -> float | np.ndarray:
        """The part of the loss due to the finite number of tokens."""
        return self.token_coef / tokens**self.token_exponent

    def letters(self) -> dict[str, float]:
        """The parameters by the letters of the paper, as in scaling.json."""
        return {letter: getattr(self, name) for name, letter in LETTERS.items()}

    @classmethod
    def of_letters(cls, letters: Mapping[str, float]) -> Law:
        """The inverse of `letters`."""
        return cls(**{name: letters[letter] for name, letter in LETTERS.items()})

    def optimum(self, compute: float) -> Training:
        """The size and tokens with the lowest loss, given 6 N D = compute (Hoffmann et al. 2022, equation 4)."""
        alpha, beta = self.size_exponent, self.token_exponent
        balance = (alpha * self.size_coef / (beta * self.token_coef)) ** (1 / (alpha + beta))
        product = compute / FLOPS_PER_PARAMETER_AND_TOKEN
        parameters = balance * product ** (beta / (alpha + beta))
        tokens = product ** (alpha / (alpha + beta)) / balance
        return Training(parameters, tokens, self.loss(parameters, tokens))


def compute_of(parameters: float, tokens: float) -> float:
    """Floating-point operations of a training, C = 6 N D."""
    return FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens


def best_size(law: Law, sizes: Mapping[str, int], compute: float) -> tuple[str, Training]:
    """(name, training) with the lowest loss among the sizes (parameters by name), each trained on all tokens that the
    compute allows."""
    trainings = {}
    for name, parameters in sizes.items():
        tokens = compute / compute_of(parameters, 1)
        trainings[name] = Training(parameters, tokens, law.loss(parameters, tokens))
    return min(trainings.items(), key=lambda item: item[1].loss)
