"""After a reward model's training: measures its scores on held-out rows; reward.json says how to read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from data.examples import Examples
from rlhf.phases.base import Metrics
from rlhf.phases.supervised_rows import AT_ONCE, Stager
from rlhf.reports import calibration
from rlhf.reports.calibration_plot import draw
from rlhf.rewards.model_scores import MOST_QUESTIONS, RewardSpec, mean_verdict, weakest_step
from rlhf.rundir import write_atomically

REPORT, PICTURE = "calibration.json", "calibration.png"
Reads = Literal["answer", "steps", "questions"]
Scored = tuple[Tensor, Batch]  # a batch with the model's (B,) scores or (B, T) values


def calibrate(stager: Stager, train: Examples, held_out: Examples) -> Metrics:
    """Writes reward.json, and a report on the held-out rows as calibration.json and calibration.png, into the artifact.
    Returns the report's main figures; empty if the loss is the user's own and its rows have no known labels.

    Raises UserError where a score is not finite."""
    context = stager.context
    questions = questions_of(train)
    reads = "steps" if stager.objective.output == "values" else "questions" if questions else "answer"
    if len(questions) > MOST_QUESTIONS:
        note = f"warning: the rows ask {len(questions):,} questions; no reward asks more than {MOST_QUESTIONS}"
        context.console.print(f"[bold]{context.phase.name:<9}[/] {note}", highlight=False, soft_wrap=True)
    scored = score(stager, held_out)
    expect_numbers(held_out.report.name, scored)
    spec_of(reads, questions, scored).write(context.staging)
    report = report_of(reads, scored)
    if report is None:
        return {}
    write_atomically(context.staging / REPORT, json.dumps(report, indent=2) + "\n")
    draw(report, context.staging / PICTURE)
    told = f"calibration: {calibration.in_a_line(report)} → {PICTURE}"
    context.console.print(f"[bold]{context.phase.name:<9}[/] {told}", highlight=False, soft_wrap=True)
    return calibration.headline(report)


def score(stager: Stager, examples: Examples) -> list[Scored]:
    """The model's output for all rows, in batches."""
    found = []
    for first in range(0, len(examples), AT_ONCE):
        batch = examples.batch(range(first, min(first + AT_ONCE, len(examples))))
        staged = stager.context.runtime.stage(batch, [stager.model])
        found.append((stager.model.forward(staged, stager.objective.output).result(), batch))
    return found


def expect_numbers(name: str, scored: Sequence[Scored]) -> None:
    """Raises UserError where a score is NaN or infinite: such a model gives no rewards."""
    asked, wrong = 0, []
    for out, batch in scored:
        counted = batch.action_mask if out.ndim == 2 else torch.ones_like(out, dtype=torch.bool)
        asked += int(counted.sum())
        for place in (counted & ~out.isfinite()).nonzero().tolist():
            wrong.append((float(out[tuple(place)]), batch.meta[place[0]]["row"] + 1))
    if wrong:
        value, row = wrong[0]
        raise UserError(
            f"{name}, row {row}: the trained model's score is {value} ({len(wrong):,} of {asked:,} held-out scores are not "
            "finite): lower optim.lr, or train with models.reward.dtype: float32"
        )


def spec_of(reads: Reads, questions: tuple[str, ...], scored: Sequence[Scored]) -> RewardSpec:
    """How to read the model's scores, with mean and deviation of its rewards for the held-out answers. The reward of a
    row that asks one question about an answer is the verdict on this question."""
    rewards = torch.cat([torch.zeros(0), *(_rewards(reads, out, batch) for out, batch in scored)])
    rewards = rewards[~rewards.isnan()]  # an answer without steps has no reward
    if not len(rewards):
        return RewardSpec(reads, questions)
    # rewards are divided by the deviation, so use 1 where it is 0 or there is only one reward
    std = float(rewards.std()) if len(rewards) > 1 else 0.0
    return RewardSpec(reads, questions, float(rewards.mean()), std or 1.0)


def report_of(reads: Reads, scored: Sequence[Scored]) -> calibration.Report | None:
    """The report for the kind of labels in the batches; None without batches or with unknown labels."""
    batches = [batch for _, batch in scored]
    if not batches:
        return None
    if reads == "steps":
        if not _has(batches, "step_labels"):
            return None
        logits = torch.cat([out[batch.action_mask] for out, batch in scored])
        return calibration.of_steps(logits, torch.cat([batch.step_labels[batch.action_mask] for batch in batches]))
    scores = torch.cat([out for out, _ in scored])
    lengths = torch.cat([batch.action_mask.sum(1) for batch in batches])
    if _has(batches, "ratings"):
        return calibration.of_ratings(scores, _column(batches, "ratings"), lengths)
    if _has(batches, "desirable") and reads == "questions":
        return calibration.of_questions(scores, _column(batches, "desirable"))
    if _has(batches, "desirable"):
        return calibration.of_labels(scores, _column(batches, "desirable"), lengths)
    if _has(batches, "ranks"):
        return calibration.of_comparisons(scores, lengths, _column(batches, "ranks"), _groups(batches))
    return None


def questions_of(examples: Examples) -> tuple[str, ...]:
    """The distinct questions that the rows ask about answers, in the order of their first appearance."""
    return tuple(dict.fromkeys(row["question"] for row in examples.meta if "question" in row))


def _groups(batches: Sequence[Batch]) -> Tensor:
    """The group_ids of all batches, shifted so that groups of different batches have different ids."""
    offsets = np.cumsum([0, *(int(batch.group_ids.max()) + 1 for batch in batches)])
    return torch.cat([batch.group_ids + int(offset) for batch, offset in zip(batches, offsets)])


def _rewards(reads: Reads, out: Tensor, batch: Batch) -> Tensor:
    """(B,) rewards, computed from the model's output as in an RL phase."""
    if reads == "steps":
        return weakest_step(out, batch.action_mask)
    return mean_verdict(out, 1) if reads == "questions" else out


def _column(batches: Sequence[Batch], name: str) -> Tensor:
    return torch.cat([batch.columns[name] for batch in batches])


def _has(batches: Sequence[Batch], name: str) -> bool:
    return all(name in batch for batch in batches)
