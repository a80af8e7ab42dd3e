"""Every built-in algorithm, loss and objective keeps the promises that `rlhf.testing.check` looks at."""

from __future__ import annotations

import pytest

from rlhf.algorithms import BUILT_IN, resolve
from rlhf.objectives import (
    LOSSES,
    REWARD_LOSSES,
    ClippedPolicy,
    ClippedValue,
    LanguageModel,
    Pairwise,
    resolve_loss,
    resolve_reward_loss,
)
from rlhf.testing import check

LOSS_PARAMETERS = {"mix": {"parts": [{"name": "dpo", "weight": 0.8}, {"name": "nll"}]}}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_algorithm_conforms(name):
    report = check(resolve(name, {}))
    assert not report.broken
    assert {"algorithm", "policy"} <= {verdict.subject for verdict in report.verdicts}


@pytest.mark.parametrize("name", LOSSES)
def test_every_built_in_loss_conforms(name):
    check(resolve_loss(name, LOSS_PARAMETERS.get(name, {})))


@pytest.mark.parametrize("name", REWARD_LOSSES)
def test_every_built_in_reward_loss_conforms(name):
    check(resolve_reward_loss(name, {}))


OTHERS = [
    LanguageModel(),
    LanguageModel(z_loss=1e-2),
    Pairwise(margin=True, centre=0.1),
    ClippedValue(),
    ClippedPolicy(),
    ClippedPolicy(average="sequence", kl_coef=0.1, entropy_coef=0.01),
]


@pytest.mark.parametrize("objective", OTHERS, ids=lambda objective: type(objective).__name__)
def test_every_other_objective_conforms(objective):
    check(objective)


@pytest.mark.parametrize("seed", range(1, 4))
def test_the_verdict_does_not_hang_on_the_seed(seed):
    check(resolve("ppo", {}), seed=seed)
