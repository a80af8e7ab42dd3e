"""A judge's preferences: verdicts on two answers, asked in both orders; ratings of one answer; and rewards made of
both.

A verdict that follows the position of an answer is not a preference (Wang et al. 2023; Zheng et al. 2023, section 3.4).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.errors import UserError
from data.sample import Prompt, Sample
from rlhf.config.rewards import Judge
from rlhf.judge.client import Client, Reply
from rlhf.judge.questions import (
    Verdict,
    parse_rating,
    parse_verdict,
    principle_of,
    render,
    request_of,
    template_of,
)

Outcome = Literal["first", "second", "tie", "position_bound", "unanswered"]
TURNED: dict[Verdict | None, Verdict | None] = {"first": "second", "second": "first", "tie": "tie", None: None}
SURELY_DOWN = 8  # so many questions without a single answer end the run
# for (first, second)
CREDIT = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5), "position_bound": (0.5, 0.5)}


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt."""

    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class Decision:
    """The judge's decision on a comparison. straight: its verdict on the answers in their order. swapped: its verdict
    on the other order, turned back so that "first" is the first answer, not the first place. None: no verdict, or not
    asked."""

    outcome: Outcome
    straight: Verdict | None
    swapped: Verdict | None = None


class JudgeModel:
    """Asks the questions of the judge's config. statistics: counts of questions, failures, verdicts and outcomes so
    far."""

    def __init__(self, settings: Judge, client: Client, seed: int) -> None:
        self.settings, self._client, self._seed = settings, client, seed
        self._template = template_of(settings.kind, settings.template)
        self.statistics: Counter[str] = Counter()

    def compare(self, comparisons: Sequence[Comparison]) -> list[Decision]:
        """The decision on each comparison. Equal answers are a tie, without a question.

        Raises UserError where the server refuses the questions, or answers none of SURELY_DOWN or more.
        """
        asked = [comparison for comparison in comparisons if comparison.first != comparison.second]
        orders = [(comparison, comparison.first, comparison.second) for comparison in asked]
        if self.settings.swap:
            orders += [(comparison, comparison.second, comparison.first) for comparison in asked]
        replies = self._ask([self._question(each.prompt, first=one, second=two) for each, one, two in orders])
        verdicts = [parse_verdict(reply.text) if reply.text is not None else None for reply in replies]
        self._count(replies, sum(verdict is None for verdict in verdicts))
        straight, swapped = verdicts[: len(asked)], [TURNED[verdict] for verdict in verdicts[len(asked) :]]
        self.statistics.update(f"straight_{verdict}" for verdict in straight if verdict)
        if self.settings.swap:
            decisions = iter([decide(one, other) for one, other in zip(straight, swapped, strict=True)])
        else:
            decisions = iter([Decision(verdict or "unanswered", verdict) for verdict in straight])
        found = [
            Decision("tie", None) if comparison.first == comparison.second else next(decisions)
            for comparison in comparisons
        ]
        self.statistics.update(decision.outcome for decision in found)
        return found

    def rate(self, answers: Sequence[tuple[Prompt, str]]) -> list[float]:
        """The rating of each answer, in [0, best]; NaN where the judge gave no rating.

        Raises UserError where the server refuses the questions, or answers none of SURELY_DOWN or more.
        """
        replies = self._ask([self._question(prompt, answer=answer) for prompt, answer in answers])
        best = self.settings.best
        ratings = [math.nan if reply.text is None else parse_rating(reply.text, best) for reply in replies]
        self._count(replies, sum(map(math.isnan, ratings)))
        return ratings

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Rewards in [0, 1], NaN where the judge gave no verdict. Pointwise: the rating as a share of `best`. Pairwise:
        each sample is compared with its neighbours in the `ring` of its prompt group; its reward is the mean of 1 for a
        win, 0 for a loss, 0.5 for a tie or a position-bound verdict. Raises UserError if the judge is pairwise and a
        prompt has only one sample."""
        if self.settings.kind == "pointwise":
            ratings = self.rate([(sample.prompt, sample.text) for sample in samples])
            return [rating / self.settings.best for rating in ratings]
        pairs = ring(samples)
        decisions = self.compare([Comparison(samples[a].prompt, samples[a].text, samples[b].text) for a, b in pairs])
        credits: list[list[float]] = [[] for _ in samples]
        for rows, decision in zip(pairs, decisions, strict=True):
            if decision.outcome != "unanswered":
                for row, credit in zip(rows, CREDIT[decision.outcome], strict=True):
                    credits[row].append(credit)
        return [sum(credit) / len(credit) if credit else math.nan for credit in credits]

    def principle(self, prompt: Prompt) -> str:
        """The principle by which the prompt's answers are judged."""
        return principle_of(self.settings.principles, self.settings.kind, self._seed, prompt.row)

    def metrics(self) -> dict[str, float]:
        """Counts over all questions so far: `asked`, `malformed`, `failed`, failed/<reason>. For a pairwise judge also
        `first_position`, the share of "first" among the verdicts on the first order, and `consistency`, the share of
        comparisons in which both verdicts name the same answer. A share of nothing is left out."""
        counts = self.statistics
        failed = {name: counts[name] for name in sorted(counts) if name.startswith("failed/")}
        figures = {"asked": counts["asked"], "malformed": counts["malformed"], "failed": sum(failed.values()), **failed}
        figures |= share("first_position", counts["straight_first"], counts["straight_second"])
        if self.settings.swap:
            figures |= share("consistency", counts["first"] + counts["second"], counts["position_bound"])
        return figures

    def _question(self, prompt: Prompt, **answers: str) -> str:
        best = f"{self.settings.best:g}"
        values = {"principle": self.principle(prompt), "prompt": request_of(prompt), "best": best}
        return render(self._template, **values, **answers)

    def _ask(self, questions: Sequence[str]) -> list[Reply]:
        replies = self._client.ask(questions)
        if len(replies) >= SURELY_DOWN and all(reply.text is None for reply in replies):
            reasons = Counter(reply.failure for reply in replies)
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            slow = "raise judge.timeout_s or lower judge.at_once where it is slow"
            advice = slow if self.settings.model else f"check that judge.url is up, or {slow}"
            raise UserError(
                f"the judge answered none of {len(replies)} questions ({told}; the last: {replies[-1].detail}): {advice}"
            )
        return replies

    def _count(self, replies: Sequence[Reply], without_verdict: int) -> None:
        failures = [reply.failure for reply in replies if reply.failure]
        lost = Counter(f"failed/{failure}" for failure in failures if failure != "malformed")
        self.statistics.update(lost)
        self.statistics.update({"asked": len(replies), "malformed": without_verdict - lost.total()})


def decide(straight: Verdict | None, swapped: Verdict | None) -> Decision:
    """The decision from two verdicts about the answers (not their places): a preference if they agree; a tie if one is
    a tie."""
    if straight is None or swapped is None:
        outcome: Outcome = "unanswered"
    elif "tie" in (straight, swapped):
        outcome = "tie"
    else:
        outcome = straight if straight == swapped else "position_bound"
    return Decision(outcome, straight, swapped)


def ring(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Rows to compare: each sample with the next one of its prompt group, and the last with the first; one comparison
    for two samples.

    Raises UserError where a prompt has only one sample.
    """
    groups: dict[int, list[int]] = {}
    for row, sample in enumerate(samples):
        groups.setdefault(id(sample.prompt), []).append(row)
    pairs = []
    for rows in groups.values():
        if len(rows) < 2:
            raise UserError(
                f"a pairwise judge compares samples of one prompt, but prompt row {samples[rows[0]].prompt.row} has one: "
                "set sampling.samples to at least 2, or judge.kind=pointwise"
            )
        pairs += zip(rows, rows[1:] + (rows[:1] if len(rows) > 2 else []))
    return pairs


def share(name: str, count: float, others: float) -> dict[str, float]:
    """{name: count as a share of both}, empty if both are 0."""
    return {name: count / (count + others)} if count + others else {}
