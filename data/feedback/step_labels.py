"""Step labels: answers of which each step was found right or wrong. What process reward models learn from, and read.

An answer's steps are its lines. A step is judged at the token right after its last character, the last one at the
end-of-turn token: column t of values speaks of the state before token t, so that the whole step has been read there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.batch import Batch
from data.errors import UserError
from data.feedback.columns import FeedbackOptions, checked_flag, checked_items, item_place, row_meta
from data.messages import prompt_of
from data.render import STEP, ChatTemplate, Dialogue
from data.sample import Sample
from data.sources import Rows
from data.unit import DataReport, TrainingUnit


def step_units(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """Columns `prompt`, `steps` (texts without line breaks) and `labels` (of each step: true or 1 for right, false or 0 for
    wrong). action_mask is set at the step ends, the token column step_labels holds 1 or 0 there.

    Dropped: rows longer than max_length, and rows where the tokenizer merges the ends of two steps into one token.
    """
    rows.require("prompt", "steps", "labels")
    template = ChatTemplate(tokenizer)
    for example in template.encode(_dialogues(rows, template)):
        labels = example.meta.pop("labels")
        if len(example.tokens) > max_length:
            report.drop_long(len(example.tokens), max_length)
        elif example.mask.sum() != len(labels):
            report.drop("with two step ends in one token")
        else:
            column = np.zeros(len(example.tokens), np.float32)
            column[example.mask] = labels
            yield (replace(example, token_columns={"step_labels": column}),)


def step_batch(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """One row for each sample: its prompt and its answer as `step_units` writes them, action_mask set at the step ends; none
    where the answer has no steps. Where the tokenizer merges the ends of two steps into one token, it is set once."""
    template = ChatTemplate(tokenizer)
    dialogues = [
        template.stepwise(
            sample.prompt.messages, steps_of(sample.text), f"the answer to prompt row {sample.prompt.row}"
        )
        for sample in samples
    ]
    examples = list(template.encode(dialogues))
    return Batch.from_rows([example.tokens for example in examples], [example.mask for example in examples])


def steps_of(text: str) -> list[str]:
    """The steps of an answer: its lines, blank ones left out."""
    return [line for line in text.split(STEP) if line.strip()]


def _dialogues(rows: Rows, template: ChatTemplate) -> Iterator[Dialogue]:
    for number, row in enumerate(rows):
        origin = rows.origin(number)
        steps = checked_items(row, "steps", origin)
        if not steps:
            raise UserError(f"{origin}: column 'steps' is empty; wanted the steps of an answer")
        for place, step in enumerate(steps):
            where = item_place("steps", origin, place)
            if not isinstance(step, str) or not step.strip():
                raise UserError(f"{where} must be the text of a step, found {step!r:.40}")
            if STEP in step:
                raise UserError(f"{where} has a line break, which is what ends a step: split it there into two steps")
        labels = [
            float(checked_flag(label, item_place("labels", origin, place), "right or wrong"))
            for place, label in enumerate(checked_items(row, "labels", origin, like=("steps", len(steps))))
        ]
        prompt = prompt_of(row, origin)
        yield template.stepwise(prompt, steps, origin, labels=labels, **row_meta(number, row, prompt, origin))
