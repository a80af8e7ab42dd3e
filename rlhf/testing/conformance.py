"""`check`: whether an algorithm or an objective keeps the promises that the engine and the RL loop rely on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from data.batch import COLUMNS, Batch
from rlhf.interfaces import Algorithm, Objective
from rlhf.testing import algorithm_promises, engine_promises, objective_promises
from rlhf.testing.cases import AlgorithmCase, ObjectiveCase
from rlhf.testing.problems import LARGE_VOCABULARY, LONG, rollouts, with_all_columns
from rlhf.testing.report import ConformanceError, Report, Verdict, judge


def check(candidate: Algorithm | Objective, *, seed: int = 0) -> Report:
    """Tries it on random rollouts and a tiny transformer, in seconds on a CPU, without Ray and DeepSpeed.

    candidate: an algorithm, with which its objectives are checked, or one objective; of a class, an instance with its
    defaults. seed: of the random rollouts.

    Returns a report that prints one line a rule. Raises ConformanceError with a sentence for each broken rule.
    """
    candidate = candidate() if isinstance(candidate, type) else candidate
    checked = _algorithm if hasattr(candidate, "objectives") else _objective
    with _one_thread():
        report = Report(type(candidate).__name__, tuple(checked(candidate, seed)))
    if report.broken:
        errors = [verdict.error for verdict in report.broken if verdict.error]
        raise ConformanceError(report) from (errors[0] if errors else None)
    return report


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost far more than these small tensors do, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _algorithm(algorithm: Algorithm, seed: int) -> list[Verdict]:
    samples = max(algorithm.samples_per_prompt, 3)
    declared = algorithm_promises.GIVEN | frozenset(algorithm.needs)
    full = rollouts(seed, samples=samples)
    case = AlgorithmCase(algorithm, full.keep(declared), full)
    verdicts = judge("algorithm", case, algorithm_promises.RULES, first=algorithm_promises.FIRST)
    if any(verdict.outcome == "broken" for verdict in verdicts[: len(algorithm_promises.FIRST)]):
        return verdicts
    long = _long(seed, algorithm.samples_per_prompt).keep(declared)
    for name, objective in algorithm.objectives().items():
        try:
            trained = ObjectiveCase(objective, case.trained, case.train(long), seed)
        except Exception as error:  # of the code under test: a finding
            return [*verdicts, Verdict(name, "advantages", "broken", f"raises {type(error).__name__}: {error}", error)]
        verdicts += _judged(name, trained)
    return verdicts


def _objective(objective: Objective, seed: int) -> list[Verdict]:
    """A column of the objective's own may be (B,) or (B, T): the first that it can be called with."""
    ranked = getattr(objective, "rows", None) == "ranking"
    samples = 2 if getattr(objective, "unit", None) == "pairs" and not ranked else 3
    batch, long = rollouts(seed, samples=samples), _long(seed, 2)
    own = sorted(getattr(objective, "columns", frozenset()) - COLUMNS.keys())
    cases = [
        ObjectiveCase(
            objective, *(with_all_columns(each, seed, dict.fromkeys(own, kind)) for each in (batch, long)), seed
        )
        for kind in ("row", "token")
    ]
    return _judged("objective", cases[0] if not own or _callable(cases[0]) else cases[1])


def _callable(case: ObjectiveCase) -> bool:
    try:
        case.objective(case.out, case.shipped)
    except (RuntimeError, IndexError, ValueError):
        return False
    return True


def _judged(name: str, case: ObjectiveCase) -> list[Verdict]:
    return judge(name, case, (*objective_promises.RULES, *engine_promises.RULES), first=objective_promises.FIRST)


def _long(seed: int, samples: int) -> Batch:
    return rollouts(seed, prompts=2, samples=max(samples, 2), longest=LONG, vocabulary=LARGE_VOCABULARY)
