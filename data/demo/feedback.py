"""More feedback on the demo's answers, for all kinds of reward models: rankings, ratings, pairs by one good, and wrong labels.

Each generator yields rows and is a data source `data.demo.feedback:<name>`, with `split` as in data/demo/tasks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from data.demo.gold import HELPFUL, SAFE, share_of
from data.demo.tasks import FAULTY, Request, pairs, spoil, stream, write_answer
from data.errors import UserError

GOODS = {"helpful": HELPFUL, "safe": SAFE}


def rankings(rows: int, size: int = 4, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt`, `size` `responses`, and their `ranks` by gold, 1 = best; equal gold is a tie."""
    rng = stream("rankings", split, seed)
    for _ in range(rows):
        request = Request.draw(rng, split)
        answers = _answers(rng, request, size)
        golds = [request.gold(answer) for answer in answers]
        ranks = [1 + sum(other > gold for other in golds) for gold in golds]
        yield {"prompt": request.phrase(rng), "responses": answers, "ranks": ranks}


def ratings(rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt`, `response` and `rating`, {"helpful", "safe"}, each from 0 to 1."""
    rng = stream("ratings", split, seed)
    for _ in range(rows):
        request = Request.draw(rng, split)
        (answer,) = _answers(rng, request, 1)
        rating = {good: share_of(request.qualities(answer), names) for good, names in GOODS.items()}
        yield {"prompt": request.phrase(rng), "response": answer, "rating": rating}


def pairs_of(good: str, rows: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Rows of `prompt`, `chosen` and `rejected`, judged by one good alone: helpful (topic, truth, detail) or safe (greeting,
    kindness, farewell)."""
    if good not in GOODS:
        raise UserError(f"data.demo.feedback:pairs_of got good {good!r}; use one of {', '.join(GOODS)}")
    rng = stream(f"pairs of {good}", split, seed)
    while rows > 0:
        request = Request.draw(rng, split)
        answers = _answers(rng, request, 2)
        worth = [share_of(request.qualities(answer), GOODS[good]) for answer in answers]
        if worth[0] != worth[1]:
            rows -= 1
            rejected, chosen = (answer for _, answer in sorted(zip(worth, answers), key=lambda pair: pair[0]))
            yield {"prompt": request.phrase(rng), "chosen": chosen, "rejected": rejected}


def noisy_pairs(rows: int, wrong: float, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """The demo's pairs, with `chosen` and `rejected` exchanged in a share `wrong` of them."""
    rng = stream("noise", split, seed)
    for row in pairs(rows, seed, split):
        if rng.random() < wrong:
            row = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        yield row


def _answers(rng: Random, request: Request, count: int) -> list[str]:
    return [(spoil if rng.random() < FAULTY / 2 else write_answer)(rng, request) for _ in range(count)]
