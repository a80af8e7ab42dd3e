import math

import pytest
import torch

from rlhf.ops.correction import importance_weights

NAN = math.nan
MASK = torch.tensor([[False, True, True, True], [False, True, True, False]])
RATIOS = torch.tensor([[NAN, 0.25, 1.0, 4.0], [NAN, 4.0, 4.0, NAN]], dtype=torch.float64)  # geometric means: 1 and 4
ROLLOUT = torch.full((2, 4), -1.0, dtype=torch.float64).where(MASK, NAN)
OLD = ROLLOUT + RATIOS.log()


@pytest.mark.parametrize(
    ("kind", "expected", "changed"),
    [
        ("truncated", [[0, 0.5, 1, 2], [0, 2, 2, 0]], 4 / 5),
        ("masked", [[0, 0, 1, 0], [0, 0, 0, 0]], 4 / 5),
        ("sequence", [[0, 0.25, 1, 4], [0, 0, 0, 0]], 2 / 5),  # rows are judged, and what is kept is not bounded
    ],
)
def test_weights_by_hand(kind, expected, changed):
    weights, figures = importance_weights(OLD, ROLLOUT, MASK, kind, low=0.5, high=2.0)
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))
    assert figures == {
        "ratio_mean": pytest.approx((0.25 + 1 + 4 + 4 + 4) / 5),
        "ratio_max": pytest.approx(4),
        "changed": pytest.approx(changed),
        "kl": pytest.approx(-2 * math.log(4) / 5),
    }


@pytest.mark.parametrize("kind", ["truncated", "masked", "sequence"])
def test_engines_that_agree_change_nothing(kind):
    weights, figures = importance_weights(ROLLOUT, ROLLOUT, MASK, kind, low=0.0, high=2.0)
    assert torch.equal(weights, MASK.double())
    assert figures == {"ratio_mean": 1, "ratio_max": 1, "changed": 0, "kl": 0}


@pytest.mark.parametrize("kind", ["truncated", "masked", "sequence"])
def test_nothing_to_train_on_has_no_weight(kind):
    weights, figures = importance_weights(OLD, ROLLOUT, torch.zeros_like(MASK), kind, low=0.5, high=2.0)
    assert not weights.any()
    assert set(figures.values()) == {0.0}


def test_a_gap_beyond_floating_point_gives_finite_weights():
    gap = torch.tensor([[1000.0, -1000.0]])
    for kind in ("truncated", "masked", "sequence"):
        weights, figures = importance_weights(gap, -gap, torch.ones(1, 2).bool(), kind, low=0.0, high=2.0)
        assert weights.isfinite().all()
        assert all(map(math.isfinite, figures.values()))
