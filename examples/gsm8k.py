"""A data source of one's own: feedback of every kind from GSM8K questions with right and wrong model solutions.

In a config: `data: {path: "examples.gsm8k:solution_pairs", args: {path: gsm8k_model_solutions.jsonl}}`. Each function takes
`part`: all rows, or those of every fifth question (heldout), or those of the others (train).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random

from data.errors import UserError

HELD_OUT = 5  # one question of so many


def solution_pairs(path: str, part: str = "all") -> Iterator[dict]:
    """`prompt`, `chosen`, `rejected`: every right solution of a question against every wrong one."""
    for row in solution_rankings(path, part):
        judged = list(zip(row["responses"], row["correct"], strict=True))
        right = [solution for solution, correct in judged if correct]
        wrong = [solution for solution, correct in judged if not correct]
        for chosen, rejected in product(right, wrong):
            yield {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


def solution_rankings(path: str, part: str = "all") -> Iterator[dict]:
    """`prompt`, `responses`, `correct`: all solutions of a question, each with whether it is right."""
    for number, line in enumerate(Path(path).read_text().splitlines()):
        if part == "all" or (number % HELD_OUT == 0) == (part == "heldout"):
            row = json.loads(line)
            solutions = [value for value in row.values() if isinstance(value, dict)]
            yield {
                "prompt": row["question"],
                "responses": [solution["solution"] for solution in solutions],
                "correct": [solution["is_correct"] for solution in solutions],
            }


def solution_thumbs(path: str, part: str = "all") -> Iterator[dict]:
    """`prompt`, `response`, `label`: one solution a row, true where it is right."""
    for row in solution_rankings(path, part):
        for response, correct in zip(row["responses"], row["correct"], strict=True):
            yield {"prompt": row["prompt"], "response": response, "label": correct}


def solution_ratings(path: str, part: str = "all") -> Iterator[dict]:
    """`prompt`, `response`, `rating`: one solution a row, rated 1 where it is right, else 0."""
    for row in solution_thumbs(path, part):
        yield {"prompt": row["prompt"], "response": row["response"], "rating": int(row["label"])}


def solution_steps(path: str, part: str = "all", misplaced: float = 0.3) -> Iterator[dict]:
    """`prompt`, `steps`, `labels`: the lines of right solutions, the share `misplaced` of them taken from another question.

    The data do not say which step of a wrong solution is wrong. A step of another question's solution certainly is, and a
    step of a right solution counts as right. Raises UserError where only one question has right solutions.
    """
    right = [row for row in solution_thumbs(path, part) if row["label"]]
    if misplaced and len({row["prompt"] for row in right}) == 1:
        raise UserError(
            f"{path}: steps are taken from other questions' right solutions, but only one question has any: bring solutions "
            "of several questions, or set args.misplaced to 0"
        )
    solutions = [[line for line in row["response"].split("\n") if line.strip()] for row in right]
    rng = Random(f"misplaced {part}")
    for row, lines in zip(right, solutions, strict=True):
        labels = [rng.random() >= misplaced for _ in lines]
        steps = [line if label else _step_of_another(rng, right, solutions, row) for line, label in zip(lines, labels)]
        yield {"prompt": row["prompt"], "steps": steps, "labels": labels}


def _step_of_another(rng: Random, right: list[dict], solutions: list[list[str]], row: dict) -> str:
    while True:
        other = rng.randrange(len(right))
        if right[other]["prompt"] != row["prompt"]:
            return rng.choice(solutions[other])
