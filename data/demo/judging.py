"""Rows that teach a small model to judge: which of two answers to a villager's request is the better one, by gold.

`questions` serves as a data source `data.demo.judging:questions`. The template is that of the judge which the model becomes,
so that it is asked what it was taught.
"""

from __future__ import annotations

from collections.abc import Iterator

from data.demo.tasks import pairs, stream

VERDICTS = ("A", "B")


def questions(rows: int, template: str, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt` and `response`: the template with {prompt}, {first} and {second} filled in, the better answer as often
    first as second, and the verdict, A or B."""
    rng = stream("questions", split, seed)
    for pair in pairs(rows, seed, split):
        better = rng.randrange(2)
        answers = (pair["chosen"], pair["rejected"]) if better == 0 else (pair["rejected"], pair["chosen"])
        yield {
            "prompt": template.format(prompt=pair["prompt"], first=answers[0], second=answers[1]),
            "response": VERDICTS[better],
        }
