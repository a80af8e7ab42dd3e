"""Losses of preferences against trl and OpenRLHF: the formulas, and the objectives that sum them."""

import pytest
import torch

from data.batch import Batch
from rlhf import objectives
from rlhf.ops import masked, preference, ranking

PAIRS = 6
ADJACENT = [row for pair in range(PAIRS) for row in (pair, PAIRS + pair)]  # theirs: all chosen, then all rejected


# formulas

ON_RATIOS = {  # of log(policy / reference), summed
    "dpo/sigmoid_beta0.1/trl": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.1),
    "dpo/sigmoid_beta0.5/trl": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.5),
    "dpo/sigmoid_beta0.1/openrlhf": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.1),
    "dpo/sigmoid_beta0.5/openrlhf": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.5),
    "dpo/cdpo_beta0.1_ls0.1/openrlhf": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.1, 0.1),
    "dpo/ipo_beta0.1/openrlhf": lambda chosen, rejected: preference.ipo(chosen, rejected, 0.1),
    "dpo/hinge_beta0.1/trl": lambda chosen, rejected: preference.hinge(chosen, rejected, 0.1),
    "dpo/robust_beta0.1_ls0.2/trl": lambda chosen, rejected: preference.robust_dpo(chosen, rejected, 0.1, 0.2),
}
ON_MEAN_RATIOS = {  # of log(policy / reference), averaged over tokens
    "dpo/ipo_beta0.1/trl": lambda chosen, rejected: preference.ipo(chosen, rejected, 0.1),
    "dpo/sigmoid_norm_beta0.1/trl": lambda chosen, rejected: preference.dpo(chosen, rejected, 0.1),
}
ON_LOGPROBS = {
    "simpo/cpo_sigmoid_beta0.1/trl": lambda chosen, rejected: preference.cpo(chosen, rejected, 0.1),
    "simpo/cpo_hinge_beta0.1/trl": lambda chosen, rejected: preference.hinge(chosen, rejected, 0.1),
}
ON_MEAN_LOGPROBS = {
    "simpo/simpo_beta2_gamma1/trl": lambda chosen, rejected: preference.simpo(chosen, rejected, 2.0, 1.0),
    "simpo/simpo_beta2.5_gamma0.5_ls0.1/trl": lambda chosen, rejected: preference.simpo(
        chosen, rejected, 2.5, 0.5, 0.1
    ),
}


@pytest.mark.parametrize("name", [*ON_RATIOS, *ON_MEAN_RATIOS])
def test_losses_against_a_reference(oracle, name):
    logprobs = oracle["in/pref_policy_seq_logps"].requires_grad_()
    ratios = logprobs - oracle["in/pref_ref_seq_logps"]
    if name in ON_MEAN_RATIOS:
        ratios = ratios / oracle["in/pref_token_mask"].sum(1)
    loss = (ON_RATIOS | ON_MEAN_RATIOS)[name](*ratios.chunk(2)).mean()
    oracle.agrees_with_gradient(loss, logprobs, name, "grad_seq_logp")


@pytest.mark.parametrize("name", [*ON_LOGPROBS, *ON_MEAN_LOGPROBS])
def test_losses_without_a_reference(oracle, name):
    kind = "seq" if name in ON_LOGPROBS else "avg"
    logprobs = oracle[f"in/pref_policy_{kind}_logps"].requires_grad_()
    losses = (ON_LOGPROBS | ON_MEAN_LOGPROBS)[name](*logprobs.chunk(2))
    oracle.agrees(losses.detach(), name)
    oracle.agrees(torch.autograd.grad(losses.mean(), logprobs)[0], f"{name}/grad")


def test_odds_ratio(oracle):
    logprobs = oracle["in/pref_policy_avg_logps"].requires_grad_()
    losses = 0.1 * preference.odds_ratio(*logprobs.chunk(2))
    oracle.agrees(-losses.detach(), "orpo/beta0.1/trl")
    oracle.agrees(losses.mean().detach(), "orpo/beta0.1/trl/neg_mean")
    log_odds = -torch.log(torch.expm1(losses.detach() / 0.1))  # the inverse of -log sigmoid
    oracle.agrees(log_odds.mean(), "orpo/beta0.1/trl/log_odds_mean")
    oracle.agrees(torch.autograd.grad(losses.mean(), logprobs)[0], "orpo/beta0.1/trl/grad_avg_logp")


def mismatched_ratios(oracle):
    difference = oracle["in/pref_kl_policy_token_logps"] - oracle["in/pref_kl_ref_token_logps"]
    return masked.sum(difference, oracle["in/pref_token_mask"], dim=1)


@pytest.mark.parametrize(("name", "undesirable_weight"), [("kto/kto_beta01/trl", 1.0), ("kto/kto_dw1_uw133/trl", 1.33)])
def test_kto(oracle, name, undesirable_weight):
    baseline = preference.kto_baseline(mismatched_ratios(oracle))
    oracle.agrees(baseline, f"{name}/kl")
    logprobs = oracle["in/pref_policy_seq_logps"].requires_grad_()
    ratios, desirable = logprobs - oracle["in/pref_ref_seq_logps"], torch.arange(2 * PAIRS) < PAIRS
    loss = preference.kto(ratios, desirable, baseline, 0.1, 1.0, undesirable_weight).mean()
    oracle.agrees_with_gradient(loss, logprobs, name, "grad_seq_logp")


# objectives

REFERENCE_PAIRS = {
    "dpo/sigmoid_beta0.1/trl": objectives.DPO(0.1),
    "dpo/sigmoid_beta0.5/trl": objectives.DPO(0.5),
    "dpo/sigmoid_beta0.1/openrlhf": objectives.DPO(0.1),
    "dpo/sigmoid_beta0.5/openrlhf": objectives.DPO(0.5),
    "dpo/cdpo_beta0.1_ls0.1/openrlhf": objectives.DPO(0.1, label_smoothing=0.1),
    "dpo/sigmoid_norm_beta0.1/trl": objectives.DPO(0.1, length_normalised=True),
    "dpo/ipo_beta0.1/trl": objectives.IPO(0.1),
    "dpo/ipo_beta0.1/openrlhf": objectives.IPO(0.1, length_normalised=False),
    "dpo/hinge_beta0.1/trl": objectives.Hinge(0.1),
    "dpo/robust_beta0.1_ls0.2/trl": objectives.Robust(0.1, label_smoothing=0.2),
}


def rows(oracle, order, **columns):
    """The policy's log-probs in this order, a leaf, NaN outside the mask; and the batch that goes with them."""
    mask = oracle["in/pref_token_mask"][order]
    out, ref = (
        oracle[f"in/pref_{model}_token_logps"][order].masked_fill(~mask, torch.nan) for model in ("policy", "ref")
    )
    lengths = torch.full((len(order),), mask.shape[1], dtype=torch.int32)
    columns |= {"tokens": torch.zeros(mask.shape, dtype=torch.int32), "lengths": lengths}
    return out.requires_grad_(), Batch({**columns, "action_mask": mask, "ref_logprobs": ref})


def per_answer(gradient, mask, order):
    """(12,) in the oracle's order: the derivative by an answer's summed log-probs, which all of its tokens share."""
    assert (gradient[~mask] == 0).all()
    first = gradient.where(mask, 0).sum(1) / mask.sum(1)
    torch.testing.assert_close(gradient, first[:, None] * mask)
    return first[torch.argsort(torch.tensor(order))]


@pytest.mark.parametrize("name", REFERENCE_PAIRS)
def test_objectives_of_pairs_with_a_reference(oracle, name):
    out, batch = rows(oracle, ADJACENT)
    loss, _ = REFERENCE_PAIRS[name](out, batch)
    oracle.agrees(loss.detach() / PAIRS, name)
    [gradient] = torch.autograd.grad(loss / PAIRS, out)
    oracle.agrees(per_answer(gradient, batch.action_mask, ADJACENT), f"{name}/grad_seq_logp")


@pytest.mark.parametrize("name", [name for name in REFERENCE_PAIRS if name.endswith("openrlhf")])
def test_rewards_of_pairs(oracle, name):
    out, batch = rows(oracle, ADJACENT)
    pairs = [[row, row + 1] for row in range(0, 2 * PAIRS, 2)]
    metrics = [REFERENCE_PAIRS[name](out[pair], batch.select(pair))[1] for pair in pairs]
    rewards = [found[f"{answer}_reward"] for answer in ("chosen", "rejected") for found in metrics]
    oracle.agrees(torch.stack(rewards), f"{name}/rewards")
    chosen, rejected = oracle[f"{name}/rewards"].chunk(2)
    _, metrics = REFERENCE_PAIRS[name](out, batch)
    torch.testing.assert_close(metrics["margin"], (chosen - rejected).sum())
    assert metrics["accuracy"] == (chosen > rejected).sum()


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("simpo/simpo_beta2_gamma1/trl", objectives.SimPO(2.0, 1.0)),
        ("simpo/simpo_beta2.5_gamma0.5_ls0.1/trl", objectives.SimPO(2.5, 0.5, 0.1)),
        ("simpo/cpo_sigmoid_beta0.1/trl", objectives.CPO(0.1, nll=0.0)),
    ],
)
def test_objectives_of_pairs_without_a_reference(oracle, name, objective):
    out, batch = rows(oracle, ADJACENT)
    loss, _ = objective(out, batch.keep({"tokens", "lengths", "action_mask"}))
    torch.testing.assert_close(loss.detach(), oracle[name].sum())
    [gradient] = torch.autograd.grad(loss / PAIRS, out)
    gradient = per_answer(gradient, batch.action_mask, ADJACENT)
    if isinstance(objective, objectives.SimPO):
        gradient = gradient * oracle["in/pref_token_mask"].sum(1)  # theirs is by the mean log-prob
    oracle.agrees(gradient, f"{name}/grad")


def test_orpo_is_the_chosen_answers_likelihood_and_the_odds_ratio(oracle):
    out, batch = rows(oracle, ADJACENT)
    loss, _ = objectives.ORPO(0.1)(out, batch)
    nll, _ = objectives.NLL()(out, batch)
    torch.testing.assert_close(nll.detach(), -oracle["in/pref_policy_avg_logps"][:PAIRS].sum())
    oracle.agrees((loss - nll).detach() / PAIRS, "orpo/beta0.1/trl/neg_mean")
    [gradient] = torch.autograd.grad((loss - nll) / PAIRS, out)
    lengths = oracle["in/pref_token_mask"].sum(1)
    oracle.agrees(lengths * per_answer(gradient, batch.action_mask, ADJACENT), "orpo/beta0.1/trl/grad_avg_logp")


def test_instruction_tuning_on_the_chosen_answers(oracle):
    order = list(range(PAIRS))
    out, batch = rows(oracle, order)
    loss, _ = objectives.LanguageModel()(out, batch)
    loss = loss / batch.action_mask.sum()
    oracle.agrees(loss.detach(), "dpo/sft/trl")
    gradient = per_answer(torch.autograd.grad(loss, out)[0], batch.action_mask, order)
    oracle.agrees(torch.cat([gradient, torch.zeros(PAIRS)]), "dpo/sft/trl/grad_seq_logp")


@pytest.mark.parametrize(
    ("name", "objective"),
    [("kto/kto_beta01/trl", objectives.KTO(0.1)), ("kto/kto_dw1_uw133/trl", objectives.KTO(0.1, 1.0, 1.33))],
)
def test_objective_of_rows(oracle, name, objective):
    baseline = preference.kto_baseline(mismatched_ratios(oracle)).expand(2 * PAIRS)
    desirable = (torch.tensor(ADJACENT) < PAIRS).float()
    out, batch = rows(oracle, ADJACENT, desirable=desirable, kl_baseline=baseline)
    loss, _ = objective(out, batch)
    oracle.agrees(loss.detach() / (2 * PAIRS), name)
    [gradient] = torch.autograd.grad(loss / (2 * PAIRS), out)
    oracle.agrees(per_answer(gradient, batch.action_mask, ADJACENT), f"{name}/grad_seq_logp")


# reward models


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
    centred = (preference.pairwise_logistic(chosen, rejected) + 0.01 * preference.off_centre(chosen, rejected)).mean()
    oracle.agrees_with_gradient(centred, scores, "rm/bt_center0_01/trl")


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("rm/bt/trl", objectives.Pairwise()),
        ("rm/bt_margin/trl", objectives.Pairwise(margin=True)),
        ("rm/bt_center0_01/trl", objectives.Pairwise(centre=0.01)),
    ],
)
def test_reward_model_objective(oracle, name, objective):
    scores = oracle["in/rm_scores"][ADJACENT].requires_grad_()
    rows = torch.zeros(2 * PAIRS, 1, dtype=torch.int32)
    columns = {"ranks": torch.tensor([1.0, 2.0] * PAIRS), "margins": oracle["in/rm_margin"].repeat_interleave(2)}
    loss, _ = objective(scores, Batch({"tokens": rows, "lengths": rows[:, 0] + 1, **columns}))
    oracle.agrees(loss.detach() / PAIRS, name)
    [gradient] = torch.autograd.grad(loss / PAIRS, scores)
    oracle.agrees(gradient[torch.argsort(torch.tensor(ADJACENT))], f"{name}/grad")


def test_reward_model_loss_over_all_pairs_of_a_ranking(oracle):
    scores = oracle["in/kwise_scores"]
    prompts, answers = scores.shape
    ranks, groups = torch.arange(answers).repeat(prompts), torch.arange(prompts).repeat_interleave(answers)
    per_prompt = ranking.all_pairs(scores.flatten(), ranks, groups)
    oracle.agrees(per_prompt, "rm/kwise_per_prompt/openrlhf_pairs")
    rows = torch.zeros(prompts * answers, 1, dtype=torch.int32)
    columns = {"tokens": rows, "lengths": rows[:, 0] + 1, "ranks": ranks, "group_ids": groups}
    loss, _ = objectives.KWise()(scores.flatten(), Batch(columns))
    torch.testing.assert_close(loss, oracle["rm/kwise_per_prompt/openrlhf_pairs"].sum())
