"""What the tests of broken algorithms and objectives share."""

from __future__ import annotations

import pytest

from rlhf.testing import ConformanceError, check


def expect_broken(candidate, rule: str, advice: str) -> None:
    with pytest.raises(ConformanceError, match=advice) as caught:
        check(candidate)
    assert rule in {verdict.rule for verdict in caught.value.report.broken}
