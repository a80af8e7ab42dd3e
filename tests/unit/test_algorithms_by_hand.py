"""Every algorithm without a critic, by hand, on the four rows of `rollout_cases`: rewards 1 and 3, and 0 and 4."""

import math

import pytest
import torch
from rollout_cases import NAN, rollouts, with_forwards

from data.batch import Batch
from rlhf import objectives
from rlhf.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO
from rlhf.algorithms.online_dpo import OnlineDPO
from rlhf.algorithms.penalty import LossKL, RewardKL
from rlhf.algorithms.reinforce import OPO, REINFORCE, RLOO, ReinforcePlusPlus, ReinforcePlusPlusBaseline, ReMax
from rlhf.objectives import ClippedPolicy, Reinforce
from rlhf.ops import masked

ROOT = math.sqrt(0.5)
SPREAD = math.sqrt(10 / 3)  # of the four rewards 1, 3, 0, 4
FREE, CHARGED = RewardKL(0.0), RewardKL(0.2)  # a token costs 0, or 0.2 * 0.5


def by_row(algorithm):
    """The advantage of each row, the same on all its tokens and 0 elsewhere."""
    result = algorithm.advantages(with_forwards())
    rows = result.advantages[:, 2]  # the first answer token
    assert torch.equal(result.advantages, torch.where(result.action_mask, rows[:, None], 0))
    return rows.tolist()


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (GRPO(), [-ROOT, ROOT, -ROOT, ROOT]),
        (GRPO(std_eps=math.sqrt(2)), [-1 / math.sqrt(8), 1 / math.sqrt(8), -2 / math.sqrt(18), 2 / math.sqrt(18)]),
        (GRPO(scale="batch", std_eps=0.0), [-1 / SPREAD, 1 / SPREAD, -2 / SPREAD, 2 / SPREAD]),
        (GRPO(normalise_std=False), [-1, 1, -2, 2]),
        (DrGRPO(), [-1, 1, -2, 2]),
        (DAPO(), [-ROOT, ROOT, -ROOT, ROOT]),
        (GSPO(), [-ROOT, ROOT, -ROOT, ROOT]),
        (CISPO(), [-ROOT, ROOT, -ROOT, ROOT]),
        (RLOO(kl=FREE), [-2, 2, -4, 4]),
        (RLOO(kl=CHARGED), [-2.1, 2.1, -4.1, 4.1]),  # returns 0.8, 2.9, -0.2, 3.9: two tokens, and one
        (RLOO(kl=FREE, normalise=True, std_eps=0.0), [x / math.sqrt(40 / 3) for x in (-2, 2, -4, 4)]),
        (REINFORCE(kl=FREE, baseline=False), [1, 3, 0, 4]),
        (REINFORCE(kl=FREE), [-1, 1, -2, 2]),
        (REINFORCE(kl=CHARGED), [0.8 - 1.85, 2.9 - 1.85, -0.2 - 1.85, 3.9 - 1.85]),
        (ReMax(kl=FREE), [0, 2, -2, 2]),
        (OPO(), [1 - 5 / 3, 3 - 5 / 3, 0 - 4 / 3, 4 - 4 / 3]),  # baselines (2 * 1 + 1 * 3) / 3 and (2 * 0 + 1 * 4) / 3
    ],
    ids=repr,
)
def test_advantages_that_a_row_shares(algorithm, expected):
    assert by_row(algorithm) == pytest.approx(expected, rel=1e-5)


def test_remax_charges_each_token_for_the_kl_to_come():
    gains = ReMax(kl=CHARGED).advantages(with_forwards()).advantages
    expected = torch.tensor(
        [[0, 0, 0 - 0.2, 0 - 0.1], [0, 0, 2 - 0.1, 0], [0, 0, -2 - 0.2, -2 - 0.1], [0, 0, 2 - 0.1, 0]]
    )
    torch.testing.assert_close(gains, expected)


@pytest.mark.parametrize(
    ("algorithm", "returns"),
    [
        (ReinforcePlusPlus(kl=FREE), [[1, 1], [3, 0], [0, 0], [4, 0]]),
        (ReinforcePlusPlus(kl=FREE, gamma=0.5), [[0.5, 1], [3, 0], [0, 0], [4, 0]]),
        (ReinforcePlusPlus(kl=CHARGED), [[0.8, 0.9], [2.9, 0], [-0.2, -0.1], [3.9, 0]]),
        (ReinforcePlusPlusBaseline(kl=FREE), [[-1, -1], [1, 0], [-2, -2], [2, 0]]),
        (ReinforcePlusPlusBaseline(kl=CHARGED), [[-1.2, -1.1], [0.9, 0], [-2.2, -2.1], [1.9, 0]]),
    ],
    ids=repr,
)
def test_reinforce_plus_plus_whitens_the_returns_of_all_tokens(algorithm, returns):
    batch = with_forwards()
    own = torch.tensor(returns, dtype=torch.float32)[batch.action_mask[:, 2:]]
    gains = algorithm.advantages(batch).advantages
    torch.testing.assert_close(gains[batch.action_mask], (own - own.mean()) / own.std())


def test_a_sample_alone_in_its_group_does_not_count_for_the_spread_of_reinforce_plus_plus():
    batch = with_forwards()
    paired, alone = batch.select([0, 1]), batch.select([0, 1, 2])
    algorithm = ReinforcePlusPlusBaseline()
    torch.testing.assert_close(algorithm.advantages(alone).advantages[:2], algorithm.advantages(paired).advantages)


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [
        (GRPO(0.1, 0.3, 2.0, average="sequence"), ClippedPolicy(0.1, 0.3, 2.0, average="sequence")),
        (GRPO(kl=LossKL(0.04, "k3", True)), ClippedPolicy(kl_coef=0.04, kl_estimator="k3", kl_weighted=True)),
        (DrGRPO(divisor=64), ClippedPolicy(average="constant", divisor=64)),
        (DAPO(), ClippedPolicy(0.2, 0.28)),
        (GSPO(), ClippedPolicy(3e-4, 4e-4, ratio="sequence", average="sequence")),
        (CISPO(), objectives.CISPO(None, 4.0)),
        (RLOO(), ClippedPolicy(ratio="product", average="sequence")),
        (RLOO(per="token"), ClippedPolicy()),
        (REINFORCE(entropy=0.01), Reinforce(entropy_coef=0.01)),
        (ReinforcePlusPlus(), ClippedPolicy()),
        (ReMax(), Reinforce()),
        (OPO(), Reinforce()),
        (OnlineDPO(0.3), objectives.DPO(0.3)),
    ],
    ids=repr,
)
def test_objectives(algorithm, policy):
    assert algorithm.objectives() == {"policy": policy}


@pytest.mark.parametrize(
    ("algorithm", "needs"),
    [
        (GRPO(), ["old_logprobs"]),
        (GRPO(kl=LossKL(0.04)), ["old_logprobs", "ref_logprobs"]),
        (RLOO(), ["old_logprobs", "ref_logprobs"]),
        (RLOO(kl=FREE), ["old_logprobs"]),
        (ReinforcePlusPlusBaseline(kl=FREE), ["old_logprobs"]),
        (ReMax(kl=FREE), ["greedy_rewards", "old_logprobs"]),
        (OnlineDPO(), ["ref_logprobs"]),
    ],
    ids=repr,
)
def test_a_model_is_needed_only_where_its_coefficient_is_above_0(algorithm, needs):
    assert sorted(algorithm.needs) == needs


def test_dapo_keeps_the_groups_that_have_a_difference():
    batch = rollouts(rewards=[1.0, 1.0, 0.0, 1.0])
    assert DAPO().keep(batch).tolist() == [False, False, True, True]
    assert DAPO().keep(batch.select([2])).tolist() == [False]
    assert DAPO().refills == 3
    assert GRPO().keep(batch).all()


def answers(rewards, groups, trained=None):
    """One answer token a row, whose id is the row's number plus 10."""
    count = len(rewards)
    masks = [[False, own] for own in trained or [True] * count]
    tokens = [[1, 10 + row] for row in range(count)]
    meta = [{"row": row} for row in range(count)]
    return Batch.from_rows(tokens, masks, meta, rewards=rewards, group_ids=groups)


def chosen(batch):
    pairs = OnlineDPO().advantages(batch)
    assert [row["row"] for row in pairs.meta] == (pairs.tokens[:, 1] - 10).tolist() if len(pairs) else not pairs.meta
    return [row["row"] for row in pairs.meta]


def test_online_dpo_pairs_the_best_and_the_worst_of_each_group():
    # interleaved groups: rows 0, 2, 4, 6 and rows 1, 3, 5
    batch = answers([2.0, 0.0, 5.0, 1.0, -1.0, 3.0, 4.0], [7, 3, 7, 3, 7, 3, 7])
    assert chosen(batch) == [2, 4, 5, 1]


def test_online_dpo_drops_ties_lone_rows_and_rows_without_a_trained_token():
    assert chosen(answers([1.0, 1.0, 0.0, 2.0, 9.0], [0, 0, 1, 1, 2])) == [3, 2]
    assert chosen(answers([3.0, 2.0, 1.0], [0, 0, 0], trained=[False, True, True])) == [1, 2]


def test_online_dpo_without_a_pair_is_an_empty_batch():
    pairs = OnlineDPO().advantages(answers([1.0, 1.0], [0, 0]))
    assert len(pairs) == 0
    assert pairs.rewards.shape == (0,)


def test_nothing_of_a_row_that_is_not_trained_on_reaches_the_whitening():
    batch = with_forwards(NAN, action_mask=with_forwards().action_mask & torch.tensor([[1], [1], [1], [0]]).bool())
    gains = ReinforcePlusPlus().advantages(batch).advantages
    assert masked.mean(gains, batch.action_mask).item() == pytest.approx(0, abs=1e-6)
    assert (gains[3] == 0).all()
