"""Text rows: documents that end with the end-of-text token, cut into rows of at most max_length tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.messages import text_of
from data.render import TOKENIZED_AT_ONCE, batched
from data.sources import Rows
from data.tokenizer import end_of_text
from data.unit import DataReport, Example, Unit


def text_units(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport) -> Iterator[Unit]:
    """Column `text`. Every token is trained on but a row's first, which nothing predicts; each cut repeats one token as the
    next row's first, so that every token of a document but its very first is predicted once."""
    rows.require("text")
    end = end_of_text(tokenizer)
    for numbers in batched(range(len(rows)), TOKENIZED_AT_ONCE):
        texts = [text_of(rows[number], "text", rows.origin(number)) for number in numbers]
        for number, text, tokens in zip(numbers, texts, tokenizer(texts, verbose=False)["input_ids"], strict=True):
            if not text.strip():
                report.drop("without text")
                continue
            if tokens[-1:] != [end]:
                tokens.append(end)
            report.truncated += len(tokens) > max_length
            document = np.array(tokens, np.int32)
            for start in range(0, len(document) - 1, max_length - 1):
                chunk = document[start : start + max_length]
                mask = np.ones(len(chunk), bool)
                mask[0] = False
                yield (Example(chunk, mask, {"row": number}),)
