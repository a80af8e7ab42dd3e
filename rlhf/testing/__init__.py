"""Conformance of your own algorithms and objectives: `rlhf.testing.check(MyAlgorithm())` says which promise one breaks."""

from rlhf.testing.conformance import check
from rlhf.testing.report import ConformanceError, Report, Verdict

__all__ = ["ConformanceError", "Report", "Verdict", "check"]
