"""Objectives of policy and critic, and the correction of rollouts, against trl, OpenRLHF and verl."""

import pytest
import torch

from data.batch import Batch
from rlhf.objectives import CISPO, ClippedPolicy, ClippedValue, Reinforce
from rlhf.ops import kl, losses, masked
from rlhf.ops.correction import importance_weights
from rlhf.ops.logprobs import entropy_from_logits

HIGHER = {"clip_low": 0.2, "clip_high": 0.28}
BY_ROW = {"average": "sequence"}
GSPO = BY_ROW | {"ratio": "sequence"}
NARROW = GSPO | {"clip_low": 3e-4, "clip_high": 4e-4}
POLICY = {
    "ppo/policy_clip0.2_tokenmean/verl": ClippedPolicy(),
    "ppo/policy_clip0.2_tokenmean/openrlhf": ClippedPolicy(),
    "ppo/policy_clip0.2_seqmean/verl": ClippedPolicy(**BY_ROW),
    "ppo/policy_clip0.2_seqmean/openrlhf": ClippedPolicy(**BY_ROW),
    "ppo/policy_clip0.2_seqmean_toksum/verl": ClippedPolicy(average="constant", divisor=1),
    "ppo/policy_dualclip3_tokenmean/verl": ClippedPolicy(dual_clip=3.0),
    "ppo/policy_dualclip3_tokenmean/openrlhf": ClippedPolicy(dual_clip=3.0),
    "ppo/policy_dualclip1.2_tokenmean/verl": ClippedPolicy(dual_clip=1.2),
    "ppo/policy_dualclip1.2_tokenmean/openrlhf": ClippedPolicy(dual_clip=1.2),
    "ppo/policy_cliphigher_0.2_0.28_tokenmean/verl": ClippedPolicy(**HIGHER),
    "ppo/policy_cliphigher_0.2_0.28_tokenmean/openrlhf": ClippedPolicy(**HIGHER),
    "grpo/grpo/trl": ClippedPolicy(**BY_ROW),
    "grpo/grpo/verl": ClippedPolicy(**BY_ROW),
    "grpo/grpo/openrlhf": ClippedPolicy(**BY_ROW),
    "grpo/grpo_kl0.04/trl": ClippedPolicy(**BY_ROW, kl_coef=0.04, kl_estimator="k3"),
    "grpo/grpo_kl0.04_biascorr/trl": ClippedPolicy(**BY_ROW, kl_coef=0.04, kl_estimator="k3", kl_weighted=True),
    "grpo/grpo_delta1.5/trl": ClippedPolicy(dual_clip=1.5, **BY_ROW),
    "grpo/bnpo/trl": ClippedPolicy(),
    "grpo/bnpo/verl": ClippedPolicy(),
    "grpo/bnpo/openrlhf": ClippedPolicy(),
    "grpo/drgrpo_maxlen16/trl": ClippedPolicy(average="constant", divisor=16),
    "grpo/drgrpo_scale12/verl": ClippedPolicy(
        average="constant", divisor=12 / 8
    ),  # theirs does not divide by the 8 rows
    "grpo/dapo_0.2_0.28/trl": ClippedPolicy(**HIGHER),
    "grpo/dapo_0.2_0.28/verl": ClippedPolicy(**HIGHER),
    "grpo/dapo_0.2_0.28/openrlhf": ClippedPolicy(**HIGHER),
    "grpo/gspo_0.2/trl": ClippedPolicy(**GSPO),
    "grpo/gspo_0.2/verl": ClippedPolicy(**GSPO),
    "grpo/gspo_0.2/openrlhf": ClippedPolicy(**GSPO),
    "grpo/gspo_3e-4_4e-4/trl": ClippedPolicy(**NARROW),
    "grpo/gspo_3e-4_4e-4/verl": ClippedPolicy(**NARROW),
    "grpo/gspo_3e-4_4e-4/openrlhf": ClippedPolicy(**NARROW),
    "grpo/rloo_seq_clip0.2/trl": ClippedPolicy(**BY_ROW, ratio="product"),
    "grpo/cispo_high5/trl": CISPO(clip_high=4.0),  # theirs bounds the ratio, and not its distance from 1
    "grpo/cispo_high1.28/trl": CISPO(clip_high=0.28),
    "grpo/cispo_0.2_0.28/verl": CISPO(**HIGHER),
}


def problem(oracle, advantages=None):
    """(the policy's log-probs, a leaf; a batch of response tokens alone)."""
    columns = {
        name: oracle[f"in/ppo_{theirs}"]
        for name, theirs in [("old_logprobs", "old_logp"), ("ref_logprobs", "ref_logp")]
    }
    columns |= {"lengths": oracle.mask.sum(1), "action_mask": oracle.mask}
    columns["advantages"] = oracle["in/ppo_adv"] if advantages is None else advantages
    return oracle["in/ppo_new_logp"].requires_grad_(), Batch(columns)


def mean_loss(objective, out, batch):
    """The sum over the global count of the unit, as the engine divides."""
    count = int(batch.action_mask.sum()) if objective.unit == "tokens" else len(batch)
    return objective(out, batch)[0] / count


@pytest.mark.parametrize("name", POLICY)
def test_policy(oracle, name):
    objective = POLICY[name]
    in_groups = oracle["in/grpo_seq_adv"][:, None].expand(oracle.mask.shape)
    new, batch = problem(oracle, in_groups if name.startswith("grpo/") else None)
    oracle.agrees_with_gradient(mean_loss(objective, new, batch), new, name)
    if not name.endswith("trl"):
        clipped = objective.surrogate(new, batch)[1]["clip_fraction"]
        oracle.agrees(masked.mean(clipped, oracle.mask), f"{name}/clipfrac")
    if name.endswith("verl"):
        oracle.agrees(masked.mean(kl.k1(batch.old_logprobs, new.detach()), oracle.mask), f"{name}/approx_kl")


def test_entropy_bonus(oracle):
    logits, mask = oracle["in/logits"], oracle["in/labels_mask"].bool()
    # theirs speaks about the present token's distribution, ours about the next one's
    entropies = entropy_from_logits(torch.nn.functional.pad(logits, (0, 0, 0, 1)))[:, 1:]
    zeros = torch.zeros_like(entropies)
    batch = Batch({"lengths": mask.sum(1), "action_mask": mask, "advantages": zeros})
    bonus = -mean_loss(Reinforce(entropy_coef=1.0), torch.stack([zeros, entropies]), batch)
    oracle.agrees(bonus, "entropy/loss_token_mean/verl")


def test_value(oracle):
    mask, new = oracle.mask, oracle["in/ppo_values_new"].requires_grad_()
    columns = {"values": oracle["in/ppo_values_old"], "returns": oracle["in/ppo_value_targets"]}
    batch = Batch(columns | {"lengths": mask.sum(1), "action_mask": mask})
    loss = mean_loss(ClippedValue(0.2), new, batch)
    oracle.agrees(loss.detach(), "ppo/value_clip0.2/openrlhf")
    clipped = ClippedValue(0.2)(new, batch)[1]["clip_fraction"].to(oracle.dtype)
    oracle.agrees(clipped / mask.sum(), "ppo/value_clip0.2/verl/clipfrac")
    oracle.agrees_with_gradient(loss, new, "ppo/value_clip0.2/verl")
    oracle.agrees(mean_loss(ClippedValue(None), new.detach(), batch), "ppo/value_noclip/openrlhf")
    per_token, _ = losses.clipped_value(new.detach(), batch.values, batch.returns, mask, 0.2)
    oracle.agrees(masked.mean(per_token, mask, dim=1).mean(), "ppo/value_clip0.2_seq/openrlhf")


# None of the arrays' weights is outside of [0.5, 2]: they settle the ratio, and test_ops_correction.py the bounds.
@pytest.mark.parametrize(("kind", "name"), [("truncated", "tis"), ("masked", "icepop"), ("sequence", "seq-mask-tis")])
def test_correction_of_rollouts(oracle, kind, name):
    name = f"ppo/is_{name}_0.5_2.0/openrlhf"
    new, batch = problem(oracle)
    weights, figures = importance_weights(
        batch.old_logprobs, oracle["in/ppo_rollout_logp"], oracle.mask, kind, low=0.5, high=2.0
    )
    new, batch = problem(oracle, oracle["in/ppo_adv"] * weights)
    oracle.agrees_with_gradient(mean_loss(ClippedPolicy(), new, batch), new, name)
    oracle.agrees(torch.tensor(figures["kl"], dtype=oracle.dtype), f"{name}/rollout_kl")
