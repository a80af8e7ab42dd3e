"""Losses of comparisons against trl and OpenRLHF."""

from itertools import combinations

import pytest
import torch
from oracle_arrays import needs_oracle

from rlhf.ops import masked, preference

pytestmark = needs_oracle


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
    loss = preference.dpo(chosen, rejected, beta, label_smoothing).mean()
    oracle.agrees_with_gradient(loss, logprobs, name, "grad_seq_logp")


def test_dpo_from_token_logprobs(oracle):
    mask = oracle["in/pref_token_mask"]
    ratios = masked.sum(oracle["in/pref_policy_token_logps"] - oracle["in/pref_ref_token_logps"], mask, dim=1)
    oracle.agrees(0.1 * ratios, "dpo/sigmoid_beta0.1/openrlhf/rewards")
    oracle.agrees(preference.dpo(*ratios.chunk(2), 0.1).mean(), "dpo/sigmoid_beta0.1/trl")


def test_reward_model_loss(oracle):
    scores = oracle["in/rm_scores"].requires_grad_()
    chosen, rejected = scores.chunk(2)
    plain = preference.pairwise_logistic(chosen, rejected).mean()
    with_margin = preference.pairwise_logistic(chosen, rejected, oracle["in/rm_margin"]).mean()
    for peer in ("rm/bt/openrlhf", "rm/bt_logexp/openrlhf"):
        oracle.agrees(plain.detach(), peer)
    oracle.agrees(with_margin.detach(), "rm/bt_margin/openrlhf")
    oracle.agrees_with_gradient(plain, scores, "rm/bt/trl")
    oracle.agrees_with_gradient(with_margin, scores, "rm/bt_margin/trl")


def test_reward_model_loss_over_all_pairs_of_a_ranking(oracle):
    scores = oracle["in/kwise_scores"]
    pairs = combinations(range(scores.shape[1]), 2)
    per_pair = torch.stack([preference.pairwise_logistic(scores[:, i], scores[:, j]) for i, j in pairs])
    oracle.agrees(per_pair.mean(0), "rm/kwise_per_prompt/openrlhf_pairs")
