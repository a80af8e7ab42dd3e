"""What a check found: one line a rule, and the error that lists the broken ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class Broken(Exception):
    """Raised by a rule that does not hold; the text says what is wrong and what to do."""


class Skipped(Exception):
    """Raised by a rule that does not apply; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """One rule on one subject ("algorithm", or the name of an objective)."""

    subject: str
    rule: str
    outcome: Literal["ok", "broken", "skipped"]
    note: str = ""
    error: Exception | None = None  # raised by the code under test


@dataclass(frozen=True)
class Report:
    name: str
    verdicts: tuple[Verdict, ...]

    @property
    def broken(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == "broken")

    def __str__(self) -> str:
        width = max(len(verdict.subject) for verdict in self.verdicts)
        lines = [
            f"{verdict.outcome:<8} {verdict.subject:<{width}}  {verdict.rule}"
            + (f" ({verdict.note})" * bool(verdict.note))
            for verdict in self.verdicts
        ]
        return "\n".join([self.name, *lines])


class ConformanceError(AssertionError):
    """A line for each broken rule; `report` holds all of them."""

    def __init__(self, report: Report) -> None:
        lines = [f"  {verdict.subject}: {verdict.rule}: {verdict.note}" for verdict in report.broken]
        super().__init__("\n".join([f"{report.name} breaks {len(lines)} rule{'s' * (len(lines) > 1)}:", *lines]))
        self.report = report


Rule = Callable[[Any], str | None]  # a rule's name reads as its sentence; it may return a note


def judge(subject: str, case: Any, rules: Sequence[Rule], first: Sequence[Rule] = ()) -> list[Verdict]:
    """Every rule's verdict; where one of the `first` is broken, those after it would only repeat it and are skipped."""
    verdicts: list[Verdict] = []
    for rule in (*first, *rules):
        if any(verdict.outcome == "broken" for verdict in verdicts[: len(first)]):
            verdicts.append(Verdict(subject, _name(rule), "skipped", "repair the rule above first"))
        else:
            verdicts.append(_verdict(subject, case, rule))
    return verdicts


def _verdict(subject: str, case: Any, rule: Rule) -> Verdict:
    try:
        return Verdict(subject, _name(rule), "ok", rule(case) or "")
    except Skipped as reason:
        return Verdict(subject, _name(rule), "skipped", str(reason))
    except Broken as reason:
        return Verdict(subject, _name(rule), "broken", str(reason))
    except Exception as error:  # of the code under test, which may raise anything: it is a finding, and is kept
        return Verdict(subject, _name(rule), "broken", f"it raises {type(error).__name__}: {error}", error)


def _name(rule: Rule) -> str:
    return rule.__name__.replace("_", " ")
