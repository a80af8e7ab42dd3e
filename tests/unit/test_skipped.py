import math

import pytest

from rlhf.skipped import failed


@pytest.mark.parametrize(
    ("metrics", "answer"),
    [
        ({"loss": 2.0, "grad_norm": 1.0}, False),
        ({"loss": math.nan, "grad_norm": math.nan, "skipped": 1.0}, True),
        ({"loss": 2.0, "grad_norm": math.inf, "skipped": 1.0}, True),  # float32: no scale would help
        ({"loss": 2.0, "grad_norm": math.inf, "skipped": 1.0, "loss_scale": 2.0**15}, False),
        ({"loss": 2.0, "grad_norm": math.inf, "skipped": 1.0, "loss_scale": 1.0}, True),  # nothing is left to lower
        ({"loss": math.nan, "grad_norm": math.inf, "skipped": 1.0, "loss_scale": 2.0**15}, True),
    ],
    ids=range(6),
)
def test_a_step_failed_where_it_was_skipped_and_a_smaller_loss_scale_would_not_help(metrics, answer):
    assert failed(metrics) is answer
