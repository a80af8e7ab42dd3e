"""Rows that teach a small model to judge which of two answers to a villager's request is better, by gold.

`questions` is a data source `data.demo.judging:questions`. Its template must be the template of the judge that the model becomes.
"""

from __future__ import annotations

from collections.abc import Iterator

from data.demo.tasks import pairs, stream

VERDICTS = ("A", "B")


def questions(rows: int, template: str, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt`, the template with {prompt}, {first} and {second} filled in, and `response`, the verdict A or B. The better
    answer is equally often first and second."""
    rng = stream("questions", split, seed)
    for pair in pairs(rows, seed, split):
        better = rng.randrange(2)
        answers = (pair["chosen"], pair["rejected"]) if better == 0 else (pair["rejected"], pair["chosen"])
        yield {
            "prompt": template.format(prompt=pair["prompt"], first=answers[0], second=answers[1]),
            "response": VERDICTS[better],
        }
