"""A data source of one's own: preference pairs from GSM8K questions with right and wrong model solutions.

In a config: `data: {path: "examples.gsm8k:solution_pairs", args: {path: gsm8k_model_solutions.jsonl}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path


def solution_pairs(path: str) -> Iterator[dict]:
    """`prompt`, `chosen`, `rejected`: every right solution of a question against every wrong one."""
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        solutions = [value for value in row.values() if isinstance(value, dict)]
        right = [solution["solution"] for solution in solutions if solution["is_correct"]]
        wrong = [solution["solution"] for solution in solutions if not solution["is_correct"]]
        for chosen, rejected in product(right, wrong):
            yield {"prompt": row["question"], "chosen": chosen, "rejected": rejected}
