"""Rewards that follow from a rule, without a model."""

from __future__ import annotations

import re
from decimal import Decimal

from data.errors import UserError
from data.sample import Sample

# a minus sign counts only where it is no operator: "16-3" ends in 3
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def numeric_answer(sample: Sample) -> float:
    """1.0 where the response gives the number of `sample.prompt.meta["answer"]`, else 0.0; 72, 72.0 and $72 are equal.

    A text's number is the first after its last `####` (GSM8K's mark, Cobbe et al. 2021); without the mark, its last.
    Raises UserError where the prompt's row has no answer column, or no number in it.
    """
    if "answer" not in sample.prompt.meta:
        found = ", ".join(sorted(sample.prompt.meta)) or "none"
        raise UserError(
            f"numeric_answer: prompt row {sample.prompt.row} has no column 'answer' (further columns: {found}); "
            "map it in data.columns"
        )
    expected = _number(str(sample.prompt.meta["answer"]))
    if expected is None:
        raise UserError(
            f"numeric_answer: prompt row {sample.prompt.row}: no number in its answer {sample.prompt.meta['answer']!r}"
        )
    return float(_number(sample.text) == expected)


def _number(text: str) -> Decimal | None:
    _, mark, marked = text.rpartition("####")
    numbers = NUMBER.findall(marked)
    if not numbers:
        return None
    return Decimal(numbers[0 if mark else -1].replace(",", ""))
