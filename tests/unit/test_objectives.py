import math
import pickle

import pytest
import torch
from torch.nn import functional

from data.batch import Batch
from data.errors import UserError
from rlhf.objectives import ClippedPolicy, ClippedValue, LanguageModel

NAN = math.nan


def batch_of_two(**columns):
    """Two rows, three columns; trained on: tokens 1 and 2 of the first row, token 1 of the second."""
    masks = [[False, True, True], [False, True]]
    return Batch.from_rows([[5, 6, 7], [5, 8]], masks, group_ids=[0, 0]).with_columns(**columns)


def outside_is_nan(values):
    return torch.tensor(values).where(batch_of_two().action_mask, NAN)


def test_language_model_is_the_summed_cross_entropy_of_trained_tokens():
    logits, batch = torch.randn(2, 3, 10), batch_of_two()
    logprobs = torch.log_softmax(logits, -1).gather(-1, batch.tokens.long()[..., None])[..., 0]
    loss, metrics = LanguageModel()(logprobs.where(batch.action_mask, NAN), batch)
    labels = batch.tokens.long().where(batch.action_mask, -100)
    torch.testing.assert_close(loss, functional.cross_entropy(logits.view(-1, 10), labels.view(-1), reduction="sum"))
    assert metrics == {}


def test_z_loss_adds_the_squared_logsumexp_of_trained_tokens():
    logits, batch = torch.randn(2, 3, 10), batch_of_two()
    logprobs = torch.log_softmax(logits, -1).gather(-1, batch.tokens.long()[..., None])[..., 0]
    out = torch.stack([logprobs, logits.logsumexp(-1)]).where(batch.action_mask, NAN)
    labels = batch.tokens.long().where(batch.action_mask, -100)
    cross_entropy = functional.cross_entropy(logits.view(-1, 10), labels.view(-1), reduction="sum")
    penalty = 0.01 * sum(logits[row, column].exp().sum().log() ** 2 for row, column in ((0, 1), (0, 2), (1, 1)))
    loss, metrics = LanguageModel(z_loss=0.01)(out, batch)
    torch.testing.assert_close(loss, cross_entropy + penalty)
    torch.testing.assert_close(metrics, {"nll": cross_entropy, "z_loss": penalty})


def test_clipped_policy_by_hand():
    old = outside_is_nan([[0.0, -1.0, -1.0], [0.0, -1.0, 0.0]])
    out = outside_is_nan([[0.0, -1.0, -1.0 + math.log(2)], [0.0, -1.0 + math.log(0.5), 0.0]])
    batch = batch_of_two(old_logprobs=old, advantages=outside_is_nan([[0.0, 3.0, 1.0], [0.0, 1.0, 0.0]]))
    loss, metrics = ClippedPolicy(0.2, 0.3)(out, batch)
    assert loss.item() == pytest.approx(-3.0 - 1.3 - 0.5, rel=1e-6)
    assert metrics["clip_fraction"] == 1
    # k3 with r = new / old: (2 - 1 - log 2) + (0.5 - 1 + log 2)
    assert metrics["approx_kl"].item() == pytest.approx(0.5, rel=1e-6)


def test_clipped_value_by_hand():
    values, returns = (
        outside_is_nan([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        outside_is_nan([[0.0, 2.0, 2.0], [0.0, 2.0, 0.0]]),
    )
    out = outside_is_nan([[0.0, 1.1, 1.5], [0.0, 0.5, 0.0]])
    loss, metrics = ClippedValue(0.2)(out, batch_of_two(values=values, returns=returns))
    assert loss.item() == pytest.approx(0.5 * (0.9**2 + 0.8**2 + 1.5**2), rel=1e-6)
    assert metrics["clip_fraction"] == 1


OBJECTIVES = [LanguageModel(), ClippedPolicy(), ClippedValue()]


def problem():
    torch.manual_seed(0)
    names = ("ref_logprobs", "old_logprobs", "advantages", "values", "returns")
    batch = Batch.from_rows(
        [[1, 2, 3], [1, 2], [4, 5, 6], [4, 5]],
        [[False, True, True], [False, True]] * 2,
        group_ids=[0, 0, 1, 1],
        **{name: torch.randn(4, 3) for name in names},
    )
    return batch, {"logprobs": torch.randn(4, 3), "values": torch.randn(4, 3)}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_loss_and_metrics_are_sums_over_rows_and_read_the_named_columns_alone(objective):
    batch, outputs = problem()
    batch = batch.keep({"tokens", "lengths", "action_mask"} | objective.columns)
    out = outputs[objective.output]
    whole = objective(out, batch)
    first, second = (objective(out[rows], batch.select(rows)) for rows in ([0, 1], [2, 3]))
    torch.testing.assert_close(whole[0], first[0] + second[0])
    for name, value in whole[1].items():
        assert not value.requires_grad
        torch.testing.assert_close(value, first[1][name] + second[1][name])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_metrics_carry_no_gradient_and_the_loss_does(objective):
    batch, outputs = problem()
    loss, metrics = objective(outputs[objective.output].requires_grad_(), batch)
    assert loss.requires_grad
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_objectives_travel_by_value(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClippedPolicy(clip_low=-0.1), "lower clip"),
        (lambda: ClippedPolicy(clip_high=-0.1), "upper clip must not be negative"),
        (lambda: ClippedPolicy(dual_clip=1.0), "dual_clip must be above 1"),
        (lambda: ClippedValue(clip=0.0), "value clip must be above 0"),
    ],
)
def test_parameters_out_of_range_are_refused_with_advice(make, message):
    with pytest.raises(UserError, match=message):
        make()
