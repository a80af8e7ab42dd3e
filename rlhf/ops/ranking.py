"""Losses of rankings: several answers to one prompt, from best to worst, of any number in each. One value a ranking.

Rows lie flat: scores, ranks and groups are (b,); rows of one group make a ranking, wherever they stand. A lower rank is a
better answer and equal ranks are a tie. What is given for each group is (G,), in the order of their ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.ops.preference import pairwise_logistic


def all_pairs(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """(G,): the mean over a ranking's K (K - 1) / 2 pairs of -log sigmoid(better - worse) (Ouyang et al. 2022, equation 1); 0
    where a group has one row.

    A tied pair has a soft label of one half: its loss is least where the two scores are equal, as in a comparison.
    """
    first, second = pairs(groups)
    wrong = torch.where(ranks[first] == ranks[second], 0.5, (ranks[first] > ranks[second]).to(scores.dtype))
    losses = pairwise_logistic(scores[first], scores[second], label_smoothing=wrong)
    return mean_of_groups(losses, groups, groups[first])


def plackett_luce(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """(G,): -log P(ranking), in which the best answer is drawn with probability softmax(scores), then the next one from those
    that are left, and so on (Luce 1959, Plackett 1975); 0 where a group has one row.

    Ties as Efron (1977) has them in the Cox likelihood, which this is: of d tied answers, the l-th to be drawn (from 0)
    competes with those that are worse and with a share 1 - l / d of each of the d, for which of them are gone is not
    known. Where their scores are equal, this is the mean over all orders of the tied answers.
    """
    same = groups[:, None] == groups
    tied = same & (ranks[:, None] == ranks)
    tied_rows, drawn_before = tied.sum(1), tied.tril(-1).sum(1)  # (b,) d and l
    left = ((tied_rows - drawn_before).to(scores.dtype) / tied_rows)[:, None]
    share = torch.where(tied, left, (same & (ranks[:, None] < ranks)).to(scores.dtype))  # (b, b)
    # a row's own share is at least 1 / d, so that no sum is empty
    surprise = torch.logsumexp(scores + share.log(), 1) - scores
    return sum_of_groups(surprise, groups, groups)


def pairs(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) and (P,): the rows of each pair of one group, the earlier row first."""
    first, second = (groups[:, None] == groups).triu(1).nonzero(as_tuple=True)
    return first, second


def mean_of_groups(values: Tensor, groups: Tensor, group_of: Tensor) -> Tensor:
    """(G,): the mean of each group's values, 0 where it has none.

    values, group_of: (N,), a value and the id of its group. groups: (b,) ids, of which all G appear.
    """
    counts = sum_of_groups(torch.ones_like(values), groups, group_of)
    return sum_of_groups(values, groups, group_of) / counts.clamp(min=1)


def sum_of_groups(values: Tensor, groups: Tensor, group_of: Tensor) -> Tensor:
    """(G,): the sum of each group's values; the arguments are those of `mean_of_groups`."""
    ids = groups.unique()
    return values.new_zeros(len(ids)).index_add(0, torch.searchsorted(ids, group_of), values)
