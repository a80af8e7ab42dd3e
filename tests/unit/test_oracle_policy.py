"""Losses of policy and critic against trl, OpenRLHF and verl."""

import pytest
from oracle_arrays import needs_oracle

from rlhf.ops import kl, losses, masked

pytestmark = needs_oracle


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
