"""Estimators of KL(policy || reference) from sampled tokens, and the controller of the penalty's coefficient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# exp(20) is 5e8, far beyond any clip; unbounded, exp overflows and its gradient is NaN even where it is clipped away
LARGEST_LOG_RATIO = 20.0

# The estimators: John Schulman, "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html.
# Each takes the sampled tokens' log-probs by the policy and by the reference, any shape, and gives one value a token.


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log(policy / reference): unbiased, of high variance, may be negative."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: biased, of low variance, never negative."""
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(r - 1) - log r with r = reference / policy: unbiased, of low variance, never negative. log r is kept within 20."""
    log_ratio = (ref_logprobs - logprobs).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio


ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


def adapt(coef: float, observed: float, target: float, horizon: int, n_steps: float) -> float:
    """The coefficient for the next step: a proportional controller in log space (Ziegler et al. 2019, section 2.2).

    observed, target: KL of a sequence in nats. n_steps: sequences seen since the last call; horizon: sequences over
    which the error, at most 20 % a time, is worked off.
    """
    error = min(max(observed / target - 1, -0.2), 0.2)
    return coef * (1 + error * min(n_steps / horizon, 1.0))  # at most the whole error at once: it stays above 0
