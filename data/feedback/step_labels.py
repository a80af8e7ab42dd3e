"""Step labels: answers whose steps were judged right or wrong, for process reward models.

An answer's steps are its lines. A step is judged at the token after its last character, the last step at the end-of-turn token:
column t of the values speaks about the state before token t, where the whole step has been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from data.batch import Batch
from data.errors import UserError
from data.feedback.columns import FeedbackOptions, checked_flag, checked_items, item_place, row_meta
from data.messages import prompt_of
from data.render import STEP, ChatTemplate, Dialogue
from data.sample import Sample
from data.sources import Rows
from data.tokenizer import Tokenizer
from data.unit import DataReport, TrainingUnit


def step_units(
    rows: Rows, tokenizer: Tokenizer, max_length: int, report: DataReport, options: FeedbackOptions
) -> Iterator[TrainingUnit]:
    """One unit for each row, from the columns `prompt`, `steps` (texts without line breaks) and `labels` (for each step true or 1 =
    right, false or 0 = wrong). action_mask is set at the step ends, where the token column `step_labels` has 1 or 0.

    Drops rows longer than max_length, and rows where the tokenizer merges the ends of two steps into one token.
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


def step_batch(samples: Sequence[Sample], tokenizer: Tokenizer) -> Batch:
    """A row for each sample: prompt and answer as `step_units` writes them, with action_mask set at the step ends, or nowhere if the
    answer has no steps. Where the tokenizer merges the ends of two steps into one token, the mask is set once."""
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
    """The steps of an answer: its lines that are not blank."""
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
                raise UserError(f"{where} has a line break, which ends a step: split it there into two steps")
        labels = [
            float(checked_flag(label, item_place("labels", origin, place), "right or wrong"))
            for place, label in enumerate(checked_items(row, "labels", origin, like=("steps", len(steps))))
        ]
        prompt = prompt_of(row, origin)
        yield template.stepwise(prompt, steps, origin, labels=labels, **row_meta(number, row, prompt, origin))
