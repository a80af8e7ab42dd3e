"""Rewards, penalties and advantages against trl, OpenRLHF and verl."""

import pytest
import torch
from oracle_arrays import Oracle, arrays

from data.batch import Batch
from rlhf.algorithms import resolve
from rlhf.ops import advantages, kl, masked


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.99, 0.95), (1.0, 1.0)])
def test_gae(oracle, gamma, lam):
    mask = oracle.mask
    gains, returns = advantages.gae(oracle["in/ppo_token_rewards"], oracle["in/ppo_values_old"], mask, gamma, lam)
    name = f"gae/g{gamma}_l{lam}"
    oracle.agrees(gains, f"{name}/openrlhf/adv", mask)
    oracle.agrees(returns, f"{name}/openrlhf/returns", mask)
    oracle.agrees(masked.whiten(gains, mask), f"{name}/verl/adv_whitened")
    oracle.agrees(returns, f"{name}/verl/returns")


def test_gae_skips_over_holes_in_the_mask(oracle):
    mask = oracle["in/ppo_mask_holes"].bool()
    gains, returns = advantages.gae(oracle["in/ppo_token_rewards"], oracle["in/ppo_values_old"], mask, 1.0, 0.95)
    oracle.agrees(masked.whiten(gains, mask), "gae/holes_g1.0_l0.95/verl/adv_whitened", mask)
    oracle.agrees(returns, "gae/holes_g1.0_l0.95/verl/returns", mask)


def test_gae_without_values_gives_discounted_returns(oracle):
    mask, rewards = oracle.mask, oracle["in/ppo_token_rewards"]
    discounted = advantages.discounted_returns(rewards, mask, 0.99)
    oracle.agrees(discounted, "gae/cumret_g0.99/openrlhf", mask)
    oracle.agrees(masked.whiten(discounted, mask), "adv/reinforce_pp_gamma0.99/verl", mask)
    undiscounted = advantages.discounted_returns(rewards, mask)
    oracle.agrees(masked.whiten(undiscounted, mask), "adv/reinforce_pp_gamma1/verl", mask)


def test_masked_statistics(oracle):
    values, mask = oracle["in/ppo_adv"], oracle.mask
    oracle.agrees(masked.mean(values, mask), "ppo/masked_mean/trl110")
    oracle.agrees(masked.variance(values, mask), "ppo/masked_var/trl110")
    for peer in ("verl", "trl110"):
        oracle.agrees(masked.whiten(values, mask), f"ppo/whiten/{peer}", mask)
        oracle.agrees(masked.whiten(values, mask, shift_mean=False), f"ppo/whiten_noshift/{peer}", mask)


def test_whitening_of_each_row(oracle):
    values, mask = oracle["in/ppo_adv"], oracle.mask
    count = mask.sum(1, keepdim=True)
    rows = torch.stack([masked.whiten(row, own) for row, own in zip(values, mask)])
    # OpenRLHF whitens by the biased variance, which is 0 in a row of one token
    oracle.agrees(rows * (count / (count - 1).clamp(min=1)).sqrt(), "ppo/normalize_rows/openrlhf", mask)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimators(oracle, estimator):
    new = oracle["in/ppo_new_logp"].requires_grad_()
    values = kl.ESTIMATORS[estimator](new, oracle["in/ppo_ref_logp"])
    for peer in ("verl", "openrlhf"):
        oracle.agrees(values.detach(), f"kl/{estimator}/{peer}", oracle.mask)
    gradient = torch.autograd.grad(values.sum(), new)[0]
    oracle.agrees(gradient, f"kl/{estimator}/verl/grad", oracle.mask)


def test_token_rewards(oracle):
    mask, scores = oracle.mask, oracle["in/ppo_score"]
    penalties = 0.1 * kl.k1(oracle["in/ppo_old_logp"], oracle["in/ppo_ref_logp"])
    oracle.agrees(advantages.token_rewards(scores, penalties, mask), "kl/reward_shaping0.1/openrlhf", mask)
    clipped = scores.clamp(-0.5, 0.5)
    oracle.agrees(advantages.token_rewards(clipped, penalties, mask), "kl/reward_shaping_clip/openrlhf", mask)


@pytest.mark.parametrize("peer", ["openrlhf", "verl"])
def test_adaptive_kl_coefficient(peer):
    coef, path = 0.2, []
    for observed in arrays()["in/klctl_observed"].tolist():
        coef = kl.adapt(coef, observed, target=6.0, horizon=10_000, n_steps=256)
        path.append(coef)
    Oracle(torch.float64).agrees(torch.tensor(path, dtype=torch.float64), f"klctl/init0.2_target6_h10000_n256/{peer}")


def test_group_advantages(oracle):
    rewards, groups = oracle["in/ppo_score"], oracle.groups
    normalised = advantages.group_normalised(rewards, groups)
    centred = advantages.group_centred(rewards, groups)
    against_others = advantages.leave_one_out(rewards, groups)
    oracle.agrees(advantages.group_normalised(rewards, groups, eps=1e-4), "adv/grpo_scale_group/trl")
    oracle.agrees(centred, "adv/grpo_scale_none/trl")
    oracle.agrees(against_others, "adv/rloo_normFalse/trl")
    per_token = {
        name: gains[:, None] * oracle["in/ppo_mask"]
        for name, gains in [("grpo", normalised), ("drgrpo", centred), ("rloo", against_others)]
    }
    for name, gains in per_token.items():
        oracle.agrees(gains, f"adv/{name}/verl")
    oracle.agrees(advantages.batch_normalised(centred, rewards, eps=1e-4), "adv/grpo_scale_batch/trl")
    shifted = against_others - against_others.mean()
    oracle.agrees(advantages.batch_normalised(shifted, against_others, eps=1e-4), "adv/rloo_normTrue/trl")
    weighted = advantages.length_weighted_centred(rewards, oracle.mask.sum(1), groups)
    oracle.agrees(advantages.on_tokens(weighted, oracle.mask), "adv/opo/verl")
    oracle.agrees(advantages.on_tokens(rewards - 0.25, oracle.mask), "adv/remax/verl")
    oracle.agrees(masked.whiten(per_token["drgrpo"], oracle.mask), "adv/reinforce_pp_baseline/verl", oracle.mask)


@pytest.mark.parametrize("estimator", ["rloo", "dr_grpo", "group_norm"])
def test_group_advantages_with_the_penalty_in_the_return(oracle, estimator):
    relative = {
        "rloo": advantages.leave_one_out,
        "dr_grpo": advantages.group_centred,
        "group_norm": lambda rewards, groups: advantages.group_normalised(rewards, groups, eps=1e-9),
    }[estimator]
    penalties = 0.05 * kl.k1(oracle["in/ppo_old_logp"], oracle["in/ppo_ref_logp"])
    scores = relative(oracle["in/ppo_score"], oracle.groups)
    rewards = advantages.token_rewards(scores, penalties, oracle.mask)
    gains = advantages.discounted_returns(rewards, oracle.mask)
    oracle.agrees(gains, f"adv/openrlhf_{estimator}_kl0.05/openrlhf")


def batch_of(oracle):
    """Their columns behind a prompt of one token."""
    columns = {"old_logprobs": "old_logp", "ref_logprobs": "ref_logp", "values": "values_old"}
    lengths = 1 + oracle.mask.sum(1)
    rows = [list(range(1, n + 1)) for n in lengths.tolist()]
    batch = Batch.from_rows(
        rows,
        [[False] + [True] * (len(row) - 1) for row in rows],
        rewards=oracle["in/ppo_score"],
        group_ids=oracle["in/group_index"],
        greedy_rewards=torch.full((len(rows),), 0.25),
    )
    prompt = torch.zeros(len(batch), 1)
    ours = {name: torch.cat([prompt, oracle[f"in/ppo_{theirs}"]], 1) for name, theirs in columns.items()}
    return batch.with_columns(**ours).validate()


FREE, CHARGED = {"kl": {"coef": 0.0}}, {"kl": {"coef": 0.05}}


@pytest.mark.parametrize(
    ("name", "parameters", "array"),
    [
        ("grpo", {}, "adv/grpo/verl"),
        ("grpo", {"normalise_std": False}, "adv/drgrpo/verl"),
        ("grpo", {"std_eps": 1e-4}, "adv/grpo_scale_group/trl"),
        ("grpo", {"std_eps": 1e-4, "scale": "batch"}, "adv/grpo_scale_batch/trl"),
        ("dr_grpo", {}, "adv/drgrpo/verl"),
        ("dr_grpo", {}, "adv/grpo_scale_none/trl"),
        ("dapo", {}, "adv/grpo/verl"),
        ("gspo", {}, "adv/grpo/verl"),
        ("cispo", {}, "adv/grpo/verl"),
        ("rloo", FREE, "adv/rloo/verl"),
        ("rloo", FREE, "adv/rloo_normFalse/trl"),
        ("rloo", FREE | {"normalise": True}, "adv/rloo_normTrue/trl"),
        ("reinforce_pp_baseline", FREE, "adv/reinforce_pp_baseline/verl"),
        ("remax", FREE, "adv/remax/verl"),
        ("opo", {}, "adv/opo/verl"),
    ],
)
def test_algorithms_from_batch_to_advantages(name, parameters, array):
    oracle = Oracle(torch.float32)
    gains = resolve(name, parameters).advantages(batch_of(oracle)).advantages[:, 1:]
    by_row = array.endswith("trl")
    oracle.agrees(gains[:, 0] if by_row else gains, array, None if by_row else oracle.mask)


@pytest.mark.parametrize(
    ("name", "parameters", "array"),
    [
        ("ppo", CHARGED | {"gae": {"gamma": 1.0, "lam": 0.95}}, "adv/openrlhf_gae_kl0.05/openrlhf"),
        ("reinforce_pp", CHARGED, "adv/openrlhf_reinforce_kl0.05/openrlhf"),
        ("reinforce_pp_baseline", CHARGED, "adv/openrlhf_reinforce_baseline_kl0.05/openrlhf"),
    ],
)
def test_algorithms_that_whiten_with_the_penalty_in_the_reward(name, parameters, array):
    oracle = Oracle(torch.float32)
    result = resolve(name, parameters).advantages(batch_of(oracle))
    # OpenRLHF whitens by the biased variance
    count = oracle.mask.sum()
    oracle.agrees(result.advantages[:, 1:] * (count / (count - 1)).sqrt(), array)
