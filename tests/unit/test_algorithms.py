import math
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import pytest
import torch

from data.batch import Batch
from data.errors import UserError
from rlhf.algorithms import resolve
from rlhf.algorithms.grpo import GRPO
from rlhf.algorithms.ppo import GAE, KL, PPO
from rlhf.interfaces import Algorithm
from rlhf.objectives import ClippedPolicy, ClippedValue

NAN = math.nan


def rollouts(**columns):
    """Four rows of two prompts; the response is token 2 (and 3)."""
    tokens = [[1, 2, 3, 4], [1, 2, 3], [5, 6, 7, 8], [5, 6, 7]]
    masks = [[False, False] + [True] * (len(row) - 2) for row in tokens]
    rewards = [1.0, 3.0, 0.0, 4.0]
    return Batch.from_rows(tokens, masks, group_ids=[0, 0, 1, 1], rewards=rewards).with_columns(**columns)


def per_token(inside, outside=NAN):
    return torch.where(rollouts().action_mask, torch.as_tensor(inside), outside)


def ppo_batch(outside=NAN):
    return rollouts(
        old_logprobs=per_token(-1.0, outside), ref_logprobs=per_token(-1.5, outside), values=per_token(0.5, outside)
    )


def test_ppo_by_hand():
    algorithm = PPO(kl=KL(coef=0.2), gae=GAE(gamma=0.5, lam=0.5), whiten=False, reward_clip=2.0)
    result = algorithm.advantages(ppo_batch())
    # reward: -0.2 * 0.5 a token, the score, at most 2, on the last one; value 0.5 throughout
    last, second = 1 - 0.1 - 0.5, 0 - 0.1 - 0.5
    row_0 = [0, 0, -0.1 + 0.5 * 0.5 - 0.5 + 0.25 * last, last]
    row_2 = [0, 0, -0.1 + 0.5 * 0.5 - 0.5 + 0.25 * second, second]
    expected = torch.tensor([row_0, [0, 0, 2 - 0.1 - 0.5, 0], row_2, [0, 0, 2 - 0.1 - 0.5, 0]])
    torch.testing.assert_close(result.advantages, expected)
    torch.testing.assert_close(result.returns, torch.where(result.action_mask, expected + 0.5, 0))


def test_ppo_whitens_over_action_tokens():
    result = PPO().advantages(ppo_batch())
    own = result.advantages[result.action_mask]
    assert own.mean().item() == pytest.approx(0, abs=1e-6)
    assert own.std().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_ppo_lets_nothing_from_outside_the_mask_in(estimator):
    algorithm = PPO(kl=KL(estimator=estimator))
    poisoned, clean = algorithm.advantages(ppo_batch(NAN)), algorithm.advantages(ppo_batch(0.0))
    for name in ("advantages", "returns"):
        torch.testing.assert_close(poisoned.columns[name], clean.columns[name])


def test_ppo_leaves_its_input_as_it_was():
    batch = ppo_batch(0.0)
    before = {name: value.clone() for name, value in batch.columns.items()}
    PPO(reward_clip=1.0).advantages(batch)
    assert batch.columns.keys() == before.keys()
    assert all(torch.equal(batch.columns[name], value) for name, value in before.items())


def test_ppo_trains_policy_and_critic():
    algorithm = PPO(clip=0.1, value_clip=None)
    assert algorithm.objectives() == {"policy": ClippedPolicy(0.1, 0.1), "critic": ClippedValue(None)}


def test_a_fixed_coefficient_stays():
    algorithm = PPO(kl=KL(coef=0.3))
    assert algorithm.after_step({"kl": 100.0, "samples": 64}) is algorithm


def test_an_adaptive_coefficient_moves_and_returns_from_its_state():
    algorithm = PPO(kl=KL(coef=0.2, target=6.0, horizon=100))
    moved = algorithm.after_step({"kl": 9.0, "samples": 50})
    assert moved.kl.coef == pytest.approx(0.2 * (1 + 0.2 * 0.5))
    assert algorithm.kl.coef == 0.2
    assert algorithm.with_state(moved.state()) == moved
    assert algorithm.with_state({}) == algorithm


def test_grpo_by_hand():
    centred = GRPO(normalise_std=False).advantages(rollouts())
    expected = torch.tensor([[0, 0, -1, -1], [0, 0, 1, 0], [0, 0, -2, -2], [0, 0, 2, 0]])
    torch.testing.assert_close(centred.advantages, expected.float())
    root = math.sqrt(0.5)
    normalised = GRPO().advantages(rollouts()).advantages
    torch.testing.assert_close(normalised, expected.sign() * root, atol=1e-5, rtol=0)


def test_grpo_needs_no_other_model():
    assert GRPO.needs == {"old_logprobs"}
    assert GRPO(0.2, 0.28).objectives() == {"policy": ClippedPolicy(0.2, 0.28)}


def test_resolve_builds_nested_parameters_from_a_config():
    algorithm = resolve("ppo", {"clip": 0.1, "kl": {"coef": 0.01, "estimator": "k3"}, "gae": {"lam": 1}})
    assert algorithm == PPO(clip=0.1, kl=KL(coef=0.01, estimator="k3"), gae=GAE(lam=1.0))
    assert resolve("grpo", {}) == GRPO()


@dataclass(frozen=True)
class Constant(Algorithm):
    height: float = 1.0
    inner: KL = dataclass_field(default_factory=KL)

    def objectives(self):
        return {"policy": ClippedPolicy()}


def test_resolve_finds_an_algorithm_by_its_import_path():
    assert resolve(f"{__name__}:Constant", {"height": 2}) == Constant(height=2.0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ppoo", {}, "there is no algorithm 'ppoo'; built in are ppo, grpo"),
        ("ppo", {"clpi": 0.1}, "algorithm 'ppo' has no parameter 'clpi'; did you mean 'clip'?"),
        ("ppo", {"kl": {"coeff": 0.1}}, "algorithm 'ppo' has no parameter 'kl.coeff'; did you mean 'coef'?"),
        ("grpo", {"zzz": 1}, "it has clip_low, clip_high, normalise_std"),
        ("ppo", {"clip": "wide"}, "algorithm 'ppo': clip: .*'wide'"),
        ("ppo", {"kl": {"estimator": "k4"}}, "algorithm 'ppo': kl.estimator: .*'k4'"),
        ("ppo", {"kl": {"coef": -1}}, "kl.coef: .*greater than or equal to 0, got -1"),
        ("ppo", {"clip": -0.1}, "lower clip must lie in"),
        (f"{__name__}:Constant", {"hight": 1}, "did you mean 'height'?"),
        (f"{__name__}:Constant", {"inner": {"coef_": 1}}, "no parameter 'inner.coef_'; did you mean 'coef'?"),
        ("data.batch:Batch", {}, "must be a dataclass that derives from rlhf.interfaces.Algorithm"),
        ("rlhf.algorithms.ppo:PPOO", {}, "did you mean 'PPO'?"),
    ],
)
def test_resolve_refuses_with_advice(name, parameters, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        resolve(name, parameters)
