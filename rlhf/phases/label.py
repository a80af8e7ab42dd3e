"""Preferences from a judge instead of people (RLAIF): a judge compares the policy's answers to each prompt, and each
preference becomes a row of a data set for a later phase (Bai et al. 2022; Lee et al. 2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import UserError
from data.imports import load_object
from data.sample import Sample
from rlhf.judge.judge import Comparison, JudgeModel, Outcome, ring, share
from rlhf.judge.questions import Verdict
from rlhf.phases.answers import read_prompts, sampled_steps
from rlhf.phases.base import Metrics, PhaseContext

SHOWN = ("labelled", "position_bound", "first_position", "agreement", "seconds/judge")
ANNOTATOR = "judge"


@dataclass(frozen=True)
class Judged:
    """Two samples of a prompt with the judge's outcome. straight: the verdict before the swap, if there was a swap;
    margin: the difference of ratings, as a share of the best possible rating."""

    first: Sample
    second: Sample
    outcome: Outcome
    straight: Verdict | None
    margin: float | None = None

    @property
    def preference(self) -> tuple[Sample, Sample] | None:
        """(chosen, rejected); None if the judge prefers neither."""
        pairs = {"first": (self.first, self.second), "second": (self.second, self.first)}
        return pairs.get(self.outcome)


def run(context: PhaseContext) -> Metrics:
    """Writes rows of `prompt`, `chosen`, `rejected` and `annotator`; also `principle` if the judge has principles, and
    `margin` if it rates. Returns the figures of the comparisons and of the judge's questions.

    Raises UserError where the judge preferred no answer at all.
    """
    phase, prompts = context.phase, read_prompts(context)  # before the judge's server starts: bad data fail early
    judge = context.judge
    gold = load_object(phase.gold) if phase.gold else None
    totals: Counter[str] = Counter()
    for asked in sampled_steps(context, prompts, SHOWN):
        with asked.timer("judge"):
            judged = compare(judge, asked.samples)
        asked.rows = [row_of(judge, each) for each in judged if each.preference]
        found = counts(judged, gold)
        totals += found
        asked.figures = figures(found) | judge.metrics()
    if not totals["rows"]:
        told = ", ".join(f"{name} {value:g}" for name, value in (figures(totals) | judge.metrics()).items())
        raise UserError(
            f"phases.{phase.name}: the judge preferred no answer to another ({told}); ask it one of its questions by hand: "
            "it must reply with the bare verdict, within judge.max_new_tokens"
        )
    return figures(totals) | judge.metrics()


def compare(judge: JudgeModel, samples: Sequence[Sample]) -> list[Judged]:
    """The judge's comparisons of each prompt's samples. A pairwise judge compares neighbours in a ring of the samples;
    of a judge that rates, the best sample is compared with the worst. Leaves out empty and truncated answers, so that
    no model learns them."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        if sample.text.strip() and not sample.truncated:
            groups.setdefault(id(sample.prompt), []).append(sample)
    usable = [sample for group in groups.values() if len(group) > 1 for sample in group]
    if judge.settings.kind == "pointwise":
        return _by_ratings(judge, usable)
    pairs = [(usable[a], usable[b]) for a, b in ring(usable)]
    decisions = judge.compare([Comparison(one.prompt, one.text, other.text) for one, other in pairs])
    swap = judge.settings.swap
    return [
        Judged(one, other, decision.outcome, decision.straight if swap else None)
        for (one, other), decision in zip(pairs, decisions, strict=True)
    ]


def _by_ratings(judge: JudgeModel, samples: Sequence[Sample]) -> list[Judged]:
    groups: dict[int, list[tuple[float, Sample]]] = {}
    ratings = judge.rate([(sample.prompt, sample.text) for sample in samples])
    for sample, rating in zip(samples, ratings, strict=True):
        groups.setdefault(id(sample.prompt), []).append((rating, sample))
    found = []
    for group in groups.values():
        rated = sorted((pair for pair in group if pair[0] == pair[0]), key=lambda pair: pair[0])  # NaN: no rating
        if len(rated) < 2:
            found.append(Judged(group[0][1], group[1][1], "unanswered", None))
            continue
        (low, worst), (high, best) = rated[0], rated[-1]
        outcome = "first" if high > low else "tie"
        found.append(Judged(best, worst, outcome, None, (high - low) / judge.settings.best))
    return found


def row_of(judge: JudgeModel, judged: Judged) -> dict[str, Any]:
    """A row of the data set. judged: a comparison with a preference."""
    chosen, rejected = judged.preference
    row = {"prompt": list(chosen.prompt.messages), "chosen": chosen.text, "rejected": rejected.text}
    row["annotator"] = ANNOTATOR
    if judge.settings.principles:
        row["principle"] = judge.principle(chosen.prompt)
    return row if judged.margin is None else {**row, "margin": judged.margin}


def counts(judged: Sequence[Judged], gold: Callable[[Sample], float] | None) -> Counter[str]:
    """The number of pairs by outcome. gold: a score of a sample; if given, also how many preferences, and how many
    verdicts before a swap, it agrees with (`_right`) or not (`_wrong`), over pairs with different gold scores."""
    found = Counter(each.outcome for each in judged)
    found["pairs"], found["rows"] = len(judged), found["first"] + found["second"]
    for each in judged if gold else ():
        better = gold(each.first) - gold(each.second)
        if better:
            wanted = "first" if better > 0 else "second"
            for name, verdict in (("after", each.outcome), ("straight", each.straight)):
                if verdict in ("first", "second"):
                    found[f"{name}_right" if verdict == wanted else f"{name}_wrong"] += 1
    return found


def figures(found: Counter[str]) -> Metrics:
    """The numbers of pairs and rows; the shares of pairs that are labelled, ties, position_bound or unanswered; and how
    often gold agrees with the labels and with the verdicts before a swap."""
    shares = {"labelled": "rows", "ties": "tie", "position_bound": "position_bound", "unanswered": "unanswered"}
    result: Metrics = {"pairs": found["pairs"], "rows": found["rows"]}
    if found["pairs"]:
        result |= {name: found[count] / found["pairs"] for name, count in shares.items()}
    result |= share("agreement", found["after_right"], found["after_wrong"])
    return result | share("agreement_before_swap", found["straight_right"], found["straight_wrong"])
