"""The number that a text gives as its answer. 72, 72.0 and $72 are equal."""

from __future__ import annotations

import re
from decimal import Decimal

# a minus sign counts only where it is no operator: "16-3" ends in 3
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def number_in(text: str) -> Decimal | None:
    """The first number after the text's last `####` (GSM8K's mark, Cobbe et al. 2021); without the mark, its last. None
    where there is none."""
    _, mark, marked = text.rpartition("####")
    numbers = NUMBER.findall(marked)
    if not numbers:
        return None
    return Decimal(numbers[0 if mark else -1].replace(",", ""))
