import dataclasses
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import pytest
import torch
from rollout_cases import NAN, with_forwards

from data.errors import UserError
from rlhf.algorithms import BUILT_IN, resolve
from rlhf.algorithms.grpo import GRPO
from rlhf.algorithms.ppo import GAE, KL, PPO
from rlhf.interfaces import Algorithm
from rlhf.objectives import ClippedPolicy, ClippedValue


def test_ppo_by_hand():
    algorithm = PPO(kl=KL(coef=0.2), gae=GAE(gamma=0.5, lam=0.5), whiten=False)
    result = algorithm.advantages(with_forwards())
    # reward: -0.2 * 0.5 a token, the score on the last one; value 0.5 throughout
    last, second = 1 - 0.1 - 0.5, 0 - 0.1 - 0.5
    row_0 = [0, 0, -0.1 + 0.5 * 0.5 - 0.5 + 0.25 * last, last]
    row_2 = [0, 0, -0.1 + 0.5 * 0.5 - 0.5 + 0.25 * second, second]
    expected = torch.tensor([row_0, [0, 0, 3 - 0.1 - 0.5, 0], row_2, [0, 0, 4 - 0.1 - 0.5, 0]])
    torch.testing.assert_close(result.advantages, expected)
    torch.testing.assert_close(result.returns, torch.where(result.action_mask, expected + 0.5, 0))


def test_ppo_whitens_over_action_tokens():
    result = PPO().advantages(with_forwards())
    own = result.advantages[result.action_mask]
    assert own.mean().item() == pytest.approx(0, abs=1e-6)
    assert own.std().item() == pytest.approx(1, abs=1e-5)


def test_ppo_trains_policy_and_critic():
    algorithm = PPO(clip_low=0.1, clip_high=0.3, dual_clip=3.0, value_clip=None, entropy=0.01)
    policy = ClippedPolicy(0.1, 0.3, 3.0, entropy_coef=0.01)
    assert algorithm.objectives() == {"policy": policy, "critic": ClippedValue(None)}
    assert algorithm.needs == {"old_logprobs", "ref_logprobs", "values"}
    assert algorithm.samples_per_prompt == 1


def test_the_penalty_of_ppo_may_be_in_the_loss():
    algorithm = PPO(kl=KL(coef=0.2, estimator="k2", place="loss"), gae=GAE(lam=1.0), whiten=False)
    gains = algorithm.advantages(with_forwards()).advantages
    torch.testing.assert_close(gains[1], torch.tensor([0, 0, 3 - 0.5, 0]))
    assert algorithm.objectives()["policy"] == ClippedPolicy(kl_coef=0.2, kl_estimator="k2")
    assert "ref_logprobs" in algorithm.needs


def test_ppo_without_a_penalty_needs_no_reference():
    algorithm = PPO(kl=KL(coef=0.0), whiten=False)
    assert algorithm.needs == {"old_logprobs", "values"}
    batch = with_forwards()
    batch = batch.keep(batch.columns.keys() - {"ref_logprobs"})
    assert algorithm.advantages(batch).advantages[3, 2] == 4 - 0.5


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


def test_resolve_builds_nested_parameters_from_a_config():
    algorithm = resolve("ppo", {"clip_low": 0.1, "kl": {"coef": 0.01, "estimator": "k3"}, "gae": {"lam": 1}})
    assert algorithm == PPO(clip_low=0.1, kl=KL(coef=0.01, estimator="k3"), gae=GAE(lam=1.0))
    assert resolve("grpo", {}) == GRPO()


@pytest.mark.parametrize("name", BUILT_IN)
def test_nothing_from_outside_the_mask_reaches_an_advantage(name):
    algorithm = resolve(name, {})
    poisoned, clean = algorithm.advantages(with_forwards(NAN)), algorithm.advantages(with_forwards(0.0))
    for column in ("advantages", "returns"):
        if column in clean:
            torch.testing.assert_close(poisoned.columns[column], clean.columns[column])
            assert (clean.columns[column][~clean.action_mask] == 0).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_algorithms_leave_their_batch_as_it_was_and_read_what_they_name(name):
    algorithm, batch = resolve(name, {}), with_forwards(0.0)
    batch = batch.keep({"tokens", "lengths", "action_mask", "group_ids", "rewards"} | algorithm.needs)
    before = {column: value.clone() for column, value in batch.columns.items()}
    result = algorithm.advantages(batch)
    assert batch.columns.keys() == before.keys()
    assert all(torch.equal(batch.columns[column], value) for column, value in before.items())
    read = set().union(*(objective.columns for objective in algorithm.objectives().values()))
    assert read <= result.columns.keys()


@pytest.mark.parametrize("name", [name for name in BUILT_IN if resolve(name, {}).samples_per_prompt > 1])
def test_a_sample_that_is_alone_in_its_group_teaches_nothing(name):
    batch = with_forwards().select([0, 1, 2])
    result = resolve(name, {}).advantages(batch)
    if name == "online_dpo":
        assert result.tokens.tolist() == [[1, 2, 3, 0], [1, 2, 3, 4]]
    else:
        assert (result.advantages[2] == 0).all()
        assert result.advantages.isfinite().all()
        assert result.advantages[:2].any()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_batch_of_one_row_gives_finite_advantages(name):
    result = resolve(name, {}).advantages(with_forwards().select([0]))
    assert name == "online_dpo" or result.advantages.isfinite().all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_of_a_built_in_algorithm_is_a_field_with_a_default(name):
    algorithm = resolve(name, {})
    fields = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
    assert type(algorithm)(**fields) == algorithm
    assert algorithm.with_state(algorithm.state()) == algorithm


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
        ("ppoo", {}, "there is no algorithm 'ppoo'; built in are ppo, grpo, dr_grpo, dapo"),
        ("ppo", {"clpi_low": 0.1}, "algorithm 'ppo' has no parameter 'clpi_low'; did you mean 'clip_low'?"),
        ("ppo", {"kl": {"coeff": 0.1}}, "algorithm 'ppo' has no parameter 'kl.coeff'; did you mean 'coef'?"),
        ("grpo", {"zzz": 1}, "it has kl, entropy, clip_low, clip_high, dual_clip, normalise_std"),
        ("ppo", {"clip_low": "wide"}, "algorithm 'ppo': clip_low: .*'wide'"),
        ("ppo", {"kl": {"estimator": "k4"}}, "algorithm 'ppo': kl.estimator: .*'k4'"),
        ("ppo", {"kl": {"coef": -1}}, "kl.coef: .*greater than or equal to 0, got -1"),
        ("ppo", {"clip_low": -0.1}, "lower clip must lie in"),
        ("ppo", {"clip_high": -0.1}, "upper clip must not be negative"),
        ("ppo", {"dual_clip": 0.5}, "dual_clip must be above 1"),
        ("ppo", {"value_clip": 0}, "value clip must be above 0"),
        ("ppo", {"entropy": -1}, "entropy: .*greater than or equal to 0, got -1"),
        ("ppo", {"kl": {"coef": 0, "target": 6}}, "start from a coef of 0.05"),
        ("ppo", {"kl": {"place": "loss"}}, "set kl.estimator to k2 or k3"),
        ("grpo", {"kl": {"coef": 0.1, "estimator": "k1"}}, "k1 has a gradient of 0 on average; set kl.estimator"),
        ("grpo", {"kl": {"coef": 0.1, "estimator": "k2", "weighted": True}}, "has the gradient of no KL"),
        ("grpo", {"std_eps": -1e-6}, "std_eps: .*greater than or equal to 0"),
        ("grpo", {"average": "constant"}, "average: .*'token' or 'sequence', got 'constant'"),
        ("dr_grpo", {"divisor": 0}, "divisor must be above 0, got 0.0; take the most tokens of an answer"),
        ("dapo", {"refills": -1}, "refills: .*greater than or equal to 0"),
        ("gspo", {"clip_low": -1}, "lower clip must lie in"),
        ("cispo", {"clip_low": 2}, "lower clip must lie in"),
        ("rloo", {"kl": {"coef": -1}}, "kl.coef: .*greater than or equal to 0"),
        ("reinforce_pp", {"gamma": 1.5}, "gamma: .*less than or equal to 1"),
        ("online_dpo", {"beta": 0}, "beta must be above 0"),
        (f"{__name__}:Constant", {"hight": 1}, "did you mean 'height'?"),
        (f"{__name__}:Constant", {"inner": {"coef_": 1}}, "no parameter 'inner.coef_'; did you mean 'coef'?"),
        ("data.batch:Batch", {}, "must be a dataclass that derives from rlhf.interfaces.Algorithm"),
        ("rlhf.algorithms.ppo:PPOO", {}, "did you mean 'PPO'?"),
    ],
)
def test_resolve_refuses_with_advice(name, parameters, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        resolve(name, parameters)
