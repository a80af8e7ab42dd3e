"""What the tests of `data` share: rows in memory, a tokenizer trained from a few lines, the place of the real data."""

from functools import cache
from pathlib import Path

import pytest

from data.sources import Rows, SourcePart
from data.tokenizer_training import train_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
LINES = [
    "the cat sat on the mat\n",
    "What is 2 + 3? It is 5.\n\n",
    "user assistant system\n",
    "Ünïcödé — 猫 と 犬\n",
] * 3


def rows_of(*rows: dict, name: str = "rows.jsonl") -> Rows:
    """Rows as `open_rows` would give them for a file of this name."""
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Rows([SourcePart(name, list(rows), columns, lambda: "")], {}, None)


@cache
def tokenizer():
    return train_tokenizer(LINES, 320)


def shared_file(name: str) -> str:
    """The path of a file of ../shared/data; skips the test where it is absent."""
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is not on this machine")
    return str((SHARED / name).resolve())


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content}
