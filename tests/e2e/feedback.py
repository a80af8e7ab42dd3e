"""Rows and rewards for test_feedback_loops.py, found by import path as a user's would be."""

from __future__ import annotations

import time
from collections.abc import Iterator

from data.demo.feedback import rankings
from data.demo.gold import GRUMPY
from data.demo.tasks import instructions
from data.sample import Sample


def verdicts(rows: int, seed: int = 0) -> Iterator[dict]:
    """Of each answer, whether it breaks the rule of kindness."""
    for row in instructions(rows, seed):
        unkind = any(word in row["response"] for word in GRUMPY)
        yield {**row, "rule": "say nothing grumpy", "violated": unkind}


def steps(rows: int, seed: int = 0) -> Iterator[dict]:
    """Each sentence is a step, wrong where it is grumpy."""
    for row in instructions(rows, seed):
        sentences = row["response"].split(". ")
        labels = [not any(word in sentence for word in GRUMPY) for sentence in sentences]
        yield {"prompt": row["prompt"], "steps": sentences, "labels": labels}


def judged_rankings(rows: int, seed: int = 0) -> Iterator[dict]:
    """Two annotators, who contradict each other on every fourth ranking."""
    for number, row in enumerate(rankings(rows, size=3, seed=seed)):
        yield {**row, "annotator": "anna"}
        ranks = [max(row["ranks"]) + 1 - rank for rank in row["ranks"]] if number % 4 == 0 else row["ranks"]
        yield {**row, "ranks": ranks, "annotator": "bram"}


def unsteady(sample: Sample) -> float:
    """Hangs on the first of a prompt's samples in every fourth row, raises on the second."""
    if sample.prompt.row % 4 == 0 and sample.index == 0:
        time.sleep(3600)
    if sample.prompt.row % 4 == 0 and sample.index == 1:
        raise ValueError("not today")
    return len(sample.text) / 100
