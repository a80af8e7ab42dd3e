"""`rlhf.ops` against the arrays that trl, OpenRLHF and verl computed from the same inputs, forward and gradients.

Theirs speak about response tokens alone, so their columns are used as they are: the functions below the batch only need
that masks and columns agree. Where a convention differs, the test converts.
"""

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from data.batch import Batch
from rlhf.algorithms.ppo import GAE, KL, PPO
from rlhf.ops import advantages, kl, losses, masked
from rlhf.ops.logprobs import entropy_from_logits, logprobs_from_logits, selected_logprobs

FILE = Path(__file__).resolve().parents[3] / "shared/oracle/oracle.npz"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason="the oracle is not beside this checkout")


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


class Oracle:
    """Inputs in one dtype, and comparison at that dtype's tolerance."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        value = torch.from_numpy(arrays()[name].copy())
        return value.to(self.dtype) if value.is_floating_point() else value

    @property
    def mask(self) -> torch.Tensor:
        return self["in/ppo_mask"].bool()

    @property
    def groups(self) -> list[torch.Tensor]:
        index = self["in/group_index"]
        return [(index == group).nonzero()[:, 0] for group in index.unique()]

    def agrees(self, actual: torch.Tensor, name: str, mask: torch.Tensor | None = None) -> None:
        expected = arrays()[name]
        exact = self.dtype == torch.float64 and expected.dtype == np.float64
        tolerance = 1e-6 if exact else 1e-5
        expected = torch.as_tensor(expected, dtype=self.dtype)
        if mask is not None:
            actual, expected = actual[mask], expected[mask]
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{name}: {text}")

    def agrees_with_gradient(self, loss: torch.Tensor, leaf: torch.Tensor, name: str, suffix: str = "grad") -> None:
        self.agrees(loss.detach(), name)
        self.agrees(torch.autograd.grad(loss, leaf)[0], f"{name}/{suffix}")


@pytest.fixture(params=[torch.float64, torch.float32], ids=["fp64", "fp32"])
def oracle(request) -> Oracle:
    return Oracle(request.param)


def unshifted(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Their logits[:, t] go with labels[:, t]; ours speak about the next token, so the labels move right by one."""
    return torch.nn.functional.pad(logits, (0, 0, 0, 1)), torch.nn.functional.pad(labels, (1, 0))


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("logp/token/trl", 1.0),
        ("logp/token/openrlhf", 1.0),
        ("logp/token/verl", 1.0),
        ("logp/token_T0.7/trl", 0.7),
        ("logp/token_T0.7/openrlhf", 0.7),
    ],
)
def test_logprobs_of_tokens(oracle, name, temperature):
    logits, labels = oracle["in/logits"], oracle["in/labels"]
    ours = logprobs_from_logits(*unshifted(logits, labels), temperature)
    oracle.agrees(ours[:, 1:], name)
    identity = torch.eye(logits.shape[-1], dtype=oracle.dtype)
    chunked = selected_logprobs(logits.flatten(0, 1), identity, labels.flatten(), temperature, chunk_tokens=4)
    oracle.agrees(chunked.view(labels.shape), name)


@pytest.mark.parametrize("peer", ["trl", "verl", "openrlhf"])
def test_entropy_of_tokens(oracle, peer):
    logits, _ = unshifted(oracle["in/logits"], oracle["in/labels"])
    oracle.agrees(entropy_from_logits(logits)[:, 1:], f"entropy/token/{peer}")


def test_sequence_logprobs_and_language_modelling_loss(oracle):
    labels = oracle["in/labels_ignore"]
    mask = labels != -100
    logprobs = logprobs_from_logits(oracle["in/logits"], labels.where(mask, 0))
    oracle.agrees(masked.sum(logprobs, mask, dim=1), "logp/seq_sum/trl")
    oracle.agrees(masked.mean(logprobs, mask, dim=1), "logp/seq_mean/trl")
    oracle.agrees(-masked.mean(logprobs, mask), "sft/nll_token_mean/openrlhf")
    oracle.agrees(-masked.mean(logprobs, mask), "sft/token_level/openrlhf")
    oracle.agrees(-masked.mean(logprobs, mask, dim=1).mean(), "sft/seq_level/openrlhf")


@pytest.mark.parametrize(
    ("name", "beta", "label_smoothing"),
    [
        ("dpo/sigmoid_beta0.1/trl", 0.1, 0.0),
        ("dpo/sigmoid_beta0.5/trl", 0.5, 0.0),
        ("dpo/sigmoid_beta0.1/openrlhf", 0.1, 0.0),
        ("dpo/sigmoid_beta0.5/openrlhf", 0.5, 0.0),
        ("dpo/cdpo_beta0.1_ls0.1/openrlhf", 0.1, 0.1),
    ],
)
def test_dpo(oracle, name, beta, label_smoothing):
    logprobs = oracle["in/pref_policy_seq_logps"].requires_grad_()
    chosen, rejected = (logprobs - oracle["in/pref_ref_seq_logps"]).chunk(2)
    loss = losses.dpo(chosen, rejected, beta, label_smoothing).mean()
    oracle.agrees_with_gradient(loss, logprobs, name, "grad_seq_logp")


def test_dpo_from_token_logprobs(oracle):
    mask = oracle["in/pref_token_mask"]
    ratios = masked.sum(oracle["in/pref_policy_token_logps"] - oracle["in/pref_ref_token_logps"], mask, dim=1)
    oracle.agrees(0.1 * ratios, "dpo/sigmoid_beta0.1/openrlhf/rewards")
    oracle.agrees(losses.dpo(*ratios.chunk(2), 0.1).mean(), "dpo/sigmoid_beta0.1/trl")


def test_reward_model_loss(oracle):
    scores = oracle["in/rm_scores"].requires_grad_()
    chosen, rejected = scores.chunk(2)
    plain = losses.pairwise_logistic(chosen, rejected).mean()
    with_margin = losses.pairwise_logistic(chosen, rejected, oracle["in/rm_margin"]).mean()
    for peer in ("rm/bt/openrlhf", "rm/bt_logexp/openrlhf"):
        oracle.agrees(plain.detach(), peer)
    oracle.agrees(with_margin.detach(), "rm/bt_margin/openrlhf")
    oracle.agrees_with_gradient(plain, scores, "rm/bt/trl")
    oracle.agrees_with_gradient(with_margin, scores, "rm/bt_margin/trl")


def test_reward_model_loss_over_all_pairs_of_a_ranking(oracle):
    scores = oracle["in/kwise_scores"]
    pairs = combinations(range(scores.shape[1]), 2)
    per_pair = torch.stack([losses.pairwise_logistic(scores[:, i], scores[:, j]) for i, j in pairs])
    oracle.agrees(per_pair.mean(0), "rm/kwise_per_prompt/openrlhf_pairs")


def token_mean(values, mask):
    return masked.mean(values, mask)


def row_mean(values, mask):
    return masked.mean(values, mask, dim=1).mean()


def sum_over(count):
    return lambda values, mask: masked.sum(values, mask) / count


CLIP = {"clip_low": 0.2, "clip_high": 0.2}
HIGHER = {"clip_low": 0.2, "clip_high": 0.28}
POLICY = {
    "ppo/policy_clip0.2_tokenmean/verl": (CLIP, token_mean),
    "ppo/policy_clip0.2_tokenmean/openrlhf": (CLIP, token_mean),
    "ppo/policy_clip0.2_seqmean/verl": (CLIP, row_mean),
    "ppo/policy_clip0.2_seqmean/openrlhf": (CLIP, row_mean),
    "ppo/policy_clip0.2_seqmean_toksum/verl": (CLIP, sum_over(8)),
    "ppo/policy_dualclip3_tokenmean/verl": (CLIP | {"dual_clip": 3.0}, token_mean),
    "ppo/policy_dualclip3_tokenmean/openrlhf": (CLIP | {"dual_clip": 3.0}, token_mean),
    "ppo/policy_dualclip1.2_tokenmean/verl": (CLIP | {"dual_clip": 1.2}, token_mean),
    "ppo/policy_dualclip1.2_tokenmean/openrlhf": (CLIP | {"dual_clip": 1.2}, token_mean),
    "ppo/policy_cliphigher_0.2_0.28_tokenmean/verl": (HIGHER, token_mean),
    "ppo/policy_cliphigher_0.2_0.28_tokenmean/openrlhf": (HIGHER, token_mean),
    "grpo/grpo/trl": (CLIP, row_mean),
    "grpo/grpo/verl": (CLIP, row_mean),
    "grpo/grpo/openrlhf": (CLIP, row_mean),
    "grpo/grpo_delta1.5/trl": (CLIP | {"dual_clip": 1.5}, row_mean),
    "grpo/bnpo/trl": (CLIP, token_mean),
    "grpo/bnpo/verl": (CLIP, token_mean),
    "grpo/bnpo/openrlhf": (CLIP, token_mean),
    "grpo/drgrpo_maxlen16/trl": (CLIP, sum_over(8 * 16)),
    "grpo/drgrpo_scale12/verl": (CLIP, sum_over(12)),
    "grpo/dapo_0.2_0.28/trl": (HIGHER, token_mean),
    "grpo/dapo_0.2_0.28/verl": (HIGHER, token_mean),
    "grpo/dapo_0.2_0.28/openrlhf": (HIGHER, token_mean),
}


@pytest.mark.parametrize("name", POLICY)
def test_clipped_policy(oracle, name):
    clips, reduce = POLICY[name]
    mask, old, new = oracle.mask, oracle["in/ppo_old_logp"], oracle["in/ppo_new_logp"].requires_grad_()
    own = oracle["in/ppo_adv"] if name.startswith("ppo/") else oracle["in/grpo_seq_adv"][:, None].expand_as(old)
    per_token, clipped = losses.clipped_policy(new, old, own, mask, **clips)
    oracle.agrees_with_gradient(reduce(per_token, mask), new, name)
    if name.endswith("verl"):
        oracle.agrees(masked.mean(clipped.to(oracle.dtype), mask), f"{name}/clipfrac")
        oracle.agrees(masked.mean(kl.k1(old, new.detach()), mask), f"{name}/approx_kl")


def test_clipped_policy_with_a_penalty_in_the_loss(oracle):
    mask, old, new = oracle.mask, oracle["in/ppo_old_logp"], oracle["in/ppo_new_logp"].requires_grad_()
    own = oracle["in/grpo_seq_adv"][:, None].expand_as(old)
    per_token, _ = losses.clipped_policy(new, old, own, mask, **CLIP)
    loss = row_mean(per_token + 0.04 * kl.k3(new, oracle["in/ppo_ref_logp"]), mask)
    oracle.agrees_with_gradient(loss, new, "grpo/grpo_kl0.04/trl")


def test_clipped_value(oracle):
    mask, old, targets = oracle.mask, oracle["in/ppo_values_old"], oracle["in/ppo_value_targets"]
    new = oracle["in/ppo_values_new"].requires_grad_()
    per_token, clipped = losses.clipped_value(new, old, targets, mask, 0.2)
    loss = masked.mean(per_token, mask)
    oracle.agrees(loss.detach(), "ppo/value_clip0.2/openrlhf")
    oracle.agrees(row_mean(per_token.detach(), mask), "ppo/value_clip0.2_seq/openrlhf")
    oracle.agrees(masked.mean(clipped.to(oracle.dtype), mask), "ppo/value_clip0.2/verl/clipfrac")
    oracle.agrees_with_gradient(loss, new, "ppo/value_clip0.2/verl")
    free, _ = losses.clipped_value(new.detach(), old, targets, mask, None)
    oracle.agrees(masked.mean(free, mask), "ppo/value_noclip/openrlhf")


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
    nothing = torch.zeros_like(rewards)
    discounted, _ = advantages.gae(rewards, nothing, mask, 0.99, 1.0)
    oracle.agrees(discounted, "gae/cumret_g0.99/openrlhf", mask)
    oracle.agrees(masked.whiten(discounted, mask), "adv/reinforce_pp_gamma0.99/verl", mask)
    undiscounted, _ = advantages.gae(rewards, nothing, mask, 1.0, 1.0)
    oracle.agrees(masked.whiten(undiscounted, mask), "adv/reinforce_pp_gamma1/verl", mask)


def test_masked_statistics(oracle):
    values, mask = oracle["in/ppo_adv"], oracle.mask
    oracle.agrees(masked.mean(values, mask), "ppo/masked_mean/trl110")
    oracle.agrees(masked.variance(values, mask), "ppo/masked_var/trl110")
    for peer in ("verl", "trl110"):
        oracle.agrees(masked.whiten(values, mask), f"ppo/whiten/{peer}", mask)
        oracle.agrees(masked.whiten(values, mask, shift_mean=False), f"ppo/whiten_noshift/{peer}", mask)


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
    gains, _ = advantages.gae(rewards, torch.zeros_like(rewards), oracle.mask, 1.0, 1.0)
    oracle.agrees(gains, f"adv/openrlhf_{estimator}_kl0.05/openrlhf")


def test_ppo_from_batch_to_whitened_advantages():
    oracle = Oracle(torch.float32)
    names = {"old_logprobs": "old_logp", "ref_logprobs": "ref_logp", "values": "values_old"}
    lengths = 1 + oracle.mask.sum(1)
    rows = [list(range(1, n + 1)) for n in lengths.tolist()]
    batch = Batch.from_rows(rows, [[False] + [True] * (len(row) - 1) for row in rows], rewards=oracle["in/ppo_score"])
    prompt = torch.zeros(len(batch), 1)
    batch = batch.with_columns(
        **{name: torch.cat([prompt, oracle[f"in/ppo_{theirs}"]], 1) for name, theirs in names.items()}
    )
    result = PPO(kl=KL(coef=0.05), gae=GAE(gamma=1.0, lam=0.95)).advantages(batch.validate())
    # OpenRLHF whitens by the biased variance
    count = oracle.mask.sum()
    theirs = result.advantages[:, 1:] * (count / (count - 1)).sqrt()
    oracle.agrees(theirs, "adv/openrlhf_gae_kl0.05/openrlhf")
