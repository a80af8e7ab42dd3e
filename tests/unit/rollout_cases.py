"""A small step's samples, for tests of algorithms."""

import math

import torch

from data.batch import Batch

NAN = math.nan


def rollouts(**columns) -> Batch:
    """Four rows of two prompts, of 2, 1, 2 and 1 answer tokens, the first of which is token 2."""
    tokens = [[1, 2, 3, 4], [1, 2, 3], [5, 6, 7, 8], [5, 6, 7]]
    masks = [[False, False] + [True] * (len(row) - 2) for row in tokens]
    rewards = [1.0, 3.0, 0.0, 4.0]
    return Batch.from_rows(tokens, masks, group_ids=[0, 0, 1, 1], rewards=rewards).with_columns(**columns)


def per_token(inside, outside=NAN) -> torch.Tensor:
    return torch.where(rollouts().action_mask, torch.as_tensor(inside), outside)


def with_forwards(outside=NAN, **columns) -> Batch:
    """Log-probs -1 by the policy and -1.5 by the reference, so that k1 is 0.5 a token; value 0.5; greedy reward 1 and 2."""
    forwards = {"old_logprobs": -1.0, "ref_logprobs": -1.5, "values": 0.5}
    given = {name: per_token(value, outside) for name, value in forwards.items()}
    return rollouts(**given, greedy_rewards=[1.0, 1.0, 2.0, 2.0], **columns)
